/* The options of `davit enqueue` for what is done without a process. */
#ifndef DAVIT_CLI_ACTION_H
#define DAVIT_CLI_ACTION_H

#include "cli/cli.h"

struct action_options {
    const char *http;
    const char *method;
    struct opt_list headers;
    const char *body;
    const char *expect;
    const char *expect_body;
    uint64_t redirects;
    const char *tcp;
    const char *wait;
    const char *prefork;
    const char *input;
};

/* *ret is the action of the request, which is the caller's; NULL: none is asked for. */
int action_from_options(const struct cli *c, const struct action_options *o, json_t **ret);
/* How an action ended, as `davit jobs JOB` prints it. */
void action_print(const json_t *result);

#endif
