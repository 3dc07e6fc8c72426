/* Answers: JSON, errors as problem+json, responses of any kind. Each is counted for /metrics. The
 * functions return 0, so that a handler can end with them. Threads: the connection's. */
#ifndef DAVIT_API_ANSWER_H
#define DAVIT_API_ANSWER_H

#include "broker/api/request.h"

int answer_json(struct request *rq, unsigned status, json_t *body); /* takes the body over */
int answer_text(struct request *rq, unsigned status, const char *type,
                struct buf *text); /* empties it */
/* The error, with rq->why as detail and rq->extra's members. */
void answer_error(struct request *rq, int r);
/* Takes the response over. */
int answer_response(struct request *rq, unsigned status, struct MHD_Response *response);

#endif
