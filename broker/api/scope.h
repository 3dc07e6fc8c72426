/* What the query of a request narrows its answer to: one project, a page of a list. All of these
 * answer for themselves when they fail. */
#ifndef DAVIT_API_SCOPE_H
#define DAVIT_API_SCOPE_H

#include "broker/api/request.h"
#include "broker/store/tx.h"

#define SCOPE_LIMIT_DEFAULT 50u

/* `limit`: 1 to LIMIT_PAGE. */
int scope_limit(struct request *rq, uint64_t *ret);

/* The project of that name. Where there is none, the transaction ends. */
int scope_project(struct request *rq, struct tx *tx, const char *name,
                  const Pb__ProjectRecord **ret);

/* Opens a transaction and finds the project that `project` names, which has to be there. */
int scope_open(struct request *rq, struct tx **ret_tx, const Pb__ProjectRecord **ret);

#endif
