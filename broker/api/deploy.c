/* What pipelines leave behind: environments with their deployments, releases, caches. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/object.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"

#define SHOWN_DEPLOYMENTS 50u /* of an environment shown alone */

/* The project and the size of the page that a list asks for. */
struct listing {
    struct tx *tx;
    const Pb__ProjectRecord *project;
    uint64_t limit;
};

/* Opens the transaction unless it fails. */
static int listing_begin(struct request *rq, struct listing *ret)
{
    int r = scope_limit(rq, &ret->limit);
    return r < 0 ? r : scope_open(rq, &ret->tx, &ret->project);
}

/* Ends the transaction. `next` NULL: that was all. Takes both values over. */
static int listing_answer(struct request *rq, struct listing *s, json_t *items, json_t *next)
{
    int r = tx_error(s->tx);
    tx_abort(s->tx);
    if (r < 0) {
        json_decref(items);
        json_decref(next);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK,
                       json_pack("{s:o, s:o}", "items", items, "next", next ? next : json_null()));
}

/* --- environments --- */

/* By name; one more row than asked for says whether there is more. */
int get_environments(struct request *rq)
{
    const Pb__EnvironmentRecord *rows[LIMIT_PAGE + 1];
    const char *state = request_query(rq, "state");
    const char *name = request_query(rq, "name");
    struct listing s;
    int r = listing_begin(rq, &s);
    if (r < 0) {
        return r;
    }
    json_t *items = json_array();
    json_t *next = NULL;
    size_t n = 0;
    if (name) {
        rows[0] = environment_by_name(s.tx, s.project->id, name);
        n = rows[0] ? 1 : 0;
    } else {
        n = environments_after(s.tx, s.project->id, request_query(rq, "after"), s.limit + 1, rows);
    }
    for (size_t i = 0; i < n && i < s.limit; i++) {
        if (!state || strcmp(environment_state_text(rows[i]->state), state) == 0) {
            json_array_append_new(items, view_environment(s.tx, rows[i]));
        }
    }
    if (n > s.limit) {
        next = json_text(rows[s.limit - 1]->name);
    }
    return listing_answer(rq, &s, items, next);
}

static json_t *whole_environment(struct tx *tx, const Pb__EnvironmentRecord *e)
{
    const Pb__DeploymentRecord *rows[SHOWN_DEPLOYMENTS];
    size_t n = deployments_before(tx, e->id, 0, SHOWN_DEPLOYMENTS, rows);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, view_deployment(rows[i]));
    }
    json_t *whole = view_environment(tx, e);
    json_object_set_new(whole, "deployments", list);
    return whole;
}

int answer_environment(struct request *rq, unsigned status, uint64_t id)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__EnvironmentRecord *e = environment_get(tx, id);
    json_t *whole = e ? whole_environment(tx, e) : NULL;
    r = tx_error(tx);
    tx_abort(tx);
    if (r == 0 && !whole) {
        r = request_fail(rq, -E_NOT_FOUND, "there is no environment %" PRIu64, id);
    }
    if (r < 0) {
        json_decref(whole);
        return r;
    }
    return answer_json(rq, status, whole);
}

int get_environment(struct request *rq)
{
    return answer_environment(rq, MHD_HTTP_OK, rq->args.id);
}

static int stop_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    return answer_environment(rq, MHD_HTTP_ACCEPTED, rq->args.id);
}

/* Starts its on_stop job; `{"force":true}` stops it without. */
int post_environment_stop(struct request *rq)
{
    json_t *body;
    bool force = false;
    int r = body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    r = body_fields(rq, body, "", "force");
    if (r == 0) {
        r = body_bool(rq, body, "force", &force);
    }
    json_decref(body);
    if (r == 0 && !force) {
        r = scope_ref_allowed(rq, ABOUT_ENVIRONMENT, rq->args.id);
    }
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__EnvironmentStop *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__environment_stop__init(c);
    c->environment_id = rq->args.id;
    c->force = force;
    post_command(post)->body_case = PB__COMMAND__BODY_ENVIRONMENT_STOP;
    post_command(post)->environment_stop = c;
    return request_post(rq, post, stop_done);
}

/* --- releases --- */

int get_releases(struct request *rq)
{
    const Pb__ReleaseRecord *rows[LIMIT_PAGE + 1];
    struct listing s;
    uint64_t after;
    int r = request_query_u64(rq, "after", 0, &after);
    if (r < 0 || (r = listing_begin(rq, &s)) < 0) {
        return r;
    }
    json_t *items = json_array();
    size_t n = releases_before(s.tx, s.project->id, after, s.limit + 1, rows);
    for (size_t i = 0; i < n && i < s.limit; i++) {
        json_array_append_new(items, view_release(s.project->name, rows[i]));
    }
    return listing_answer(rq, &s, items, n > s.limit ? json_id(rows[s.limit - 1]->id) : NULL);
}

/* --- caches --- */

/* Those set last come first; `next` is no id, but stands for the place in that order. */
int get_caches(struct request *rq)
{
    const Pb__CacheRecord *rows[LIMIT_PAGE + 1];
    struct listing s;
    uint64_t after;
    int r = request_query_u64(rq, "after", 0, &after);
    if (r < 0 || (r = listing_begin(rq, &s)) < 0) {
        return r;
    }
    json_t *items = json_array();
    size_t n = caches_before(s.tx, s.project->id, after, s.limit + 1, rows);
    for (size_t i = 0; i < n && i < s.limit; i++) {
        json_array_append_new(items, view_cache(rows[i]));
    }
    return listing_answer(rq, &s, items, n > s.limit ? json_id(rows[s.limit - 1]->seq) : NULL);
}
