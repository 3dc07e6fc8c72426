/* Request bodies: JSON with bounds that jansson does not have, and fields read strictly. An unknown
 * field, a wrong type or a missing field is -E_INVALID with the field's name in rq->why.
 * Threads: the connection's or a work thread. */
#ifndef DAVIT_API_BODY_H
#define DAVIT_API_BODY_H

#include "broker/api/request.h"
#include "common/arena.h"

/* The body as an object; an empty body counts as `{}` when `may_be_empty`. */
int body_parse(struct request *rq, bool may_be_empty, json_t **ret);

/* What is read from now on stands at this place of the body: "jobs[3]."; "" is the body itself. */
void body_at(struct request *rq, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Refuses every field whose name is not among `names` (separated by blanks). `where` is for
 * messages: "" or "source.". */
int body_fields(struct request *rq, const json_t *object, const char *where, const char *names);

/* Absent or null: untouched. At most max bytes. */
int body_text(struct request *rq, const json_t *object, const char *name, size_t max,
              const char **ret);
int body_bool(struct request *rq, const json_t *object, const char *name, bool *ret);
int body_u64(struct request *rq, const json_t *object, const char *name, uint64_t *ret);
/* A whole number between the two. */
int body_i64(struct request *rq, const json_t *object, const char *name, int64_t min, int64_t max,
             int64_t *ret);
/* Not empty, and without control characters. */
bool body_is_name(const char *text);
/* Likewise, of LIMIT_NAME bytes at most. */
int body_name(struct request *rq, const json_t *object, const char *name, const char **ret);
/* "1h 30m", or a number of seconds. */
int body_duration(struct request *rq, const json_t *object, const char *name, uint64_t max_ms,
                  uint64_t *ret_ms);
/* "500m" or a number of processors; "512Mi" or a number of bytes. */
int body_cpu(struct request *rq, const json_t *object, const char *name, uint32_t *ret_millis);
int body_size(struct request *rq, const json_t *object, const char *name, uint64_t *ret_bytes);
int body_digest(struct request *rq, const json_t *object, const char *name,
                uint8_t ret[SHA256_BYTES]);
/* Absent or null: NULL. */
int body_object(struct request *rq, const json_t *object, const char *name, const json_t **ret);
int body_array(struct request *rq, const json_t *object, const char *name, size_t max,
               const json_t **ret);

#endif
