/* Services: where a target's versions stand, what stood there before, what tells two versions
 * apart, and the way back to one of them. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/object.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "common/os.h"

#define SCANNED_ENVIRONMENTS LIMIT_PAGE /* that a page of the list looks at, at most */

/* --- lists --- */

/* A page by environment and target; `next` is the last one's "ENVIRONMENT/TARGET". */
struct listing {
    struct tx *tx;
    json_t *items;
    uint64_t limit;
    json_t *next; /* NULL: that was all */
};

/* Those behind `after` of one environment. True: the page is full. */
static bool add_of_environment(struct listing *l, const Pb__EnvironmentRecord *e, const char *after)
{
    const Pb__ServiceRecord *rows[LIMIT_PAGE + 1];
    const size_t room = l->limit - json_array_size(l->items);
    const size_t n = services_after(l->tx, e->id, after, room + 1, rows);
    for (size_t i = 0; i < n && i < room; i++) {
        json_array_append_new(l->items, view_service(l->tx, rows[i]));
    }
    if (n > room) {
        const json_t *last = json_array_get(l->items, json_array_size(l->items) - 1);
        l->next = json_sprintf("%s/%s", json_string_value(json_object_get(last, "environment")),
                               json_string_value(json_object_get(last, "target")));
    }
    return n > room;
}

/* An empty page of environments without services says where the next one begins. */
static void add_all(struct listing *l, uint64_t project_id, const char *after)
{
    const Pb__EnvironmentRecord *rows[SCANNED_ENVIRONMENTS];
    struct arena *a = tx_arena(l->tx);
    const char *slash = after ? strrchr(after, '/') : NULL;
    const char *name = slash ? arena_strdup(a, str_of(after, (size_t)(slash - after))) : NULL;
    const Pb__EnvironmentRecord *e = name ? environment_by_name(l->tx, project_id, name) : NULL;
    if (e && slash[1] != '\0' && add_of_environment(l, e, slash + 1)) {
        return;
    }
    const size_t n = environments_after(l->tx, project_id, name, SCANNED_ENVIRONMENTS, rows);
    for (size_t i = 0; i < n; i++) {
        if (json_array_size(l->items) == l->limit || add_of_environment(l, rows[i], NULL)) {
            l->next = l->next ? l->next : json_sprintf("%s/", i > 0 ? rows[i - 1]->name : name);
            return;
        }
    }
    if (n == SCANNED_ENVIRONMENTS) {
        l->next = json_sprintf("%s/", rows[n - 1]->name);
    }
}

static int list(struct request *rq, struct listing *l, uint64_t project_id)
{
    const char *named = request_query(rq, "environment");
    const char *after = request_query(rq, "after");
    if (after && !strchr(after, '/')) {
        return request_fail(rq, -E_INVALID, "`after` is ENVIRONMENT/TARGET, as `next` was");
    }
    if (!named) {
        add_all(l, project_id, after);
        return tx_error(l->tx);
    }
    const Pb__EnvironmentRecord *e = environment_by_name(l->tx, project_id, named);
    if (!e) {
        return request_fail(rq, -E_NOT_FOUND, "the project has no environment `%.255s`", named);
    }
    add_of_environment(l, e, after ? strrchr(after, '/') + 1 : NULL);
    return tx_error(l->tx);
}

int get_services(struct request *rq)
{
    const Pb__ProjectRecord *project;
    struct listing l = {0};
    int r = scope_limit(rq, &l.limit);
    r = r < 0 ? r : scope_open(rq, &l.tx, &project);
    if (r < 0) {
        return r;
    }
    l.items = json_array();
    r = list(rq, &l, project->id);
    tx_abort(l.tx);
    if (r < 0) {
        json_decref(l.items);
        json_decref(l.next);
        return r;
    }
    return answer_json(
        rq, MHD_HTTP_OK,
        json_pack("{s:o, s:o}", "items", l.items, "next", l.next ? l.next : json_null()));
}

/* --- one of them --- */

/* Opens a transaction, unless it fails. What the token does not see is not there. */
static int open_service(struct request *rq, struct tx **ret_tx, const Pb__ServiceRecord **ret)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    *ret_tx = NULL;
    if (r < 0) {
        return r;
    }
    *ret = service_get(tx, rq->args.id);
    if (*ret && scope_sees(rq, tx, (*ret)->project_id)) {
        *ret_tx = tx;
        return 0;
    }
    r = tx_error(tx);
    tx_abort(tx);
    return r < 0 ? r : request_fail(rq, -E_NOT_FOUND, "there is no service %" PRIu64, rq->args.id);
}

static int close_with(struct request *rq, struct tx *tx, json_t *answer)
{
    const int r = tx_error(tx);
    tx_abort(tx);
    if (r < 0) {
        json_decref(answer);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK, answer);
}

