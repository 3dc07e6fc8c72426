/* Who asks: bearer tokens of the store (looked up by their SHA-256) and tokens of jobs (an HMAC
 * over the assignment, valid as long as the assignment is). Threads: pure but for the read tx. */
#ifndef DAVIT_API_AUTH_H
#define DAVIT_API_AUTH_H

#include "broker/api/route.h"
#include "broker/store/tx.h"
#include "common/limits.h"

struct principal {
    enum role role;
    bool some;                  /* of some projects alone: */
    char *projects;             /* names and patterns, each ended by a line's end; heap */
    uint8_t hash[SHA256_BYTES]; /* of the token, but for ROLE_JOB */
    char name[LIMIT_NAME + 1];
    uint64_t job_id; /* ROLE_JOB */
    uint64_t pipeline_id;
};

/* The token in the value of an Authorization header; NULL, or another scheme: STR_NULL. */
struct str auth_bearer(const char *header);
/* Reads the value of an Authorization header (NULL: there is none). -E_UNAUTHORIZED, also for a
 * token whose time is over. */
int auth_principal(struct tx *tx, struct str job_key, const char *header, struct principal *ret);
void principal_release(struct principal *p);
/* Whether the token is for that project; of groups: for all that is below. */
bool principal_sees(const struct principal *p, const char *project);
bool principal_sees_group(const struct principal *p, const char *group);

/* What the store knows an idempotency key by: each token has its own. -E_INVALID: the key is not 1
 * to 255 printable characters. */
int auth_idempotency(const char *token_name, struct str key, uint8_t ret[SHA256_BYTES]);

/* May the job read the blob? The source and the artifacts of its own pipeline; with needs outside
 * of it, the artifacts of the jobs that they name. */
bool auth_job_may_read(struct tx *tx, uint64_t job_id, const uint8_t digest[SHA256_BYTES]);

#endif
