/* Inside of the simulated workers: what they do (worker.c) and how they say it (say.c), which is
 * all that knows the shape of messages. */
#ifndef DAVIT_SIM_WORKER_H
#define DAVIT_SIM_WORKER_H

#include "tests/sim/sim.h"

/* worker.c */
bool worker_unable(const struct worker *w);
void worker_hang_up(struct worker *w, uint64_t for_us);
struct held *worker_held(struct worker *w, const Pb__JobKey *key);
void worker_finish_ack(struct worker *w, const Pb__JobKey *key, bool stale);

/* say.c */
void say_hello(struct worker *w);
void say_heartbeat(struct worker *w);
void say_assign_ack(struct worker *w, struct held *const *jobs, size_t n);
void say_started(struct worker *w, struct held *const *jobs, size_t n);
void say_return(struct worker *w, const struct held *h);
void say_log(struct worker *w, struct held *h, uint64_t n);
void say_finished(struct worker *w, struct held *const *jobs, size_t n);
void say_stale(struct worker *w); /* the end of a job that it has forgotten */
void say_bye(struct worker *w);
/* Calls `take` for each job that is given. */
void hear_assign(const Pb__WireAssign *m, struct worker *w,
                 void (*take)(struct worker *w, const Pb__JobKey *key));
void hear_finish_ack(const Pb__FinishAck *m, struct worker *w);

#endif
