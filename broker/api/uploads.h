/* The head of a PATCH of an upload (uploads.c): opens rq->upload where its header says. Threads:
 * the connection's. */
#ifndef DAVIT_API_UPLOADS_H
#define DAVIT_API_UPLOADS_H

#include "broker/api/request.h"

int uploads_resume(struct request *rq);

#endif
