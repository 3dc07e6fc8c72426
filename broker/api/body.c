#include "common/base.h"

#include "broker/api/body.h"

#include <stdio.h>

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

void body_at(struct request *rq, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(rq->where, sizeof(rq->where), fmt, ap);
    va_end(ap);
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
            return request_fail(rq, -E_INVALID, "unknown field `%s%s%.64s`", rq->where, where,
                                name);
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
    return request_fail(rq, -E_INVALID, "field `%s%s` must be %s", rq->where, name, what);
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
        return request_fail(rq, -E_LIMIT, "field `%s%s` may have %zu bytes", rq->where, name, max);
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

bool body_is_name(const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) {
            return false;
        }
    }
    return text[0] != '\0';
}

int body_i64(struct request *rq, const json_t *object, const char *name, int64_t min, int64_t max,
             int64_t *ret)
{
    const json_t *value = field(object, name);
    if (value && (!json_is_integer(value) || json_integer_value(value) < min ||
                  json_integer_value(value) > max)) {
        return request_fail(rq, -E_INVALID,
                            "field `%s%s` must be a whole number from %" PRId64 " to %" PRId64,
                            rq->where, name, min, max);
    }
    if (value) {
        *ret = json_integer_value(value);
    }
    return 0;
}

int body_name(struct request *rq, const json_t *object, const char *name, const char **ret)
{
    const char *text = NULL;
    int r = body_text(rq, object, name, LIMIT_NAME, &text);
    if (r < 0 || !text) {
        return r;
    }
    if (!body_is_name(text)) {
        return wrong(rq, name, "a name: not empty, and without control characters");
    }
    *ret = text;
    return 0;
}

int body_duration(struct request *rq, const json_t *object, const char *name, uint64_t max_ms,
                  uint64_t *ret_ms)
{
    const json_t *value = field(object, name);
    uint64_t ms = 0;
    if (!value) {
        return 0;
    }
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        ms = (uint64_t)MIN(json_integer_value(value), INT64_MAX / 1000) * 1000;
    } else if (!json_is_string(value) ||
               str_to_duration_ms(str_from(json_string_value(value)), &ms) < 0) {
        return wrong(rq, name, "a time like \"1h 30m\", or a number of seconds");
    }
    if (ms > max_ms) {
        return request_fail(rq, -E_LIMIT, "field `%s%s` may be %" PRIu64 " seconds", rq->where,
                            name, max_ms / 1000);
    }
    *ret_ms = ms;
    return 0;
}

int body_cpu(struct request *rq, const json_t *object, const char *name, uint32_t *ret_millis)
{
    const json_t *value = field(object, name);
    double millis = json_is_number(value) ? json_number_value(value) * 1000 : -1;
    if (!value) {
        return 0;
    }
    if (json_is_number(value) && millis >= 0 && millis < UINT32_MAX) {
        *ret_millis = (uint32_t)(millis + 0.5);
        return 0;
    }
    if (json_is_string(value) &&
        str_to_cpu_millis(str_from(json_string_value(value)), ret_millis) == 0) {
        return 0;
    }
    return wrong(rq, name, "a number of processors, or thousandths of them like \"500m\"");
}

int body_size(struct request *rq, const json_t *object, const char *name, uint64_t *ret_bytes)
{
    const json_t *value = field(object, name);
    if (!value) {
        return 0;
    }
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *ret_bytes = (uint64_t)json_integer_value(value);
        return 0;
    }
    if (json_is_string(value) && str_to_size(str_from(json_string_value(value)), ret_bytes) == 0) {
        return 0;
    }
    return wrong(rq, name, "a number of bytes, or a text like \"512Mi\"");
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
        return request_fail(rq, -E_LIMIT, "field `%s%s` may hold %zu values", rq->where, name, max);
    }
    *ret = value;
    return 0;
}
