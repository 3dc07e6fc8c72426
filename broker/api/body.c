#include "common/base.h"

#include "broker/api/body.h"

#include "common/limits.h"

/* jansson bounds the depth far above ours, and the memory not at all: `[[],[],...` costs it forty
 * times its size. So brackets and commas are counted first. */
static int check_weight(struct request *rq, struct str text)
{
    size_t depth = 0;
    size_t containers = 0;
    size_t values = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        values += c == ',';
        containers += c == '[' || c == '{';
        depth += c == '[' || c == '{';
        depth -= (c == ']' || c == '}') && depth > 0;
        if (depth > LIMIT_HTTP_JSON_DEPTH) {
            return request_fail(rq, -E_LIMIT, "the JSON is nested deeper than %u",
                                LIMIT_HTTP_JSON_DEPTH);
        }
    }
    if (containers > LIMIT_HTTP_JSON_CONTAINERS || values > LIMIT_HTTP_JSON_VALUES) {
        return request_fail(rq, -E_LIMIT, "the JSON holds too many values");
    }
    return 0;
}

int body_parse(struct request *rq, bool may_be_empty, json_t **ret)
{
    struct str text = buf_str(&rq->body);
    json_error_t error;
    if (may_be_empty && text.n == 0) {
        text = STR("{}");
    }
    int r = check_weight(rq, text);
    if (r < 0) {
        return r;
    }
    json_t *body = json_loadb(text.p ? text.p : "", text.n, JSON_REJECT_DUPLICATES, &error);
    if (!body) {
        return request_fail(rq, -E_INVALID, "the body is no JSON: line %d, column %d: %s",
                            error.line, error.column, error.text);
    }
    if (!json_is_object(body)) {
        json_decref(body);
        return request_fail(rq, -E_INVALID, "the body must be a JSON object");
    }
    *ret = body;
    return 0;
}

static bool is_among(const char *names_text, struct str name)
{
    struct str names = str_from(names_text);
    struct str known;
    while (str_split(&names, ' ', &known)) {
        if (known.n > 0 && str_eq(known, name)) {
            return true;
        }
    }
    return false;
}

int body_fields(struct request *rq, const json_t *object, const char *where, const char *names)
{
    void *it = json_object_iter((json_t *)object);
    for (; it; it = json_object_iter_next((json_t *)object, it)) {
        const char *name = json_object_iter_key(it);
        if (!is_among(names, str_from(name))) {
            return request_fail(rq, -E_INVALID, "unknown field `%s%.64s`", where, name);
        }
    }
    return 0;
}

/* NULL: absent or null. */
static const json_t *field(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static int wrong(struct request *rq, const char *name, const char *what)
{
    return request_fail(rq, -E_INVALID, "field `%s` must be %s", name, what);
}

int body_text(struct request *rq, const json_t *object, const char *name, size_t max,
              const char **ret)
{
    const json_t *value = field(object, name);
    if (!value) {
        return 0;
    }
    if (!json_is_string(value)) {
        return wrong(rq, name, "a text");
    }
    if (json_string_length(value) > max) {
        return request_fail(rq, -E_LIMIT, "field `%s` may have %zu bytes", name, max);
    }
    *ret = json_string_value(value);
    return 0;
}

int body_bool(struct request *rq, const json_t *object, const char *name, bool *ret)
{
    const json_t *value = field(object, name);
    if (value && !json_is_boolean(value)) {
        return wrong(rq, name, "true or false");
    }
    if (value) {
        *ret = json_is_true(value);
    }
    return 0;
}

int body_u64(struct request *rq, const json_t *object, const char *name, uint64_t *ret)
{
    const json_t *value = field(object, name);
    if (value && (!json_is_integer(value) || json_integer_value(value) < 0)) {
        return wrong(rq, name, "a whole number");
    }
    if (value) {
        *ret = (uint64_t)json_integer_value(value);
    }
    return 0;
}

int body_digest(struct request *rq, const json_t *object, const char *name,
                uint8_t ret[SHA256_BYTES])
{
    const json_t *value = field(object, name);
    if (!value || !json_is_string(value) ||
        str_from_hex(str_from(json_string_value(value)), ret, SHA256_BYTES) < 0) {
        return wrong(rq, name, "64 hex digits");
    }
    return 0;
}

int body_object(struct request *rq, const json_t *object, const char *name, const json_t **ret)
{
    const json_t *value = field(object, name);
    if (value && !json_is_object(value)) {
        return wrong(rq, name, "an object");
    }
    *ret = value;
    return 0;
}

int body_array(struct request *rq, const json_t *object, const char *name, size_t max,
               const json_t **ret)
{
    const json_t *value = field(object, name);
    if (value && !json_is_array(value)) {
        return wrong(rq, name, "a list");
    }
    if (value && json_array_size(value) > max) {
        return request_fail(rq, -E_LIMIT, "field `%s` may hold %zu values", name, max);
    }
    *ret = value;
    return 0;
}
