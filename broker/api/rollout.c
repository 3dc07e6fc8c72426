/* Rollouts: lists, one with all that it saw, its evidence, and what people do to it. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/object.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "broker/core/rollout.h"
#include "broker/rollout/explain.h"
#include "common/approver.h"
#include "common/os.h"

#define SHOWN_NOTES  100u  /* of a rollout shown alone */
#define SCANNED_ROWS 1000u /* that a page of the list looks at, at most */

/* --- lists --- */

struct wanted {
    uint64_t project_id;
    uint64_t environment_id; /* 0: of all */
    const char *state;       /* NULL: all; "live": all that have not ended */
};

static bool is_wanted(const struct wanted *w, const Pb__RolloutRecord *r)
{
    const bool live = (rollout_state_flags(r->state) & ROLLOUT_ENDED) == 0;
    return r->project_id == w->project_id &&
           (w->environment_id == 0 || r->environment_id == w->environment_id) &&
           (!w->state || strcmp(rollout_state_text(r->state), w->state) == 0 ||
            (live && strcmp(w->state, "live") == 0));
}

static bool state_is_known(const char *state)
{
    for (int s = ROLLOUT_QUEUED; s <= (int)ROLLOUT_REFUSED; s++) {
        if (strcmp(rollout_state_text((Pb__RolloutState)s), state) == 0) {
            return true;
        }
    }
    return strcmp(state, "live") == 0;
}

static json_t *list_item(struct tx *tx, uint64_t id)
{
    struct rollout_view v;
    return rollout_view_load(tx, id, &v) ? view_rollout(&v, os_realtime_ms(), tx_arena(tx)) : NULL;
}

/* The newest first. A page looks at SCANNED_ROWS rows: it may end early, with `next`. */
static json_t *list_page(struct tx *tx, const struct wanted *w, uint64_t limit, uint64_t *at)
{
    const Pb__RolloutRecord *rows[LIMIT_PAGE];
    json_t *items = json_array();
    size_t n = LIMIT_PAGE;

    for (size_t seen = 0; n == LIMIT_PAGE && seen < SCANNED_ROWS; seen += n) {
        n = w->state && strcmp(w->state, "live") == 0
                ? rollouts_live_before(tx, *at, LIMIT_PAGE, rows)
                : rollouts_before(tx, 0, *at, LIMIT_PAGE, rows);
        for (size_t i = 0; i < n; i++) {
            if (json_array_size(items) == limit) {
                return items;
            }
            *at = rows[i]->id;
            if (is_wanted(w, rows[i])) {
                json_array_append_new(items, list_item(tx, rows[i]->id));
            }
        }
    }
    if (n < LIMIT_PAGE) {
        *at = 0;
    }
    return items;
}

static int find_environment(struct request *rq, struct tx *tx, struct wanted *w)
{
    const char *name = request_query(rq, "environment");
    const Pb__EnvironmentRecord *e = name ? environment_by_name(tx, w->project_id, name) : NULL;
    if (name && !e) {
        return request_fail(rq, -E_NOT_FOUND, "the project has no environment `%.255s`", name);
    }
    w->environment_id = e ? e->id : 0;
    return 0;
}

int get_rollouts(struct request *rq)
{
    struct wanted w = {.state = request_query(rq, "state")};
    const Pb__ProjectRecord *project;
    json_t *items = NULL;
    uint64_t limit;
    uint64_t at;
    struct tx *tx;
    int r = scope_limit(rq, &limit);
    r = r < 0 ? r : request_query_u64(rq, "after", 0, &at);
    if (r == 0 && w.state && !state_is_known(w.state)) {
        r = request_fail(rq, -E_INVALID, "rollouts have no state `%.64s`", w.state);
    }
    r = r < 0 ? r : scope_open(rq, &tx, &project);
    if (r < 0) {
        return r;
    }
    w.project_id = project->id;
    r = find_environment(rq, tx, &w);
    if (r == 0) {
        items = list_page(tx, &w, limit, &at);
        r = tx_error(tx);
    }
    tx_abort(tx);
    if (r < 0) {
        json_decref(items);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK,
                       json_pack("{s:o, s:o}", "items", items, "next", json_id(at)));
}

/* --- one of them --- */

/* Opens a transaction, unless it fails. What the token does not see is not there. */
static int open_rollout(struct request *rq, uint64_t id, struct tx **ret_tx,
                        struct rollout_view *ret)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    if (rollout_view_load(tx, id, ret) && scope_sees(rq, tx, ret->record->project_id)) {
        *ret_tx = tx;
        return 0;
    }
    r = tx_error(tx);
    tx_abort(tx);
    return r < 0 ? r : request_fail(rq, -E_NOT_FOUND, "there is no rollout %" PRIu64, id);
}

static int close_with(struct request *rq, struct tx *tx, unsigned status, json_t *answer)
{
    const int r = tx_error(tx);
    tx_abort(tx);
    if (r < 0) {
        json_decref(answer);
        return r;
    }
    return answer_json(rq, status, answer);
}

int answer_rollout(struct request *rq, unsigned status, uint64_t id)
{
    const Pb__RolloutNoteRecord *rows[SHOWN_NOTES];
    struct rollout_view v;
    struct tx *tx;
    int r = open_rollout(rq, id, &tx, &v);
    if (r < 0) {
        return r;
    }
    json_t *notes = json_array();
    const size_t n = rollout_notes_before(tx, v.record->id, 0, SHOWN_NOTES, rows);
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(notes, view_rollout_note(rows[i]));
    }
    json_t *whole = view_rollout_whole(&v, os_realtime_ms(), tx_arena(tx));
    json_object_set_new(whole, "notes", notes);
    return close_with(rq, tx, status, whole);
}

