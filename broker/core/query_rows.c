#include "common/base.h"

#include "broker/core/apply.h"
#include "broker/core/query.h"
#include "common/crypto.h"
#include "common/limits.h"

/* What pipelines leave behind: environments, deployments, releases, pages, caches, artifacts. */

const Pb__JobRecord *pipeline_parent_job(struct tx *tx, const Pb__PipelineRecord *p)
{
    return p->parent_job_id != 0 ? job_get(tx, p->parent_job_id) : NULL;
}

const Pb__DotenvRecord *dotenv_get(struct tx *tx, uint64_t job_id)
{
    const struct key k = key_u64(job_id);

    return (const Pb__DotenvRecord *)tx_get_msg(tx, T_JOB_DOTENV, &k,
                                                &pb__dotenv_record__descriptor);
}

const Pb__EnvironmentRecord *environment_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__EnvironmentRecord *)tx_get_msg(tx, T_ENVIRONMENT, &k,
                                                     &pb__environment_record__descriptor);
}

struct key environment_name_key(uint64_t project_id, const char *name)
{
    struct key k = key_u64(project_id);

    key_add_bytes(&k, name, strnlen(name, LIMIT_NAME));
    return k;
}

const Pb__EnvironmentRecord *environment_by_name(struct tx *tx, uint64_t project_id,
                                                 const char *name)
{
    const struct key k = environment_name_key(project_id, name);
    struct str id;

    if (strnlen(name, LIMIT_NAME + 1) > LIMIT_NAME || !tx_get(tx, T_ENVIRONMENT_NAME, &k, &id)) {
        return NULL;
    }
    return environment_get(tx, key_read_u64(id, 0));
}

const Pb__DeploymentRecord *deployment_get(struct tx *tx, uint64_t environment_id, uint64_t id)
{
    const struct key k = key_u64_u64(environment_id, id);

    return (const Pb__DeploymentRecord *)tx_get_msg(tx, T_DEPLOYMENT, &k,
                                                    &pb__deployment_record__descriptor);
}

struct key project_hash_key(uint64_t project_id, struct str text)
{
    struct key k = key_u64(project_id);
    uint8_t hash[SHA256_BYTES];

    crypto_sha256(text.p, text.n, hash);
    key_add_bytes(&k, hash, sizeof(hash));
    return k;
}

const Pb__ReleaseRecord *release_by_tag(struct tx *tx, uint64_t project_id, struct str tag)
{
    const struct key by_tag = project_hash_key(project_id, tag);
    struct key k;
    struct str id;

    if (!tx_get(tx, T_RELEASE_TAG, &by_tag, &id)) {
        return NULL;
    }
    k = key_u64_u64(project_id, key_read_u64(id, 0));
    return (const Pb__ReleaseRecord *)tx_get_msg(tx, T_RELEASE, &k,
                                                 &pb__release_record__descriptor);
}

const Pb__PagesRecord *pages_get(struct tx *tx, uint64_t project_id, struct str path_prefix)
{
    const struct key k = project_hash_key(project_id, path_prefix);

    return (const Pb__PagesRecord *)tx_get_msg(tx, T_PAGES, &k, &pb__pages_record__descriptor);
}

const Pb__CacheRecord *cache_get(struct tx *tx, uint64_t project_id, struct str cache_key)
{
    const struct key k = project_hash_key(project_id, cache_key);

    return (const Pb__CacheRecord *)tx_get_msg(tx, T_CACHE, &k, &pb__cache_record__descriptor);
}

const Pb__PipelineVariablesRecord *pipeline_variables_get(struct tx *tx, uint64_t pipeline_id)
{
    const struct key k = key_u64(pipeline_id);

    return (const Pb__PipelineVariablesRecord *)tx_get_msg(
        tx, T_PIPELINE_VARS, &k, &pb__pipeline_variables_record__descriptor);
}

struct str predefined_value(const Pb__PipelineVariablesRecord *vars, const char *name)
{
    for (size_t i = 0; i < vars->n_predefined; i++) {
        if (strcmp(vars->predefined[i]->name, name) == 0) {
            return pb_str(vars->predefined[i]->value);
        }
    }
    return STR_NULL;
}

bool ref_is_protected(const Pb__PipelineRecord *p, const Pb__PipelineVariablesRecord *vars)
{
    const struct str known = predefined_value(vars, "CI_COMMIT_REF_PROTECTED");

    if (known.n > 0) {
        return str_eqz(known, "true");
    }
    return !p->tag && predefined_value(vars, "CI_COMMIT_BRANCH").n > 0 &&
           str_eqz(predefined_value(vars, "CI_DEFAULT_BRANCH"), p->ref);
}

bool project_protects(const Pb__ProjectRecord *p, const char *default_branch, const char *ref,
                      bool tag)
{
    static const Pb__ProjectRecord nothing = PB__PROJECT_RECORD__INIT;
    const Pb__ProjectRecord *s = p != NULL ? p : &nothing;
    char *const *patterns = tag ? s->protected_tags : s->protected_branches;
    const size_t n = tag ? s->n_protected_tags : s->n_protected_branches;

    if (!tag &&
        strcmp(ref, s->default_branch[0] != '\0' ? s->default_branch : default_branch) == 0) {
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        if (str_matches(str_from(patterns[i]), str_from(ref))) {
            return true;
        }
    }
    return false;
}

