/* Reading objects and lists. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/handlers.h"
#include "broker/api/object.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"

/* A page with a filter looks at so many rows at most; then it ends early, with `next`. */
#define PAGE_ROWS 5000u

int get_health(struct request *rq)
{
    if (!api_alive(rq->api)) {
        return request_fail(rq, -E_BUSY, "the turn does not go around");
    }
    return answer_json(rq, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

int get_ready(struct request *rq)
{
    if (api_stopping(rq->api)) {
        return -E_SHUTDOWN;
    }
    return rq->api->ready ? get_health(rq) : request_fail(rq, -E_BUSY, "starting");
}

int get_version(struct request *rq)
{
    return answer_json(rq, MHD_HTTP_OK,
                       json_pack("{s:s, s:i, s:i}", "version", DAVIT_VERSION, "schema",
                                 (int)STORE_SCHEMA_VERSION, "wire", (int)WIRE_VERSION));
}

/* Ends the transaction. `object` NULL: there is no such thing, or the store failed. */
static int finish_get(struct request *rq, struct tx *tx, unsigned status, const char *what,
                      json_t *object)
{
    int r = tx_error(tx);
    tx_abort(tx);
    if (r == 0 && !object) {
        r = request_fail(rq, -E_NOT_FOUND, "there is no %s %" PRIu64, what, rq->args.id);
    }
    if (r < 0) {
        json_decref(object);
        return r;
    }
    return answer_json(rq, status, object);
}

int answer_pipeline(struct request *rq, unsigned status, uint64_t id)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__PipelineRecord *p = pipeline_get(tx, id);
    return finish_get(rq, tx, status, "pipeline", p ? view_pipeline_whole(tx, p) : NULL);
}

int answer_job(struct request *rq, unsigned status, uint64_t id)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__JobRecord *j = job_get(tx, id);
    return finish_get(rq, tx, status, "job", j ? view_job_whole(tx, j) : NULL);
}

int answer_worker(struct request *rq, unsigned status, uint64_t id)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__WorkerRecord *w = worker_get(tx, id);
    return finish_get(rq, tx, status, "worker",
                      w ? view_worker(tx, rq->api->config.fleet, w) : NULL);
}

int get_pipeline(struct request *rq)
{
    return answer_pipeline(rq, MHD_HTTP_OK, rq->args.id);
}

int get_job(struct request *rq)
{
    return answer_job(rq, MHD_HTTP_OK, rq->args.id);
}

/* --- lists --- */

/* A walk over a table whose keys end in the id, from the newest to the oldest. */
struct list {
    struct request *rq;
    struct tx *tx;
    enum table table;
    struct key prefix;
    uint64_t limit;
    uint64_t after;
    const char *status;  /* pipelines, jobs: only these; NULL: all */
    uint64_t project_id; /* jobs: only of this one; 0: all */
    bool actions;        /* jobs: also what rollouts ask of drivers */
    json_t *items;
    uint64_t next; /* 0: that was all */
};

typedef json_t *(*list_view_fn)(struct list *l, uint64_t id); /* NULL: leave it out */

static int list_begin(struct request *rq, enum table table, struct list *ret)
{
    *ret = (struct list){.rq = rq, .table = table};
    int r = scope_limit(rq, &ret->limit);
    if (r == 0) {
        r = request_query_u64(rq, "after", UINT64_MAX, &ret->after);
    }
    if (r == 0) {
        r = api_read(rq->api, &ret->tx);
    }
    return r;
}

static void list_seek(struct list *l, struct cursor *c)
{
    struct key from = l->prefix;
    key_add_u64(&from, l->after);
    tx_seek(c, l->tx, l->table, key_str(&l->prefix), &from);
    if (c->valid) {
        tx_prev(c);
    } else {
        tx_seek_last(c, l->tx, l->table, key_str(&l->prefix));
    }
}

static int list_answer(struct list *l, list_view_fn view)
{
    struct cursor c;
    unsigned rows = 0;
    l->items = json_array();
    for (list_seek(l, &c); c.valid; tx_prev(&c)) {
        uint64_t id = key_read_u64(c.key, l->prefix.n);
        json_t *item = view(l, id);
        if (item) {
            json_array_append_new(l->items, item);
        }
        if (json_array_size(l->items) == l->limit || ++rows == PAGE_ROWS) {
            tx_prev(&c);
            l->next = c.valid ? id : 0;
            break;
        }
    }
    cursor_end(&c);
    int r = tx_error(l->tx);
    tx_abort(l->tx);
    if (r < 0) {
        json_decref(l->items);
        return r;
    }
    return answer_json(l->rq, MHD_HTTP_OK,
                       json_pack("{s:o, s:o}", "items", l->items, "next", json_id(l->next)));
}

static json_t *list_project(struct list *l, uint64_t id)
{
    const Pb__ProjectRecord *p = project_get(l->tx, id);
    return p && principal_sees(&l->rq->who, p->name) ? view_project(p) : NULL;
}

