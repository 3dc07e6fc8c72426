#include "common/base.h"

#include "broker/core/run.h"
#include "common/crypto.h"
#include "common/limits.h"

/* Caches of a project: one row a key, replaced as a whole; above the bounds the oldest goes, and
 * all go when somebody wants that. */

static struct key age_key(const Pb__CacheRecord *row, const struct key *by_key)
{
    struct key k = key_u64_u64(row->project_id, row->seq);

    key_add_bytes(&k, by_key->p + sizeof(uint64_t), by_key->n - sizeof(uint64_t));
    return k;
}

static void drop(struct core *c, Pb__ProjectRecord *project, const struct key *k,
                 const Pb__CacheRecord *row)
{
    const struct key age = age_key(row, k);

    blob_ref_del(c, pb_str(row->digest), BLOB_CACHE, row->seq);
    tx_del(c->tx, T_CACHE_AGE, &age);
    tx_del(c->tx, T_CACHE, k);
    project->cache_count--;
    project->cache_bytes -= row->size;
}

/* The key of the oldest cache; false: there is none. */
static bool oldest(struct core *c, uint64_t project_id, struct key *ret)
{
    const struct key prefix = key_u64(project_id);
    struct cursor cur;
    bool found;

    tx_seek(&cur, c->tx, T_CACHE_AGE, key_str(&prefix), NULL);
    found = cur.valid;
    if (found) {
        const struct str hash = str_sub(cur.key, 2 * sizeof(uint64_t), SHA256_BYTES);
        *ret = prefix;
        key_add_bytes(ret, hash.p, hash.n);
    }
    cursor_end(&cur);
    return found;
}

static void evict(struct core *c, Pb__ProjectRecord *project)
{
    struct key k;

    while ((project->cache_count > LIMIT_PROJECT_CACHES ||
            project->cache_bytes > LIMIT_PROJECT_CACHE_BYTES) &&
           oldest(c, project->id, &k)) {
        const Pb__CacheRecord *row = (const Pb__CacheRecord *)core_row(
            c, T_CACHE, &k, &pb__cache_record__descriptor);
        if (!tx_ok(c->tx)) {
            return;
        }
        drop(c, project, &k, row);
    }
}

static int check_set(struct core *c, const Pb__CacheSet *cmd, const Pb__JobRecord *job)
{
    if (cmd->key.len == 0 || cmd->key.len > LIMIT_CACHE_KEY || cmd->digest.len != SHA256_BYTES ||
        cmd->size > LIMIT_BLOB_BYTES) {
        return reject(c, -E_INVALID, "bad key, digest or size of the cache");
    }
    if (job == NULL) {
        return tx_ok(c->tx) ? reject(c, -E_NOT_FOUND, "no job %" PRIu64, cmd->job_id)
                            : tx_error(c->tx);
    }
    if (!(job_flags(job, job->state) & STATE_HELD)) {
        return reject(c, -E_CONFLICT, "a job that is %s keeps no cache",
                      job_state_text(job->state));
    }
    if (!cache_is_open_to(c->tx, job, pb_str(cmd->key))) {
        return reject(c, -E_FORBIDDEN, "a cache of protected refs is written by their jobs alone");
    }
    return 0;
}

int apply_cache_set(struct core *c, const Pb__CacheSet *cmd)
{
    const Pb__JobRecord *job = job_get(c->tx, cmd->job_id);
    const int r = check_set(c, cmd, job);
    Pb__CacheRecord row = PB__CACHE_RECORD__INIT;
    const Pb__CacheRecord *old;
    Pb__ProjectRecord *project;
    struct key k, of_project, age;

    if (r < 0) {
        return r;
    }
    k = project_hash_key(job->project_id, pb_str(cmd->key));
    of_project = key_u64(job->project_id);
    project = (Pb__ProjectRecord *)core_row(c, T_PROJECT, &of_project,
                                            &pb__project_record__descriptor);
    old = cache_get(c->tx, job->project_id, pb_str(cmd->key));
    if (old != NULL) {
        drop(c, project, &k, old);
    }
    row.project_id = job->project_id;
    row.key = cmd->key;
    row.digest = cmd->digest;
    row.size = cmd->size;
    row.created_ms = c->now_ms;
    row.job_id = job->id;
    row.seq = core_new_id(c);
    age = age_key(&row, &k);
    tx_put_msg(c->tx, T_CACHE, &k, &row.base);
    tx_put(c->tx, T_CACHE_AGE, &age, STR_NULL);
    blob_ref_add(c, pb_str(row.digest), BLOB_CACHE, row.seq);
    project->cache_count++;
    project->cache_bytes += row.size;
    evict(c, project);
    tx_put_msg(c->tx, T_PROJECT, &of_project, &project->base);
    c->reply->job_id = job->id;
    return tx_error(c->tx);
}

/* The caches of a project are LIMIT_PROJECT_CACHES at most: all go in one command. */
int apply_cache_delete(struct core *c, const Pb__CacheDelete *cmd)
{
    const Pb__ProjectRecord *found = project_by_name(c->tx, cmd->project);
    const bool all = cmd->key.len == 0;
    Pb__ProjectRecord *project;
    struct key k, of_project;

    if (found == NULL) {
        return reject(c, -E_NOT_FOUND, "no project %.100s", cmd->project);
    }
    if (!all && cache_get(c->tx, found->id, pb_str(cmd->key)) == NULL) {
        return reject(c, -E_NOT_FOUND, "the project has no cache of that key");
    }
    of_project = key_u64(found->id);
    project = (Pb__ProjectRecord *)core_row(c, T_PROJECT, &of_project,
                                            &pb__project_record__descriptor);
    k = project_hash_key(found->id, pb_str(cmd->key));
    while (tx_ok(c->tx) && (!all || oldest(c, found->id, &k))) {
        const Pb__CacheRecord *row = (const Pb__CacheRecord *)core_row(
            c, T_CACHE, &k, &pb__cache_record__descriptor);
        drop(c, project, &k, row);
        c->reply->deleted++;
        if (!all) {
            break;
        }
    }
    tx_put_msg(c->tx, T_PROJECT, &of_project, &project->base);
    c->reply->project_id = found->id;
    return tx_error(c->tx);
}