bool cache_is_open_to(struct tx *tx, const Pb__JobRecord *job, struct str cache_key)
{
    const Pb__PipelineVariablesRecord *vars;
    const Pb__PipelineRecord *p;

    if (!str_ends(cache_key, STR("-protected"))) {
        return true;
    }
    p = pipeline_get(tx, job->pipeline_id);
    vars = pipeline_variables_get(tx, job->pipeline_id);
    return p != NULL && vars != NULL && ref_is_protected(p, vars);
}

/* The row that a cursor stands on; NULL after a sticky error. */
static const ProtobufCMessage *row_at(const struct cursor *cur,
                                      const ProtobufCMessageDescriptor *desc)
{
    ProtobufCMessage *m;

    if (pb_unpack(tx_arena(cur->tx), desc, cur->value.p, cur->value.n, LIMIT_COMMAND, &m) < 0) {
        tx_fail(cur->tx, -E_CORRUPT);
        return NULL;
    }
    return m;
}

size_t environments_after(struct tx *tx, uint64_t project_id, const char *after, size_t max,
                          const Pb__EnvironmentRecord **ret)
{
    const struct key prefix = key_u64(project_id);
    const struct key from = environment_name_key(project_id, after != NULL ? after : "");
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, tx, T_ENVIRONMENT_NAME, key_str(&prefix), &from); cur.valid && n < max;
         tx_next(&cur)) {
        if (!str_eq(cur.key, key_str(&from))) {
            const uint64_t id = key_read_u64(cur.value, 0);
            const Pb__EnvironmentRecord *e = environment_get(tx, id);
            if (e == NULL) {
                tx_fail(tx, -E_CORRUPT);
                break;
            }
            ret[n++] = e;
        }
    }
    cursor_end(&cur);
    return n;
}

/* Rows of a table with the keys (owner, id), from the one before `before` down. */
static size_t rows_before(struct tx *tx, enum table t, const ProtobufCMessageDescriptor *desc,
                          uint64_t owner, uint64_t before, size_t max, const void **ret)
{
    const struct key prefix = key_u64(owner);
    const struct key from = key_u64_u64(owner, before);
    struct cursor cur;
    size_t n = 0;

    if (before != 0) {
        tx_seek(&cur, tx, t, key_str(&prefix), &from);
    }
    if (before != 0 && cur.valid) {
        tx_prev(&cur);
    } else {
        tx_seek_last(&cur, tx, t, key_str(&prefix));
    }
    for (; cur.valid && n < max; tx_prev(&cur)) {
        const ProtobufCMessage *m = row_at(&cur, desc);
        if (m == NULL) {
            break;
        }
        ret[n++] = m;
    }
    cursor_end(&cur);
    return n;
}

size_t deployments_before(struct tx *tx, uint64_t environment_id, uint64_t before, size_t max,
                          const Pb__DeploymentRecord **ret)
{
    return rows_before(tx, T_DEPLOYMENT, &pb__deployment_record__descriptor, environment_id, before,
                       max, (const void **)ret);
}

size_t releases_before(struct tx *tx, uint64_t project_id, uint64_t before, size_t max,
                       const Pb__ReleaseRecord **ret)
{
    return rows_before(tx, T_RELEASE, &pb__release_record__descriptor, project_id, before, max,
                       (const void **)ret);
}

size_t caches_before(struct tx *tx, uint64_t project_id, uint64_t before, size_t max,
                     const Pb__CacheRecord **ret)
{
    const struct key prefix = key_u64(project_id);
    const struct key from = key_u64_u64(project_id, before);
    struct cursor cur;
    size_t n = 0;

    if (before != 0) {
        tx_seek(&cur, tx, T_CACHE_AGE, key_str(&prefix), &from);
    }
    if (before != 0 && cur.valid) {
        tx_prev(&cur);
    } else {
        tx_seek_last(&cur, tx, T_CACHE_AGE, key_str(&prefix));
    }
    for (; cur.valid && n < max; tx_prev(&cur)) {
        struct key k = prefix;
        key_add_bytes(&k, cur.key.p + 2 * sizeof(uint64_t), cur.key.n - 2 * sizeof(uint64_t));
        const Pb__CacheRecord *c = (const Pb__CacheRecord *)tx_get_msg(
            tx, T_CACHE, &k, &pb__cache_record__descriptor);
        if (c == NULL) {
            tx_fail(tx, -E_CORRUPT);
            break;
        }
        ret[n++] = c;
    }
    cursor_end(&cur);
    return n;
}

bool artifact_is_archive(const char *type)
{
    return type[0] == '\0' || strcmp(type, "archive") == 0;
}

static bool type_fits(const char *type, const char *wanted)
{
    return wanted == NULL || strcmp(type, wanted) == 0 ||
           (artifact_is_archive(type) && artifact_is_archive(wanted));
}

size_t artifacts_of(struct tx *tx, uint64_t job_id, uint64_t attempt, const char *type, size_t max,
                    const Pb__ArtifactRecord **ret)
{
    const struct key prefix = key_u64(job_id);
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, tx, T_ARTIFACT, key_str(&prefix), NULL); cur.valid && n < max;
         tx_next(&cur)) {
        const Pb__ArtifactRecord *a = (const Pb__ArtifactRecord *)row_at(
            &cur, &pb__artifact_record__descriptor);
        if (a == NULL) {
            break;
        }
        if (a->attempt == attempt && type_fits(a->type, type)) {
            ret[n++] = a;
        }
    }
    cursor_end(&cur);
    return n;
}
