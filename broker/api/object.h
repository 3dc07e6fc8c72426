/* Answers that show an object as the store has it now; used after a command was committed. */
#ifndef DAVIT_API_OBJECT_H
#define DAVIT_API_OBJECT_H

#include "broker/api/request.h"

/* -E_NOT_FOUND when it is not there. */
int answer_pipeline(struct request *rq, unsigned status, uint64_t id);
int answer_job(struct request *rq, unsigned status, uint64_t id);
int answer_environment(struct request *rq, unsigned status, uint64_t id);
int answer_rollout(struct request *rq, unsigned status, uint64_t id);
int answer_worker(struct request *rq, unsigned status, uint64_t id);

#endif
