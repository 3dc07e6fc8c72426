/* Stored variables: of the installation, of groups, of projects. Their values are sealed here, on
 * the way in, and opened for those who may see them; and the master keys that they hang on. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/object.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "broker/vault/rewrap.h"
#include "common/expand.h"
#include "common/limits.h"

#define ANY_ENVIRONMENT "*"

/* Whose variables the query asks for. */
struct owner {
    Pb__VariableLevel level;
    const char *name;
};

static int read_owner(struct request *rq, struct owner *ret)
{
    const char *project = request_query(rq, "project");
    const char *group = request_query(rq, "group");
    const char *name = project ? project : group;

    if (project && group) {
        return request_fail(rq, -E_INVALID, "either `project` or `group` in the query");
    }
    if (name && !str_is_project_name(str_from(name))) {
        return request_fail(rq, -E_INVALID, "`%.255s` is no name of a group or project", name);
    }
    ret->level = project ? VARIABLE_PROJECT : group ? VARIABLE_GROUP : VARIABLE_INSTANCE;
    ret->name = name ? name : "";
    return 0;
}

static const char *scope_of_query(struct request *rq)
{
    const char *scope = request_query(rq, "environment_scope");
    return scope ? scope : ANY_ENVIRONMENT;
}

static json_t *view_stored(const Pb__StoredVariableRecord *row)
{
    const Pb__SealedVariable *v = row->variable;
    return json_pack("{s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:o, s:o, s:o, s:o}", "name", v->name,
                     "environment_scope", v->environment_scope, "file", (int)v->file, "masked",
                     (int)v->masked, "hidden", (int)v->hidden, "protected", (int)v->protected_,
                     "raw", (int)v->raw, "description", json_text(v->description), "created_at",
                     json_time(row->created_ms), "updated_at", json_time(row->updated_ms),
                     "updated_by", json_text(row->updated_by));
}

/* All of an owner: there are LIMIT_STORED_VARIABLES at most. */
int get_variables(struct request *rq)
{
    const Pb__StoredVariableRecord *rows[LIMIT_STORED_VARIABLES];
    struct owner owner;
    struct tx *tx;
    int r = read_owner(rq, &owner);
    r = r < 0 ? r : api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    json_t *items = json_array();
    const size_t n = stored_of(tx, owner.level, owner.name, LIMIT_STORED_VARIABLES, rows);
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(items, view_stored(rows[i]));
    }
    r = tx_error(tx);
    tx_abort(tx);
    if (r < 0) {
        json_decref(items);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK, json_pack("{s:o, s:n}", "items", items, "next"));
}

/* With its value, unless that is hidden. */
static int view_value(struct request *rq, const Pb__StoredVariableRecord *row, json_t **ret)
{
    struct buf value = BUF_INIT;
    json_t *o = view_stored(row);
    int r = 0;
    if (row->variable->hidden) {
        json_object_set_new(o, "value", json_null());
    } else {
        r = vault_unseal(rq->api->config.vault, row->variable, &value);
        if (r < 0) {
            r = request_fail(rq, r, "the value of `%s` cannot be opened: %s", row->variable->name,
                             r == -E_NOT_FOUND ? "its master key is not known" : err_text(r));
        } else {
            json_object_set_new(o, "value", json_stringn(buf_cstr(&value), value.n));
        }
        crypto_wipe(value.p, value.n);
        buf_release(&value);
    }
    if (r < 0) {
        json_decref(o);
        return r;
    }
    *ret = o;
    return 0;
}

int get_variable(struct request *rq)
{
    struct owner owner;
    struct tx *tx;
    json_t *o = NULL;
    int r = read_owner(rq, &owner);
    r = r < 0 ? r : api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__StoredVariableRecord *row = stored_get(
        tx, owner.level, owner.name, arena_strdup(tx_arena(tx), rq->args.rest), scope_of_query(rq));
    if (row) {
        r = view_value(rq, row, &o);
    } else {
        r = tx_ok(tx)
                ? request_fail(rq, -E_NOT_FOUND,
                               "there is no variable `" STR_FMT "` with environment scope `%.255s`",
                               STR_ARG(rq->args.rest), scope_of_query(rq))
                : tx_error(tx);
    }
    tx_abort(tx);
    return r < 0 ? r : answer_json(rq, MHD_HTTP_OK, o);
}

