/* Sending a built request to a broker, with its sources. Threads: one at a time. */
#ifndef DAVIT_CLI_SUBMIT_H
#define DAVIT_CLI_SUBMIT_H

#include "cli/client.h"
#include "cli/request.h"

/* Packs the tree, uploads it and sets the request's `source` to it. */
int submit_snapshot(struct cli *c, const struct client *cl, struct repo *repo, struct request *r);
/* Sets the request's `source` to a commit that workers fetch themselves. */
void submit_git(struct request *r, const char *url, const char *sha, const char *ref);
/* POST /pipelines under a fresh idempotency key, tried again while the broker is away or busy. */
int submit_send(struct cli *c, const struct client *cl, struct request *r, json_t **ret_pipeline);

#endif
