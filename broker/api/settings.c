/* What administrators set: pools, and what projects may take. A PUT changes what its body names and
 * leaves the rest as it is. */
#include "common/base.h"

#include <stdlib.h>

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"

/* A refused command's error is the answer, with the core's line for people. */
static int refused(struct request *rq)
{
    return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                     : rq->result;
}

/* The name that ends the path, in the post's arena. */
static int path_name(struct request *rq, struct post *post, char **ret)
{
    char *name = arena_strdup(post_arena(post), rq->args.rest);
    if (!body_is_name(name)) {
        return request_fail(rq, -E_INVALID, "the path ends in no name");
    }
    *ret = name;
    return 0;
}

/* The transaction ends; `object` NULL: there is none, or the store failed. */
static int finish(struct request *rq, struct tx *tx, const char *what, json_t *object)
{
    int r = tx_error(tx);
    tx_abort(tx);
    if (r == 0 && !object) {
        r = request_fail(rq, -E_NOT_FOUND, "there is no %s `" STR_FMT "`", what,
                         STR_ARG(str_sub(rq->args.rest, 0, LIMIT_NAME)));
    }
    if (r < 0) {
        json_decref(object);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK, object);
}

/* --- pools --- */

struct pools {
    struct pool_line *lines;
    size_t count;
    size_t cap;
};

static void pools_add(struct pools *p, struct pool_line line)
{
    if (p->count == p->cap) {
        p->cap = MAX(2 * p->cap, 64u);
        p->lines = xrealloc(p->lines, p->cap * sizeof(*p->lines));
    }
    p->lines[p->count++] = line;
}

/* Its row, and one line more for each of its workers: those of a name are joined later. */
static void pools_read(struct request *rq, struct tx *tx, const char *only, struct pools *p)
{
    struct cursor c;
    for (tx_seek(&c, tx, T_POOL, STR_NULL, NULL); c.valid; tx_next(&c)) {
        const Pb__PoolRecord *row = pool_get(tx, arena_strdup(tx_arena(tx), c.key));
        if (row && (!only || strcmp(row->name, only) == 0)) {
            pools_add(p, (struct pool_line){.name = row->name, .row = row});
        }
    }
    for (tx_seek(&c, tx, T_WORKER, STR_NULL, NULL); c.valid; tx_next(&c)) {
        const Pb__WorkerRecord *w = worker_get(tx, key_read_u64(c.key, 0));
        struct fleet_worker live = {0};
        if (!w || w->pool[0] == '\0' || (only && strcmp(w->pool, only) != 0)) {
            continue;
        }
        fleet_worker_state(rq->api->config.fleet, w->id, &live);
        pools_add(p, (struct pool_line){.name = w->pool,
                                        .workers = 1,
                                        .online = live.online,
                                        .slots = live.online ? w->slots : 0,
                                        .busy = worker_load(tx, w->id).slots});
    }
    cursor_end(&c);
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(((const struct pool_line *)a)->name, ((const struct pool_line *)b)->name);
}

/* By name, one line a pool. */
static void pools_join(struct pools *p)
{
    size_t n = 0;
    if (p->count > 1) {
        qsort(p->lines, p->count, sizeof(*p->lines), compare_lines);
    }
    for (size_t i = 0; i < p->count; i++) {
        const struct pool_line *line = &p->lines[i];
        if (n == 0 || strcmp(p->lines[n - 1].name, line->name) != 0) {
            p->lines[n++] = *line;
            continue;
        }
        struct pool_line *sum = &p->lines[n - 1];
        sum->row = sum->row ? sum->row : line->row;
        sum->workers += line->workers;
        sum->online += line->online;
        sum->slots += line->slots;
        sum->busy += line->busy;
    }
    p->count = n;
}

/* On a work thread: it reads all workers. */
static int pools_work(struct request *rq)
{
    struct pools p = {0};
    const char *after = request_query(rq, "after");
    uint64_t limit;
    struct tx *tx;
    int r = scope_limit(rq, &limit);
    if (r < 0 || (r = api_read(rq->api, &tx)) < 0) {
        return r;
    }
    pools_read(rq, tx, NULL, &p);
    pools_join(&p);
    json_t *items = json_array();
    const char *next = NULL;
    for (size_t i = 0; i < p.count && !next; i++) {
        if (after && strcmp(p.lines[i].name, after) <= 0) {
            continue;
        }
        json_array_append_new(items, view_pool(&p.lines[i]));
        if (json_array_size(items) == limit && i + 1 < p.count) {
            next = p.lines[i].name;
        }
    }
    rq->extra = json_pack("{s:o, s:o}", "items", items, "next", json_text(next));
    free(p.lines);
    r = tx_error(tx);
    tx_abort(tx);
    return r;
}

