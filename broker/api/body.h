/* Request bodies: JSON with bounds that jansson does not have, and fields read strictly. An unknown
 * field, a wrong type or a missing field is -E_INVALID with the field's name in rq->why.
 * Threads: the connection's or a work thread. */
#ifndef DAVIT_API_BODY_H
#define DAVIT_API_BODY_H

#include "broker/api/request.h"
#include "common/arena.h"

/* The body as an object; an empty body counts as `{}` when `may_be_empty`. */
int body_parse(struct request *rq, bool may_be_empty, json_t **ret);

/* Refuses every field whose name is not among `names` (separated by blanks). `where` is for
 * messages: "" or "source.". */
int body_fields(struct request *rq, const json_t *object, const char *where, const char *names);

/* Absent or null: untouched. At most max bytes. */
int body_text(struct request *rq, const json_t *object, const char *name, size_t max,
              const char **ret);
int body_bool(struct request *rq, const json_t *object, const char *name, bool *ret);
int body_u64(struct request *rq, const json_t *object, const char *name, uint64_t *ret);
int body_digest(struct request *rq, const json_t *object, const char *name,
                uint8_t ret[SHA256_BYTES]);
/* Absent or null: NULL. */
int body_object(struct request *rq, const json_t *object, const char *name, const json_t **ret);
int body_array(struct request *rq, const json_t *object, const char *name, size_t max,
               const json_t **ret);

#endif
