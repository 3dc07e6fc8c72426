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
    if (!json_is_object(item)) {
        return request_fail(rq, -E_INVALID, "`variables` holds objects");
    }
    int r = body_fields(rq, item, "variables.", "name value raw file");
    if (r < 0 || (r = body_text(rq, item, "name", LIMIT_NAME, &name)) < 0 ||
        (r = body_text(rq, item, "value", LIMIT_VARIABLE_VALUE, &value)) < 0 ||
        (r = body_bool(rq, item, "raw", &raw)) < 0 ||
        (r = body_bool(rq, item, "file", &file)) < 0) {
        return r;
    }
    if (!name || !var_name_valid(str_from(name))) {
        return request_fail(rq, -E_INVALID, "`%.64s` is no name of a variable", name ? name : "");
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
    for (size_t i = 0; i < count; i++) {
        r = read_variable(rq, json_array_get(list, i), arena, &items[i]);
        if (r < 0) {
            return r;
        }
    }
    *ret = items;
    *ret_count = count;
    return 0;
}
