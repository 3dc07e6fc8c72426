/* The handlers of routes.def, each in the file of its kind: get.c, act.c, submit.c, enqueue.c,
 * settings.c, reload.c, groups.c, why.c, bytes.c, uploads.c, events.c, follow.c, metrics.c. */
#ifndef DAVIT_API_HANDLERS_H
#define DAVIT_API_HANDLERS_H

#include "broker/api/route.h"

#define ROUTE(method, path, roles, body, query, handler) int handler(struct request *rq);
#include "broker/api/routes.def"
#undef ROUTE

#endif
