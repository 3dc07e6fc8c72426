/* Services of rollouts, for people: what stood there and when, what tells two versions apart, the
 * way back. `name` is ENVIRONMENT/TARGET. All say why they fail, and print what they find. Threads:
 * one client a thread. */
#ifndef DAVIT_CLI_SERVICE_H
#define DAVIT_CLI_SERVICE_H

#include "cli/client.h"

/* The newest rollout of the service; where something is to be done to it the live one. */
int service_rollout(struct cli *c, const struct client *cl, const char *project, const char *name,
                    bool live, uint64_t *ret);

/* All services of the project; or one with its versions and rollouts. */
int service_list(struct cli *c, const struct client *cl, const char *project);
int service_history(struct cli *c, const struct client *cl, const char *project, const char *name);

/* Versions are named by their text, or by the number that `history` shows. NULL: of `to` the stable
 * version, of `from` the one that was kept before it. */
int service_diff(struct cli *c, const struct client *cl, const char *project, const char *name,
                 const char *from, const char *to);
/* A rollout's version against the one that it leaves. */
int service_diff_rollout(struct cli *c, const struct client *cl, uint64_t rollout_id);

/* *ret is the new rollout. `to` NULL: the version before the stable one. */
int service_undo(struct cli *c, const struct client *cl, const char *project, const char *name,
                 const char *to, const char *reason, json_t **ret);

#endif
