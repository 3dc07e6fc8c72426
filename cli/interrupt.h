/* Ctrl-C: how often the user said stop. SIGINT, SIGTERM and SIGHUP count alike. */
#ifndef DAVIT_CLI_INTERRUPT_H
#define DAVIT_CLI_INTERRUPT_H

void interrupt_catch(void);
int interrupt_count(void);

#endif
