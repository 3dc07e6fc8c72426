#include "common/base.h"

#include "broker/api/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "broker/api/api.h"
#include "broker/core/core.h"
#include "broker/core/query.h"
#include "broker/core/rollout.h"
#include "common/os.h"

#define JOB_PREFIX "djt-"

/* The HMAC's text names its use, so that the key can serve others. */
static void job_mac(struct str key, uint64_t job_id, uint64_t attempt, uint64_t epoch,
                    uint8_t ret[SHA256_BYTES])
{
    char text[96];
    int n = snprintf(text, sizeof(text), "job token %" PRIu64 " %" PRIu64 " %" PRIu64, job_id,
                     attempt, epoch);
    crypto_hmac_sha256(key, str_of(text, (size_t)n), ret);
}

char *job_token(struct str key, uint64_t job_id, uint64_t attempt, uint64_t epoch)
{
    uint8_t mac[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    struct buf token = BUF_INIT;
    job_mac(key, job_id, attempt, epoch, mac);
    str_to_hex(mac, sizeof(mac), hex);
    buf_addf(&token, JOB_PREFIX "%" PRIu64 "-%" PRIu64 "-%" PRIu64 "-%s", job_id, attempt, epoch,
             hex);
    return buf_take(&token);
}

static int job_principal(struct tx *tx, struct str key, struct str token, struct principal *ret)
{
    struct str rest = str_sub(token, strlen(JOB_PREFIX), token.n);
    uint64_t number[3];
    struct str part;
    for (size_t i = 0; i < ARRAY_LEN(number); i++) {
        if (!str_split(&rest, '-', &part) || str_to_u64(part, &number[i]) < 0) {
            return -E_UNAUTHORIZED;
        }
    }
    uint8_t got[SHA256_BYTES], want[SHA256_BYTES];
    job_mac(key, number[0], number[1], number[2], want);
    if (str_from_hex(rest, got, sizeof(got)) < 0 || !crypto_equal(got, want, sizeof(got))) {
        return -E_UNAUTHORIZED;
    }
    const Pb__AssignmentRecord *a = assignment_get(tx, number[0]);
    if (!a || a->attempt != number[1] || a->epoch != number[2]) {
        return -E_UNAUTHORIZED;
    }
    const Pb__JobRecord *job = job_get(tx, number[0]);
    if (!job) {
        return -E_UNAUTHORIZED;
    }
    *ret = (struct principal){.role = ROLE_JOB, .job_id = job->id, .pipeline_id = job->pipeline_id};
    snprintf(ret->name, sizeof(ret->name), "job %" PRIu64, number[0]);
    return 0;
}

static enum role role_of(const char *text)
{
    static const struct {
        const char *text;
        enum role role;
    } roles[] = {
        {"admin", ROLE_ADMIN},           {"user", ROLE_USER},           {"worker", ROLE_WORKER},
        {"maintainer", ROLE_MAINTAINER}, {"developer", ROLE_DEVELOPER}, {"reporter", ROLE_REPORTER},
    };
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
        if (strcmp(roles[i].text, text) == 0) {
            return roles[i].role;
        }
    }
    return ROLE_NONE;
}

void principal_release(struct principal *p)
{
    free(p->projects);
    p->projects = NULL;
}

bool principal_sees(const struct principal *p, const char *project)
{
    struct str rest = str_from(p->projects);
    struct str pattern;
    bool found = !p->some;
    while (!found && str_split(&rest, '\n', &pattern)) {
        found = pattern.n > 0 && project_matches(pattern, project);
    }
    return found;
}

bool principal_sees_group(const struct principal *p, const char *group)
{
    char below[LIMIT_NAME + 3]; /* as a project's name would be */
    snprintf(below, sizeof(below), "%.*s/*", (int)LIMIT_NAME, group);
    struct str rest = str_from(p->projects);
    struct str pattern;
    bool found = !p->some;
    while (!found && str_split(&rest, '\n', &pattern)) {
        found = str_ends(pattern, STR("/*")) && project_matches(pattern, below);
    }
    return found;
}