static int pool_work(struct request *rq)
{
    struct pools p = {0};
    struct tx *tx;
    char *name = str_dup(rq->args.rest);
    int r = api_read(rq->api, &tx);
    if (r == 0) {
        pools_read(rq, tx, name, &p);
        pools_join(&p);
        r = tx_error(tx);
        if (r == 0 && p.count == 0) {
            r = request_fail(rq, -E_NOT_FOUND, "there is no pool `%.255s`", name);
        } else if (r == 0) {
            rq->extra = view_pool(&p.lines[0]);
        }
        tx_abort(tx);
    }
    free(p.lines);
    free(name);
    return r;
}

static int worked(struct request *rq)
{
    json_t *answer = rq->extra;
    if (rq->result < 0) {
        return rq->result;
    }
    rq->extra = NULL;
    return answer_json(rq, MHD_HTTP_OK, answer);
}

int get_pools(struct request *rq)
{
    return request_work(rq, pools_work, worked);
}

int get_pool(struct request *rq)
{
    return request_work(rq, pool_work, worked);
}

static int pool_set_done(struct request *rq)
{
    return rq->result < 0 ? refused(rq) : request_work(rq, pool_work, worked);
}

/* Reads a list of names that may be absent; *ret_has says whether it is there. */
static int read_names(struct request *rq, const json_t *body, const char *name, size_t max,
                      const char *expected, struct arena *arena, protobuf_c_boolean *ret_has,
                      char ***ret, size_t *ret_count)
{
    const json_t *list;
    int r = body_array(rq, body, name, max, &list);
    if (r < 0 || !list) {
        return r;
    }
    size_t count = json_array_size(list);
    *ret_has = true;
    *ret = arena_array(arena, MAX(count, 1u), sizeof(**ret));
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || !body_is_name(text) || strlen(text) > LIMIT_NAME) {
            return request_fail(rq, -E_INVALID, "`%s[%zu]` must be %s", name, i, expected);
        }
        (*ret)[(*ret_count)++] = arena_strdup(arena, str_from(text));
    }
    return 0;
}

static int read_projects(struct request *rq, const json_t *body, struct arena *arena,
                         Pb__PoolSet *set)
{
    return read_names(rq, body, "projects", LIMIT_POOL_PROJECTS, "a project's name, or `group/*`",
                      arena, &set->has_projects, &set->projects, &set->n_projects);
}

/* A number that may be absent; *ret_has says whether it is there. */
static int read_count(struct request *rq, const json_t *body, const char *name, int64_t max,
                      protobuf_c_boolean *ret_has, uint32_t *ret)
{
    int64_t value = -1;
    int r = body_i64(rq, body, name, 0, max, &value);
    if (r == 0 && value >= 0) {
        *ret_has = true;
        *ret = (uint32_t)value;
    }
    return r;
}

static int read_flag(struct request *rq, const json_t *body, const char *name,
                     protobuf_c_boolean *ret_has, protobuf_c_boolean *ret)
{
    bool value = false;
    int r = body_bool(rq, body, name, &value);
    *ret_has = json_is_boolean(json_object_get(body, name));
    *ret = value;
    return r;
}

static int read_times(struct request *rq, const json_t *body, Pb__PoolSet *set)
{
    int r = read_count(rq, body, "heartbeat_ms", LIMIT_HEARTBEAT_MS, &set->has_heartbeat,
                       &set->heartbeat_ms);
    r = r < 0 ? r
              : read_count(rq, body, "suspect_ms", LIMIT_LEASE_MS, &set->has_suspect,
                           &set->suspect_ms);
    return r < 0
               ? r
               : read_count(rq, body, "lease_ms", LIMIT_LEASE_MS, &set->has_lease, &set->lease_ms);
}

static int read_policy(struct request *rq, const json_t *body, Pb__PoolSet *set)
{
    const char *text = NULL;
    int r = body_text(rq, body, "on_worker_lost", LIMIT_NAME, &text);
    if (r < 0 || !text) {
        return r;
    }
    set->has_on_worker_lost = true;
    return worker_loss_from_text(text, &set->on_worker_lost)
               ? 0
               : request_fail(rq, -E_INVALID, "`on_worker_lost` is `requeue`, `fail` or `wait`");
}

