/* Makes the child pipelines of trigger jobs, on threads of its own: compiles each and posts
 * PipelineCreate, or TriggerFailed with what is wrong. What cannot be posted now (the inbox or the
 * store is full) is tried again until it can, or until the broker ends.
 * Ownership: triggers_free. Threads: triggers_request on any thread, the rest on main's. */
#ifndef DAVIT_TRIGGER_H
#define DAVIT_TRIGGER_H

#include "broker/blob/blob.h"
#include "broker/store/store.h"
#include "broker/turn.h"
#include "broker/vault/vault.h"
#include "pipeline/fetch/fetch.h"

struct triggers;
/* `includes`: where files come from that are not in a bundle; NULL: nowhere. */
struct triggers *triggers_new(struct store *store, struct blobs *blobs, struct vault *vault,
                              const struct fetch_config *includes);
/* Starts the threads; what was asked for before is done first. */
void triggers_start(struct triggers *t, struct turn *turn);
/* Ends the threads; to be called while the turn still answers, and with includes->stop set, or it
 * waits for what they fetch. Nothing happens without a start. */
void triggers_stop(struct triggers *t);
void triggers_free(struct triggers *t); /* stopped, or NULL */

/* The child pipeline of the job, under this epoch, is to be made: struct turn_trigger's `start`. */
void triggers_request(void *ctx, uint64_t job_id, uint64_t epoch);

#endif
