#include "common/base.h"

#include "broker/api/variables.h"

#include "broker/api/body.h"
#include "common/expand.h"
#include "common/limits.h"

static int read_variable(struct request *rq, const json_t *item, struct arena *arena,
                         Pb__Variable **ret)
{
    const char *name = NULL;
    const char *value = "";
    bool raw = false;
    bool file = false;
    int r = body_fields(rq, item, "", "name value raw file");
    if (r < 0 || (r = body_text(rq, item, "name", LIMIT_NAME, &name)) < 0 ||
        (r = body_text(rq, item, "value", LIMIT_VARIABLE_VALUE, &value)) < 0 ||
        (r = body_bool(rq, item, "raw", &raw)) < 0 ||
        (r = body_bool(rq, item, "file", &file)) < 0) {
        return r;
    }
    if (!name || !var_name_valid(str_from(name))) {
        return request_fail(rq, -E_INVALID, "field `%sname`: `%.64s` is no name of a variable",
                            rq->where, name ? name : "");
    }
    Pb__Variable *v = arena_alloc(arena, sizeof(*v));
    pb__variable__init(v);
    v->name = arena_strdup(arena, str_from(name));
    v->value = pb_bytes(arena, str_from(value));
    v->raw = raw;
    v->file = file;
    *ret = v;
    return 0;
}

int variables_read(struct request *rq, const json_t *body, struct arena *arena, Pb__Variable ***ret,
                   size_t *ret_count)
{
    const json_t *list = NULL;
    int r = body_array(rq, body, "variables", LIMIT_VARIABLES, &list);
    size_t count = list ? json_array_size(list) : 0;
    if (r < 0 || count == 0) {
        return r;
    }
    Pb__Variable **items = arena_array(arena, count, sizeof(*items));
    char where[sizeof(rq->where)];
    memcpy(where, rq->where, sizeof(where));
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_object(item)) {
            return request_fail(rq, -E_INVALID, "field `%svariables[%zu]` must be an object", where,
                                i);
        }
        body_at(rq, "%.32svariables[%zu].", where, i);
        r = read_variable(rq, item, arena, &items[i]);
        if (r < 0) {
            return r;
        }
    }
    body_at(rq, "%s", where);
    *ret = items;
    *ret_count = count;
    return 0;
}
