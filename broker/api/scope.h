/* What the query of a request narrows its answer to: one project, a page of a list. All of these
 * answer for themselves when they fail. */
#ifndef DAVIT_API_SCOPE_H
#define DAVIT_API_SCOPE_H

#include "broker/api/request.h"
#include "broker/store/tx.h"

#define SCOPE_LIMIT_DEFAULT 50u

/* Whether the token may ask about what the path and the query name; once the role is known to be
 * good. What is not for it is not there: -E_NOT_FOUND. */
int scope_check(struct request *rq);
/* For what a body names, and for lists. */
int scope_project_allowed(struct request *rq, const char *project);
/* What a developer's token may not start: jobs of pipelines of a protected ref. The id is that of a
 * job, of a pipeline, or of an environment, of which its on_stop job counts. -E_FORBIDDEN */
int scope_ref_allowed(struct request *rq, enum route_about about, uint64_t id);
/* Whether one of the project's newest SCOPE_PIPELINES pipelines was of that ref while it was
 * protected: a developer made none of these, so this does not hang on what his body says. */
#define SCOPE_PIPELINES 5000u
int scope_was_protected(struct request *rq, const char *project, const char *ref, bool *ret);
bool scope_sees(struct request *rq, struct tx *tx, uint64_t project_id);

/* `limit`: 1 to LIMIT_PAGE. */
int scope_limit(struct request *rq, uint64_t *ret);

/* The project of that name. Where there is none, the transaction ends. */
int scope_project(struct request *rq, struct tx *tx, const char *name,
                  const Pb__ProjectRecord **ret);

/* Opens a transaction and finds the project that `project` names, which has to be there. */
int scope_open(struct request *rq, struct tx **ret_tx, const Pb__ProjectRecord **ret);

#endif
