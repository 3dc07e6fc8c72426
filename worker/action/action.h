/* The executor `action`: what jobs do that are no processes, thousands at a time, on the worker's
 * event loop. HTTP and TCP go through common/http_multi.h, waits are timers, the rest is drivers
 * (worker/driver/driver.h), which are called behind the fence (fence.h), and pools of processes
 * that are there before their jobs (prefork.h).
 *
 * An action ends exactly once: by its callback, which never comes from within action_begin, or by
 * action_cancel. Nothing of it is on the disk: a worker that starts anew holds none, and the broker
 * gives them out again. So they are idempotent by contract.
 *
 * Ownership: the spec is the caller's and outlives the action; the result lives until the callback
 * returns. Threads: the loop's. */
#ifndef DAVIT_WORKER_ACTION_H
#define DAVIT_WORKER_ACTION_H

#include "proto/pb.h"
#include "worker/action/reach.h"
#include "worker/loop.h"

#define ACTION_HTTP_MS 30000u /* where a spec says 0 */
#define ACTION_TCP_MS  10000u

/* Codes of results that are not ok; drivers have some of their own:
 *   status       the answer's status was not expected
 *   body         the expected text was not found in the answer
 *   unreachable  no connection, or it broke
 *   timeout      the action's own time, or the job's, was over
 *   denied       this worker may not connect there (--action-allow)
 *   protocol     what came is no HTTP, or no answer of a process
 *   invalid      the action itself is wrong: a URL, an expression
 *   stale        a driver's target has seen a higher fence
 *   no_driver    this worker has no such driver
 *   too_big      the driver's answer is larger than may be
 *   no_pool      this worker has no such pool of processes
 *   exit         a process of a pool says that the job failed
 *   died         such a process ended, or none gets ready
 *   state        the worker cannot write its state folder */

struct actions;
struct action;

/* `reason` is REASON_NONE when the result is ok. */
typedef void (*action_fn)(void *ctx, Pb__ActionResult *result, Pb__Reason reason);

/* `reach` and `state_dir` outlive it. */
struct actions *actions_new(struct loop *loop, const struct reach *reach, const char *state_dir);
void actions_free(struct actions *as); /* none is left, or all are canceled */

struct action *action_begin(struct actions *as, const Pb__JobSpec *spec, action_fn fn, void *ctx);
void action_cancel(struct action *a);

/* What goes into its job's log; from within its callback. */
struct str action_log(const struct action *a);

/* One more pool of processes (prefork.h), which start now. */
struct prefork_config;
void actions_add_pool(struct actions *as, const struct prefork_config *config, uint64_t recycle);

/* Whether an executor's name is that of actions: "action", "action/DRIVER", "prefork/POOL". */
bool action_is_executor(const char *name);

#endif