int get_projects(struct request *rq)
{
    struct list l;
    int r = list_begin(rq, T_PROJECT, &l);
    return r < 0 ? r : list_answer(&l, list_project);
}

static json_t *list_worker(struct list *l, uint64_t id)
{
    const Pb__WorkerRecord *w = worker_get(l->tx, id);
    const char *name = request_query(l->rq, "name");
    return w && (!name || strcmp(w->name, name) == 0)
               ? view_worker(l->tx, l->rq->api->config.fleet, w)
               : NULL;
}

int get_workers(struct request *rq)
{
    struct list l;
    int r = list_begin(rq, T_WORKER, &l);
    return r < 0 ? r : list_answer(&l, list_worker);
}

static json_t *list_pipeline(struct list *l, uint64_t id)
{
    const Pb__PipelineRecord *p = pipeline_get(l->tx, id);
    if (!p || (l->status && strcmp(status_text(p->status), l->status) != 0) ||
        !scope_sees(l->rq, l->tx, p->project_id)) {
        return NULL;
    }
    return view_pipeline(l->tx, p);
}

/* A rollout's script is a job of people. */
static bool is_driver_action(struct tx *tx, const Pb__JobRecord *j)
{
    const Pb__ClassRecord *class = j->rollout_action != 0 ? class_get(tx, j->class_id) : NULL;
    return class && class_is_action(class);
}

static json_t *list_job(struct list *l, uint64_t id)
{
    const Pb__JobRecord *j = job_get(l->tx, id);
    if (!j || (!l->actions && is_driver_action(l->tx, j)) ||
        (l->status && strcmp(job_state_text(j->state), l->status) != 0) ||
        (l->project_id > 0 && j->project_id != l->project_id) ||
        !scope_sees(l->rq, l->tx, j->project_id)) {
        return NULL;
    }
    return view_job(l->tx, j);
}

/* 0, or -E_INVALID for a word that is no state of a job. */
static int job_state_from_text(const char *text, Pb__JobState *ret)
{
    for (int s = JOB_CREATED; s <= JOB_SKIPPED; s++) {
        if (strcmp(job_state_text((Pb__JobState)s), text) == 0) {
            *ret = (Pb__JobState)s;
            return 0;
        }
    }
    return -E_INVALID;
}

/* In the hands of a worker: a short list of its own, however long the history is. */
static bool is_held(Pb__JobState s)
{
    return s == JOB_ASSIGNED || s == JOB_RUNNING || s == JOB_CANCELING;
}

int get_jobs(struct request *rq)
{
    const char *status = request_query(rq, "status");
    const char *project = request_query(rq, "project");
    const char *actions = request_query(rq, "actions");
    Pb__JobState wanted = JOB_SUCCESS;
    struct list l;
    if (status && job_state_from_text(status, &wanted) < 0) {
        return request_fail(rq, -E_INVALID, "there is no status `%.64s`", status);
    }
    if (actions && strcmp(actions, "true") != 0 && strcmp(actions, "false") != 0) {
        return request_fail(rq, -E_INVALID, "`actions` is true or false");
    }
    int r = list_begin(rq, status && is_held(wanted) ? T_ASSIGNMENT : T_JOB, &l);
    if (r < 0) {
        return r;
    }
    l.status = status;
    l.actions = actions && strcmp(actions, "true") == 0;
    if (project) {
        const Pb__ProjectRecord *p;
        if ((r = scope_project(rq, l.tx, project, &p)) < 0) {
            return r;
        }
        l.project_id = p->id;
    }
    return list_answer(&l, list_job);
}

/* 0, or -E_INVALID for a word that is no status. */
static int status_from_text(const char *text, Pb__Status *ret)
{
    for (int s = STATUS_CREATED; s <= STATUS_SKIPPED; s++) {
        if (strcmp(status_text((Pb__Status)s), text) == 0) {
            *ret = (Pb__Status)s;
            return 0;
        }
    }
    return -E_INVALID;
}

int get_pipelines(struct request *rq)
{
    const char *status = request_query(rq, "status");
    const char *project = request_query(rq, "project");
    Pb__Status wanted = STATUS_SUCCESS;
    if (status && status_from_text(status, &wanted) < 0) {
        return request_fail(rq, -E_INVALID, "there is no status `%.64s`", status);
    }
    struct list l;
    /* What has not ended is a short list of its own, however long the history is. */
    int r = list_begin(rq, status && !status_terminal(wanted) ? T_PIPELINE_LIVE : T_PIPELINE, &l);
    if (r < 0) {
        return r;
    }
    l.status = status;
    if (project) {
        const Pb__ProjectRecord *p;
        if ((r = scope_project(rq, l.tx, project, &p)) < 0) {
            return r;
        }
        l.table = T_PROJECT_PIPELINE;
        l.prefix = key_u64(p->id);
    }
    return list_answer(&l, list_pipeline);
}
