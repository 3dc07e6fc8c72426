/* `"action": {"http": {...}}` of a job in a request: what is done without a process. Threads: as
 * body.h. */
#ifndef DAVIT_API_ACTION_H
#define DAVIT_API_ACTION_H

#include "broker/api/request.h"

/* Reads the member `action` of jobs[index] into the arena. Absent or null: *ret stays as it is. */
int action_read(struct request *rq, const json_t *job, size_t index, struct arena *arena,
                Pb__ActionSpec **ret);
/* What it does, in a few words; at most LIMIT_NAME bytes, in the arena. */
char *action_name(struct arena *arena, const Pb__ActionSpec *spec);
/* How one ended, for people and programs; null: it was none, or has not ended by itself. */
json_t *action_view(const Pb__ActionResult *result);

#endif