/* --- setting them --- */

static int read_flag(struct request *rq, const json_t *item, const char *name,
                     protobuf_c_boolean before, protobuf_c_boolean *ret)
{
    bool flag = before;
    int r = body_bool(rq, item, name, &flag);
    *ret = flag;
    return r;
}

/* What the item leaves out stays as it was. */
static int read_flags(struct request *rq, const json_t *item, const Pb__SealedVariable *old,
                      Pb__SealedVariable *v)
{
    int r;
    if ((r = read_flag(rq, item, "file", old && old->file, &v->file)) < 0 ||
        (r = read_flag(rq, item, "hidden", old && old->hidden, &v->hidden)) < 0 ||
        (r = read_flag(rq, item, "masked", (old && old->masked) || v->hidden, &v->masked)) < 0 ||
        (r = read_flag(rq, item, "protected", old && old->protected_, &v->protected_)) < 0) {
        return r;
    }
    return read_flag(rq, item, "raw", old && old->raw, &v->raw);
}

static int read_names(struct request *rq, const json_t *item, struct arena *a,
                      Pb__SealedVariable *v)
{
    const char *name = "";
    const char *scope = ANY_ENVIRONMENT;
    int r = body_fields(rq, item, "",
                        "name value environment_scope file masked hidden protected raw "
                        "description");
    r = r < 0 ? r : body_text(rq, item, "name", LIMIT_NAME, &name);
    r = r < 0 ? r : body_text(rq, item, "environment_scope", LIMIT_NAME, &scope);
    if (r == 0 && !var_name_valid(str_from(name))) {
        r = request_fail(rq, -E_INVALID, "field `%sname`: `%.64s` is no name of a variable",
                         rq->where, name);
    }
    if (r == 0 && !body_is_name(scope)) {
        r = request_fail(rq, -E_INVALID, "field `%senvironment_scope` is a name or a pattern",
                         rq->where);
    }
    v->name = arena_strdup(a, str_from(name));
    v->environment_scope = arena_strdup(a, str_from(scope));
    return r;
}

static int read_item(struct request *rq, struct tx *tx, const json_t *item, struct arena *a,
                     Pb__SealedVariable *v)
{
    const char *value = NULL;
    const char *description = NULL;
    int r = read_names(rq, item, a, v);
    if (r < 0) {
        return r;
    }
    const Pb__StoredVariableRecord *row = stored_get(tx, v->level, v->owner, v->name,
                                                     v->environment_scope);
    const Pb__SealedVariable *old = row ? row->variable : NULL;
    if ((r = read_flags(rq, item, old, v)) < 0 ||
        (r = body_text(rq, item, "description", LIMIT_NAME, &description)) < 0 ||
        (r = body_text(rq, item, "value", LIMIT_VARIABLE_VALUE, &value)) < 0) {
        return r;
    }
    description = description ? description : old ? old->description : "";
    v->description = arena_strdup(a, str_from(description));
    if (value) {
        vault_seal(rq->api->config.vault, a, str_from(value), v);
    }
    return tx_error(tx);
}

static int read_items(struct request *rq, const struct owner *owner, const json_t *list,
                      struct arena *a, Pb__VariablesSet *set)
{
    const size_t count = json_array_size(list);
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    char *name = arena_strdup(a, str_from(owner->name));
    set->variables = arena_array(a, MAX(count, 1u), sizeof(Pb__SealedVariable *));
    for (size_t i = 0; i < count && r == 0; i++) {
        Pb__SealedVariable *v = arena_alloc(a, sizeof(*v));
        const json_t *item = json_array_get(list, i);
        pb__sealed_variable__init(v);
        v->level = owner->level;
        v->owner = name;
        set->variables[set->n_variables++] = v;
        body_at(rq, "variables[%zu].", i);
        r = json_is_object(item)
                ? read_item(rq, tx, item, a, v)
                : request_fail(rq, -E_INVALID, "field `variables[%zu]` must be an object", i);
    }
    body_at(rq, "%s", "");
    tx_abort(tx);
    return r;
}