int get_service(struct request *rq)
{
    const Pb__ServiceRecord *s;
    struct tx *tx;
    const int r = open_service(rq, &tx, &s);
    return r < 0 ? r : close_with(rq, tx, view_service_whole(tx, s, os_realtime_ms()));
}

/* --- versions --- */

static const Pb__SnapshotRecord *find_snapshot(struct request *rq, struct tx *tx, uint64_t id)
{
    const Pb__SnapshotRecord *s = snapshot_get(tx, id);
    const Pb__ServiceRecord *service = s ? service_get(tx, s->service_id) : NULL;
    return service && scope_sees(rq, tx, service->project_id) ? s : NULL;
}

static int no_snapshot(struct request *rq, uint64_t id)
{
    return request_fail(rq, -E_NOT_FOUND, "no version %" PRIu64 " is kept", id);
}

int get_snapshot(struct request *rq)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__SnapshotRecord *s = find_snapshot(rq, tx, rq->args.id);
    if (!s) {
        r = tx_error(tx);
        tx_abort(tx);
        return r < 0 ? r : no_snapshot(rq, rq->args.id);
    }
    return close_with(rq, tx, view_snapshot(s));
}

int get_snapshot_diff(struct request *rq)
{
    uint64_t from_id;
    struct tx *tx;
    int r = request_query_u64(rq, "from", 0, &from_id);
    r = r < 0 ? r : api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__SnapshotRecord *to = find_snapshot(rq, tx, rq->args.id);
    const Pb__SnapshotRecord *from = to ? find_snapshot(rq, tx, from_id) : NULL;
    if (from && from->service_id == to->service_id) {
        return close_with(rq, tx, view_snapshot_diff(from, to, tx_arena(tx)));
    }
    r = tx_error(tx);
    if (r == 0) {
        r = from ? request_fail(rq, -E_INVALID, "the versions are of different services")
                 : no_snapshot(rq, to ? from_id : rq->args.id);
    }
    tx_abort(tx);
    return r;
}

/* --- the way back --- */

/* A number is that of a kept version, a text its name: the newest one of that name. */
static int find_version(struct request *rq, struct tx *tx, const Pb__ServiceRecord *s,
                        const char *version, uint64_t *ret)
{
    for (size_t i = s->n_snapshot_ids; i > 0; i--) {
        const Pb__SnapshotRecord *kept = snapshot_get(tx, s->snapshot_ids[i - 1]);
        if (kept && strcmp(kept->version, version) == 0) {
            *ret = kept->id;
            return 0;
        }
    }
    return request_fail(rq, -E_NOT_FOUND, "service %.100s keeps no version `%.100s`", s->target,
                        version);
}

/* The actions of a way back may run in pools that are for protected refs: that is not for
 * developers to say. */
static int undo_check(struct request *rq, const char *version, uint64_t *snapshot_id)
{
    const Pb__ServiceRecord *s;
    struct tx *tx;
    int r = open_service(rq, &tx, &s);
    if (r < 0) {
        return r;
    }
    if (rq->who.role == ROLE_DEVELOPER) {
        r = request_fail(rq, -E_FORBIDDEN, "a developer's token undoes no rollout");
    } else if (version && *snapshot_id != 0) {
        r = request_fail(rq, -E_INVALID, "either `snapshot_id` or `version`");
    } else if (version) {
        r = find_version(rq, tx, s, version, snapshot_id);
    }
    tx_abort(tx);
    return r;
}

static int undo_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    return answer_rollout(rq, MHD_HTTP_ACCEPTED, rq->reply.rollout_id);
}

/* `{"snapshot_id":N}` or `{"version":"..."}`, else the version before the stable one. */
int post_service_undo(struct request *rq)
{
    const char *reason = "";
    const char *version = NULL;
    uint64_t snapshot_id = 0;
    json_t *body;
    int r = body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__RolloutBegin *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__rollout_begin__init(c);
    r = body_fields(rq, body, "", "snapshot_id version reason");
    r = r < 0 ? r : body_u64(rq, body, "snapshot_id", &snapshot_id);
    r = r < 0 ? r : body_name(rq, body, "version", &version);
    r = r < 0 ? r : body_text(rq, body, "reason", LIMIT_ROLLOUT_TEXT, &reason);
    r = r < 0 ? r : undo_check(rq, version, &snapshot_id);
    c->service_id = rq->args.id;
    c->snapshot_id = snapshot_id;
    c->reason = arena_strdup(post_arena(post), str_from(reason));
    json_decref(body);
    if (r < 0) {
        post_free(post);
        return r;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_ROLLOUT_BEGIN;
    post_command(post)->rollout_begin = c;
    return request_post(rq, post, undo_done);
}
