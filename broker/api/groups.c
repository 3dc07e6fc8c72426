/* Resource groups: who holds one, who waits for it, and in which order it lets them in. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/scope.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "common/crypto.h"

#define SHOWN_WAITING 50u

static const char *const mode_texts[] = {
    [PB__PROCESS_MODE__PROCESS_UNORDERED] = "unordered",
    [PB__PROCESS_MODE__PROCESS_OLDEST_FIRST] = "oldest_first",
    [PB__PROCESS_MODE__PROCESS_NEWEST_FIRST] = "newest_first",
    [PB__PROCESS_MODE__PROCESS_NEWEST_READY_FIRST] = "newest_ready_first",
};

/* Of the tables that are about a group. */
static struct key group_key(uint64_t project_id, const char *name)
{
    uint8_t hash[SHA256_BYTES];
    struct key k = key_u64(project_id);
    crypto_sha256(name, strlen(name), hash);
    key_add_bytes(&k, hash, sizeof(hash));
    return k;
}

/* The ids that end the keys of a group's rows: at most max of them. */
static json_t *ids_of(struct tx *tx, enum table t, const struct key *group, size_t max)
{
    json_t *ids = json_array();
    struct cursor c;
    for (tx_seek(&c, tx, t, key_str(group), NULL); c.valid && json_array_size(ids) < max;
         tx_next(&c)) {
        json_array_append_new(ids, json_id(key_read_u64(c.key, c.key.n - sizeof(uint64_t))));
    }
    cursor_end(&c);
    return ids;
}

static json_t *view_group(struct tx *tx, const Pb__ProjectRecord *p, const char *name,
                          Pb__ProcessMode mode)
{
    struct key k = group_key(p->id, name);
    json_t *holders = ids_of(tx, T_RESOURCE_HOLD, &k, 1);
    json_t *holder = json_array_size(holders) > 0 ? json_incref(json_array_get(holders, 0))
                                                  : json_null();
    json_decref(holders);
    check((size_t)mode < ARRAY_LEN(mode_texts));
    return json_pack("{s:s, s:s, s:s, s:o, s:o}", "project", p->name, "name", name, "mode",
                     mode_texts[mode], "holder", holder, "waiting",
                     ids_of(tx, T_RESOURCE_WAIT, &k, SHOWN_WAITING));
}

static int finish(struct request *rq, struct tx *tx, json_t *answer)
{
    int r = tx_error(tx);
    tx_abort(tx);
    if (r < 0) {
        json_decref(answer);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK, answer);
}

static const Pb__ResourceGroupRecord *read_row(struct tx *tx, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    return (const Pb__ResourceGroupRecord *)tx_get_msg(tx, T_RESOURCE_GROUP, &k,
                                                       &pb__resource_group_record__descriptor);
}

/* Those with a mode, in an order of their own. */
int get_resource_groups(struct request *rq)
{
    const char *after = request_query(rq, "after");
    const Pb__ProjectRecord *p;
    const char *last = NULL;
    bool more = false;
    uint64_t limit;
    struct cursor c;
    struct tx *tx;
    int r = scope_limit(rq, &limit);
    if (r < 0 || (r = scope_open(rq, &tx, &p)) < 0) {
        return r;
    }
    json_t *items = json_array();
    struct key prefix = key_u64(p->id);
    struct key from = group_key(p->id, after ? after : "");
    tx_seek(&c, tx, T_RESOURCE_GROUP, key_str(&prefix), after ? &from : NULL);
    if (c.valid && after && str_eq(c.key, key_str(&from))) {
        tx_next(&c);
    }
    for (; c.valid && !more; tx_next(&c)) {
        const Pb__ResourceGroupRecord *row = read_row(tx, c.key);
        more = json_array_size(items) == limit;
        if (row && !more) {
            last = row->name;
            json_array_append_new(items, view_group(tx, p, row->name, row->mode));
        }
    }
    cursor_end(&c);
    return finish(rq, tx,
                  json_pack("{s:o, s:o}", "items", items, "next", json_text(more ? last : NULL)));
}

int get_resource_group(struct request *rq)
{
    const Pb__ProjectRecord *p;
    struct tx *tx;
    int r = scope_open(rq, &tx, &p);
    if (r < 0) {
        return r;
    }
    const char *name = arena_strdup(tx_arena(tx), rq->args.rest);
    struct key k = group_key(p->id, name);
    const Pb__ResourceGroupRecord *row = read_row(tx, key_str(&k));
    return finish(rq, tx,
                  view_group(tx, p, name, row ? row->mode : PB__PROCESS_MODE__PROCESS_UNORDERED));
}

static int group_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    return get_resource_group(rq);
}

static int set_mode(struct request *rq, Pb__ProcessMode mode)
{
    const char *project = request_query(rq, "project");
    if (!project) {
        return request_fail(rq, -E_INVALID, "`project` is missing in the query");
    }
    struct post *post = request_post_new(rq);
    Pb__ResourceGroupSet *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__resource_group_set__init(c);
    c->project = arena_strdup(post_arena(post), str_from(project));
    c->name = arena_strdup(post_arena(post), rq->args.rest);
    c->mode = mode;
    post_command(post)->body_case = PB__COMMAND__BODY_RESOURCE_GROUP_SET;
    post_command(post)->resource_group_set = c;
    return request_post(rq, post, group_done);
}

static int read_mode(struct request *rq, const json_t *body, Pb__ProcessMode *ret)
{
    const char *text = NULL;
    int r = body_fields(rq, body, "", "mode");
    r = r < 0 ? r : body_text(rq, body, "mode", LIMIT_NAME, &text);
    for (size_t i = 0; r == 0 && text && i < ARRAY_LEN(mode_texts); i++) {
        if (strcmp(mode_texts[i], text) == 0) {
            *ret = (Pb__ProcessMode)i;
            return 0;
        }
    }
    return r < 0 ? r
                 : request_fail(rq, -E_INVALID,
                                "field `mode` must be `unordered`, `oldest_first`, `newest_first` "
                                "or `newest_ready_first`");
}

int put_resource_group(struct request *rq)
{
    Pb__ProcessMode mode = PB__PROCESS_MODE__PROCESS_UNORDERED;
    json_t *body;
    int r = body_parse(rq, false, &body);
    if (r < 0) {
        return r;
    }
    r = read_mode(rq, body, &mode);
    json_decref(body);
    return r < 0 ? r : set_mode(rq, mode);
}

int delete_resource_group(struct request *rq)
{
    return set_mode(rq, PB__PROCESS_MODE__PROCESS_UNORDERED);
}