int get_rollout(struct request *rq)
{
    return answer_rollout(rq, MHD_HTTP_OK, rq->args.id);
}

int get_rollout_explain(struct request *rq)
{
    struct rollout_view v;
    struct metric_rule *rules;
    size_t count = 0;
    const char *why;
    struct tx *tx;
    int r = open_rollout(rq, rq->args.id, &tx, &v);
    if (r < 0) {
        return r;
    }
    json_t *items = json_array();
    if (metric_rules(v.plan->spec, v.plan->target, tx_arena(tx), &rules, &count, &why) < 0) {
        count = 0; /* the plan was made with good ones */
    }
    for (size_t i = 0; i < v.metric_count; i++) {
        const Pb__RolloutMetricRecord *row = v.metrics[i];
        if (row->index < count) {
            struct buf text = BUF_INIT;
            explain_metric(&rules[row->index], row, &text);
            json_t *item = view_rollout_metric(&rules[row->index], row, tx_arena(tx));
            json_object_set_new(item, "explanation", json_text(buf_cstr(&text)));
            json_array_append_new(items, item);
            buf_release(&text);
        }
    }
    return close_with(rq, tx, MHD_HTTP_OK, json_pack("{s:o}", "items", items));
}

/* --- verbs --- */

static const char *role_name(enum role role)
{
    return role == ROLE_ADMIN        ? "admin"
           : role == ROLE_MAINTAINER ? "maintainer"
           : role == ROLE_USER       ? "user"
           : role == ROLE_DEVELOPER  ? "developer"
                                     : "";
}

/* Of the roles that the rollout waits for now, the first that the token has. */
static int approval_role(struct request *rq, const struct rollout_view *v, const char **ret)
{
    const Pb__RolloutRecord *rec = v->record;
    char *const *roles = v->plan->target->gate;
    size_t count = v->plan->target->n_gate;
    struct buf all = BUF_INIT;
    if (rec->state == ROLLOUT_STEPPING && rec->step < v->plan->n_steps) {
        roles = v->plan->steps[rec->step]->roles;
        count = v->plan->steps[rec->step]->n_roles;
    }
    for (size_t i = 0; i < count; i++) {
        if (approver_is(str_from(roles[i]), rq->who.name, role_name(rq->who.role))) {
            *ret = roles[i];
            buf_release(&all);
            return 0;
        }
        buf_addf(&all, "%s`%.64s`", i > 0 ? ", " : "", roles[i]);
    }
    const int r = count == 0
                      ? request_fail(rq, -E_CONFLICT, "it waits for no approval")
                      : request_fail(rq, -E_FORBIDDEN, "it is approved by %.300s", buf_cstr(&all));
    buf_release(&all);
    return r;
}

/* Whether the token may do that; for an approval, with which role. */
static int may_act(struct request *rq, Pb__RolloutVerb verb, struct arena *a, char **ret_role)
{
    const char *role = "";
    struct rollout_view v;
    struct tx *tx;
    int r = open_rollout(rq, rq->args.id, &tx, &v);
    if (r < 0) {
        return r;
    }
    if (rq->who.role == ROLE_DEVELOPER && v.record->protected_ && verb != ROLLOUT_VERB_APPROVE) {
        r = request_fail(rq, -E_FORBIDDEN,
                         "rollout %" PRIu64 " is of a protected ref: a developer's token does "
                         "nothing to it",
                         v.record->id);
    } else if (verb == ROLLOUT_VERB_APPROVE) {
        r = approval_role(rq, &v, &role);
    }
    *ret_role = arena_strdup(a, str_from(role));
    tx_abort(tx);
    return r;
}

static int act_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    return answer_rollout(rq, MHD_HTTP_ACCEPTED, rq->args.id);
}

/* `{"reason":"..."}`, which an override needs: the core sees to that. */
static int act(struct request *rq, Pb__RolloutVerb verb)
{
    const char *reason = "";
    json_t *body;
    int r = body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__RolloutAct *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__rollout_act__init(c);
    c->rollout_id = rq->args.id;
    c->verb = verb;
    r = body_fields(rq, body, "", "reason");
    r = r < 0 ? r : body_text(rq, body, "reason", LIMIT_ROLLOUT_TEXT, &reason);
    c->reason = arena_strdup(post_arena(post), str_from(reason));
    json_decref(body);
    r = r < 0 ? r : may_act(rq, verb, post_arena(post), &c->role);
    if (r < 0) {
        post_free(post);
        return r;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_ROLLOUT_ACT;
    post_command(post)->rollout_act = c;
    return request_post(rq, post, act_done);
}

int post_rollout_abort(struct request *rq)
{
    return act(rq, ROLLOUT_VERB_ABORT);
}

int post_rollout_pause(struct request *rq)
{
    return act(rq, ROLLOUT_VERB_PAUSE);
}

int post_rollout_resume(struct request *rq)
{
    return act(rq, ROLLOUT_VERB_RESUME);
}

int post_rollout_approve(struct request *rq)
{
    return act(rq, ROLLOUT_VERB_APPROVE);
}

int post_rollout_skip(struct request *rq)
{
    return act(rq, ROLLOUT_VERB_SKIP);
}

int post_rollout_promote(struct request *rq)
{
    return act(rq, ROLLOUT_VERB_PROMOTE);
}

int post_rollout_retry(struct request *rq)
{
    return act(rq, ROLLOUT_VERB_RETRY);
}

int post_rollout_override(struct request *rq)
{
    return act(rq, ROLLOUT_VERB_OVERRIDE);
}
