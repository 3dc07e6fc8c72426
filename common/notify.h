/* What systemd wants to know of us; nothing happens where there is no systemd. Threads: all safe,
 * but notify_alive, which is one's alone. */
#ifndef DAVIT_NOTIFY_H
#define DAVIT_NOTIFY_H

void notify_ready(const char *status);
void notify_reloading(void);
void notify_reloaded(void);
void notify_stopping(void);
/* Call it often: the watchdog is fed as seldom as it may be. */
void notify_alive(void);

#endif