static int stored_principal(struct tx *tx, struct str token, struct principal *ret)
{
    uint8_t hash[SHA256_BYTES];
    crypto_sha256(token.p, token.n, hash);
    const Pb__TokenRecord *record = token_get(tx, hash);
    const Pb__JoinTokenRecord *join = record ? NULL
                                             : join_token_get(tx, str_of(hash, sizeof(hash)));
    if (join) {
        *ret = (struct principal){.role = ROLE_JOIN};
        snprintf(ret->name, sizeof(ret->name), "join token");
        return 0;
    }
    if (!record) {
        return -E_UNAUTHORIZED;
    }
    if (token_has_expired(record, os_realtime_ms())) {
        return -E_UNAUTHORIZED;
    }
    *ret = (struct principal){.role = role_of(record->role), .some = record->n_projects > 0};
    struct buf projects = BUF_INIT;
    for (size_t i = 0; i < record->n_projects; i++) {
        buf_addf(&projects, "%s\n", record->projects[i]);
    }
    ret->projects = projects.n > 0 ? buf_take(&projects) : NULL;
    memcpy(ret->hash, hash, sizeof(ret->hash));
    snprintf(ret->name, sizeof(ret->name), "%s", record->name);
    return 0;
}

struct str auth_bearer(const char *header)
{
    static const char scheme[] = "Bearer ";
    if (!header || strncasecmp(header, scheme, strlen(scheme)) != 0) {
        return STR_NULL;
    }
    return str_trim(str_from(header + strlen(scheme)));
}

int auth_principal(struct tx *tx, struct str job_key, const char *header, struct principal *ret)
{
    struct str token = auth_bearer(header);
    if (!token.p) {
        return -E_UNAUTHORIZED;
    }
    if (str_starts(token, STR(JOB_PREFIX))) {
        return job_principal(tx, job_key, token, ret);
    }
    return stored_principal(tx, token, ret);
}

int auth_idempotency(const char *token_name, struct str key, uint8_t ret[SHA256_BYTES])
{
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] <= ' ' || key.p[i] > '~') {
            return -E_INVALID;
        }
    }
    if (key.n == 0 || key.n > LIMIT_IDEMPOTENCY_KEY) {
        return -E_INVALID;
    }
    struct sha256 *h = sha256_new();
    sha256_add(h, token_name, strlen(token_name) + 1);
    sha256_add(h, key.p, key.n);
    sha256_end(h, ret);
    sha256_free(h);
    return 0;
}

static bool is_source_of(const Pb__PipelineRecord *p, struct str digest)
{
    return p->source && p->source->from_case == PB__SOURCE__FROM_SNAPSHOT &&
           str_eq(pb_str(p->source->snapshot->digest), digest);
}

static bool needs_others(struct tx *tx, const Pb__JobRecord *job, struct str digest)
{
    const Pb__PlanJob *plan = plan_job_get(tx, job->pipeline_id, job->index);
    return plan && plan->n_outer_needs > 0 && core_job_takes(tx, job->id, digest);
}

bool auth_job_may_read(struct tx *tx, uint64_t job_id, const uint8_t digest[SHA256_BYTES])
{
    struct str wanted = str_of(digest, SHA256_BYTES);
    const Pb__JobRecord *job = job_get(tx, job_id);
    const Pb__PipelineRecord *pipeline = job ? pipeline_get(tx, job->pipeline_id) : NULL;
    if (!pipeline) {
        return job && rollout_needs_blob(tx, job, wanted);
    }
    if (is_source_of(pipeline, wanted) || needs_others(tx, job, wanted)) {
        return true;
    }
    bool found = false;
    struct key from = key_u64(pipeline->first_job_id);
    struct cursor c;
    for (tx_seek(&c, tx, T_ARTIFACT, STR_NULL, &from); c.valid && !found; tx_next(&c)) {
        if (key_read_u64(c.key, 0) >= pipeline->first_job_id + pipeline->job_count) {
            break;
        }
        Pb__ArtifactRecord *artifact;
        if (PB_UNPACK(tx_arena(tx), artifact_record, c.value.p, c.value.n, LIMIT_COMMAND,
                      &artifact) == 0) {
            found = str_eq(pb_str(artifact->digest), wanted);
        }
    }
    cursor_end(&c);
    return found;
}