static int stored_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    return rq->route->method == PUT ? get_variables(rq)
                                    : answer_json(rq, MHD_HTTP_OK, json_object());
}

static int read_set(struct request *rq, const struct owner *owner, const json_t *body,
                    struct post *post, Pb__VariablesSet *set)
{
    const json_t *list = NULL;
    int r = body_fields(rq, body, "", "variables");
    r = r < 0 ? r : body_array(rq, body, "variables", LIMIT_STORED_VARIABLES, &list);
    if (r == 0 && (!list || json_array_size(list) == 0)) {
        r = request_fail(rq, -E_INVALID, "field `variables` is to hold one or more");
    }
    r = r < 0 ? r : read_items(rq, owner, list, post_arena(post), set);
    if (r == 0 && pb__variables_set__get_packed_size(set) > LIMIT_COMMAND) {
        r = request_fail(rq, -E_TOO_BIG, "the variables come to more than %u bytes", LIMIT_COMMAND);
    }
    return r;
}

int put_variables(struct request *rq)
{
    struct owner owner;
    json_t *body;
    int r = read_owner(rq, &owner);
    r = r < 0 ? r : body_parse(rq, false, &body);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__VariablesSet *set = arena_alloc(post_arena(post), sizeof(*set));
    pb__variables_set__init(set);
    r = read_set(rq, &owner, body, post, set);
    json_decref(body);
    if (r < 0) {
        post_free(post);
        return r;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_VARIABLES_SET;
    post_command(post)->variables_set = set;
    return request_post(rq, post, stored_done);
}

int delete_variable(struct request *rq)
{
    struct owner owner;
    int r = read_owner(rq, &owner);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    struct arena *a = post_arena(post);
    Pb__VariableDelete *c = arena_alloc(a, sizeof(*c));
    pb__variable_delete__init(c);
    c->level = owner.level;
    c->owner = arena_strdup(a, str_from(owner.name));
    c->name = arena_strdup(a, rq->args.rest);
    c->environment_scope = arena_strdup(a, str_from(scope_of_query(rq)));
    post_command(post)->body_case = PB__COMMAND__BODY_VARIABLE_DELETE;
    post_command(post)->variable_delete = c;
    return request_post(rq, post, stored_done);
}

/* --- master keys --- */

static int keys_view(struct request *rq)
{
    const struct api_config *config = &rq->api->config;
    struct vault_key keys[LIMIT_MASTER_KEYS];
    uint64_t counts[LIMIT_MASTER_KEYS];
    uint64_t others = 0;
    const size_t n = vault_keys(config->vault, keys);
    int r = rewrap_count(config->store, config->turn, keys, n, counts, &others);
    if (r < 0) {
        return r;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(items,
                              json_pack("{s:s, s:b, s:I}", "id", keys[i].id, "current",
                                        (int)keys[i].current, "variables", (json_int_t)counts[i]));
    }
    rq->extra = json_pack("{s:o, s:I}", "items", items, "unknown", (json_int_t)others);
    return 0;
}

/* On a work thread: it may have many variables to go through. */
static int rotate_work(struct request *rq)
{
    const struct api_config *config = &rq->api->config;
    struct rewrap_result result;
    int r = vault_rotate(config->vault, &rq->why);
    r = r < 0 ? r : rewrap_all(config->store, config->turn, config->vault, NULL, &result);
    return r < 0 ? r : keys_view(rq);
}

static int keys_done(struct request *rq)
{
    json_t *answer = rq->extra;
    if (rq->result < 0) {
        return rq->result;
    }
    rq->extra = NULL;
    return answer_json(rq, MHD_HTTP_OK, answer);
}

int get_master_keys(struct request *rq)
{
    return request_work(rq, keys_view, keys_done);
}

int post_master_key_rotate(struct request *rq)
{
    json_t *body;
    int r = body_parse(rq, true, &body);
    r = r < 0 ? r : body_fields(rq, body, "", "");
    if (r < 0) {
        return r;
    }
    json_decref(body);
    return request_work(rq, rotate_work, keys_done);
}