static int read_pool(struct request *rq, const json_t *body, struct arena *arena, Pb__PoolSet *set)
{
    uint64_t timeout_ms = UINT64_MAX;
    int r;
    if ((r = body_fields(rq, body, "",
                         "projects protected locked max_running project_max_running queue_timeout "
                         "preempt heartbeat_ms suspect_ms lease_ms on_worker_lost")) < 0 ||
        (r = read_projects(rq, body, arena, set)) < 0 ||
        (r = read_flag(rq, body, "protected", &set->has_protected, &set->protected_)) < 0 ||
        (r = read_flag(rq, body, "locked", &set->has_locked, &set->locked)) < 0 ||
        (r = read_flag(rq, body, "preempt", &set->has_preempt, &set->preempt)) < 0 ||
        (r = read_count(rq, body, "max_running", UINT32_MAX, &set->has_max_running,
                        &set->max_running)) < 0 ||
        (r = read_count(rq, body, "project_max_running", UINT32_MAX, &set->has_project_max_running,
                        &set->project_max_running)) < 0 ||
        (r = read_times(rq, body, set)) < 0 || (r = read_policy(rq, body, set)) < 0 ||
        (r = body_duration(rq, body, "queue_timeout", LIMIT_TIMEOUT_MS, &timeout_ms)) < 0) {
        return r;
    }
    set->has_queue_timeout = timeout_ms != UINT64_MAX;
    set->queue_timeout_ms = set->has_queue_timeout ? timeout_ms : 0;
    return 0;
}

int put_pool(struct request *rq)
{
    json_t *body;
    int r = body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__PoolSet *set = arena_alloc(post_arena(post), sizeof(*set));
    pb__pool_set__init(set);
    r = path_name(rq, post, &set->name);
    r = r < 0 ? r : read_pool(rq, body, post_arena(post), set);
    json_decref(body);
    if (r < 0) {
        post_free(post);
        return r;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_POOL_SET;
    post_command(post)->pool_set = set;
    return request_post(rq, post, pool_set_done);
}

static int pool_deleted(struct request *rq)
{
    return rq->result < 0 ? refused(rq) : answer_json(rq, MHD_HTTP_OK, json_object());
}

int delete_pool(struct request *rq)
{
    struct post *post = request_post_new(rq);
    Pb__PoolDelete *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__pool_delete__init(c);
    int r = path_name(rq, post, &c->name);
    if (r < 0) {
        post_free(post);
        return r;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_POOL_DELETE;
    post_command(post)->pool_delete = c;
    return request_post(rq, post, pool_deleted);
}

/* --- projects --- */

int get_project(struct request *rq)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__ProjectRecord *p = project_by_name(tx, arena_strdup(tx_arena(tx), rq->args.rest));
    return finish(rq, tx, "project", p ? view_project(p) : NULL);
}

static int project_set_done(struct request *rq)
{
    return rq->result < 0 ? refused(rq) : get_project(rq);
}

static int read_protection(struct request *rq, const json_t *body, struct arena *arena,
                           Pb__ProjectSet *set)
{
    const char *branch = NULL;
    int r = body_text(rq, body, "default_branch", LIMIT_NAME, &branch);
    if (branch) {
        set->has_default_branch = true;
        set->default_branch = arena_strdup(arena, str_from(branch));
    }
    r = r < 0 ? r
              : read_names(rq, body, "protected_branches", LIMIT_PROTECTED_REFS,
                           "the name of a branch, with `*`", arena, &set->has_protected_branches,
                           &set->protected_branches, &set->n_protected_branches);
    return r < 0 ? r
                 : read_names(rq, body, "protected_tags", LIMIT_PROTECTED_REFS,
                              "the name of a tag, with `*`", arena, &set->has_protected_tags,
                              &set->protected_tags, &set->n_protected_tags);
}

int put_project(struct request *rq)
{
    json_t *body;
    int r = body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__ProjectSet *set = arena_alloc(post_arena(post), sizeof(*set));
    pb__project_set__init(set);
    r = body_fields(rq, body, "",
                    "weight max_running default_branch protected_branches protected_tags");
    r = r < 0 ? r : read_count(rq, body, "weight", 1000, &set->has_weight, &set->weight);
    r = r < 0 ? r
              : read_count(rq, body, "max_running", UINT32_MAX, &set->has_max_running,
                           &set->max_running);
    r = r < 0 ? r : read_protection(rq, body, post_arena(post), set);
    json_decref(body);
    if (r == 0 && !str_is_project_name(rq->args.rest)) {
        r = request_fail(rq, -E_INVALID, "the path ends in no name of a project: group/name");
    }
    r = r < 0 ? r : path_name(rq, post, &set->name);
    if (r < 0) {
        post_free(post);
        return r;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_PROJECT_SET;
    post_command(post)->project_set = set;
    return request_post(rq, post, project_set_done);
}
