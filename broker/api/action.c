#include "common/base.h"

#include "broker/api/action.h"
#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/view.h"
#include "common/limits.h"

#define DEFAULT_KEEP_BYTES 4096u
#define NAME_BYTES         60u

struct reader {
    struct request *rq;
    struct arena *arena;
};

static ProtobufCBinaryData bytes_of(const struct reader *in, const char *text)
{
    return pb_bytes(in->arena, str_from(text != NULL ? text : ""));
}

/* 200, "200" or "200-299" */
static int read_range(const struct reader *in, const json_t *item, Pb__StatusRange *ret)
{
    struct str rest = str_from(json_is_string(item) ? json_string_value(item) : "");
    struct str first;
    uint64_t from = 0, to = 0;
    bool good = true;

    if (json_is_integer(item)) {
        from = to = (uint64_t)json_integer_value(item);
    } else {
        good = str_split(&rest, '-', &first) && str_to_u64(str_trim(first), &from) == 0;
        to = from;
        good = good && (rest.p == NULL || rest.n == 0 || str_to_u64(str_trim(rest), &to) == 0);
    }
    if (!good || from < 100 || to > 999 || from > to) {
        return request_fail(in->rq, -E_INVALID,
                            "`%sexpect` holds statuses, like 204, and ranges, like \"200-299\"",
                            in->rq->where);
    }
    ret->from = (uint32_t)from;
    ret->to = (uint32_t)to;
    return 0;
}

static int read_expect(const struct reader *in, const json_t *object, Pb__HttpAction *h)
{
    const json_t *list;
    int r = body_array(in->rq, object, "expect", LIMIT_ACTION_RANGES, &list);

    if (r < 0 || list == NULL) {
        return r;
    }
    h->expect = arena_array(in->arena, json_array_size(list) + 1, sizeof(Pb__StatusRange *));
    for (size_t i = 0; i < json_array_size(list); i++) {
        Pb__StatusRange *range = arena_alloc(in->arena, sizeof(*range));
        pb__status_range__init(range);
        r = read_range(in, json_array_get(list, i), range);
        if (r < 0) {
            return r;
        }
        h->expect[h->n_expect++] = range;
    }
    return 0;
}

static int read_headers(const struct reader *in, const json_t *object, Pb__HttpAction *h)
{
    const json_t *headers;
    int r = body_object(in->rq, object, "headers", &headers);
    const char *name;
    json_t *value;

    if (r < 0 || headers == NULL) {
        return r;
    }
    if (json_object_size(headers) > LIMIT_ACTION_HEADERS) {
        return request_fail(in->rq, -E_LIMIT, "`%sheaders`: %u are allowed", in->rq->where,
                            LIMIT_ACTION_HEADERS);
    }
    h->headers = arena_array(in->arena, json_object_size(headers) + 1, sizeof(Pb__HttpHeader *));
    json_object_foreach((json_t *)(uintptr_t)headers, name, value)
    {
        Pb__HttpHeader *header = arena_alloc(in->arena, sizeof(*header));
        if (!json_is_string(value)) {
            return request_fail(in->rq, -E_INVALID, "`%sheaders.%.60s` must be a text",
                                in->rq->where, name);
        }
        pb__http_header__init(header);
        header->name = arena_strdup(in->arena, str_from(name));
        header->value = pb_bytes(in->arena,
                                 str_of(json_string_value(value), json_string_length(value)));
        h->headers[h->n_headers++] = header;
    }
    return 0;
}

static int read_http(const struct reader *in, const json_t *object, Pb__ActionSpec *spec)
{
    Pb__HttpAction *h = arena_alloc(in->arena, sizeof(*h));
    const char *method = "", *url = NULL, *body = NULL, *expect_body = NULL, *ca = NULL;
    int64_t redirects = 0, keep = DEFAULT_KEEP_BYTES;
    bool insecure = false;
    int r;

    pb__http_action__init(h);
    if ((r = body_fields(in->rq, object, "",
                         "url method headers body expect expect_body redirects ca insecure "
                         "timeout keep")) < 0 ||
        (r = body_text(in->rq, object, "url", LIMIT_URL, &url)) < 0 ||
        (r = body_text(in->rq, object, "method", LIMIT_NAME, &method)) < 0 ||
        (r = body_text(in->rq, object, "body", LIMIT_ACTION_BODY, &body)) < 0 ||
        (r = body_text(in->rq, object, "expect_body", LIMIT_EXPRESSION, &expect_body)) < 0 ||
        (r = body_text(in->rq, object, "ca", LIMIT_ACTION_CA, &ca)) < 0 ||
        (r = body_bool(in->rq, object, "insecure", &insecure)) < 0 ||
        (r = body_i64(in->rq, object, "redirects", 0, LIMIT_ACTION_REDIRECTS, &redirects)) < 0 ||
        (r = body_i64(in->rq, object, "keep", 0, LIMIT_ACTION_RESULT, &keep)) < 0 ||
        (r = body_duration(in->rq, object, "timeout", LIMIT_TIMEOUT_MS, &h->timeout_ms)) < 0 ||
        (r = read_headers(in, object, h)) < 0 || (r = read_expect(in, object, h)) < 0) {
        return r;
    }
    if (url == NULL || url[0] == '\0') {
        return request_fail(in->rq, -E_INVALID, "`%surl` is missing", in->rq->where);
    }
    h->method = arena_strdup(in->arena, str_from(method));
    h->url = bytes_of(in, url);
    h->body = bytes_of(in, body);
    h->expect_body = bytes_of(in, expect_body);
    h->ca = bytes_of(in, ca);
    h->insecure = insecure;
    h->redirects = (uint32_t)redirects;
    h->keep_bytes = (uint32_t)keep;
    spec->what_case = PB__ACTION_SPEC__WHAT_HTTP;
    spec->http = h;
    return 0;
}

static int read_tcp(const struct reader *in, const json_t *object, Pb__ActionSpec *spec)
{
    Pb__TcpAction *t = arena_alloc(in->arena, sizeof(*t));
    const char *host = NULL, *ca = NULL;
    int64_t port = 0;
    bool tls = false, insecure = false;
    int r;

    pb__tcp_action__init(t);
    if ((r = body_fields(in->rq, object, "", "host port tls ca insecure timeout")) < 0 ||
        (r = body_text(in->rq, object, "host", LIMIT_URL, &host)) < 0 ||
        (r = body_text(in->rq, object, "ca", LIMIT_ACTION_CA, &ca)) < 0 ||
        (r = body_i64(in->rq, object, "port", 1, 65535, &port)) < 0 ||
        (r = body_bool(in->rq, object, "tls", &tls)) < 0 ||
        (r = body_bool(in->rq, object, "insecure", &insecure)) < 0 ||
        (r = body_duration(in->rq, object, "timeout", LIMIT_TIMEOUT_MS, &t->timeout_ms)) < 0) {
        return r;
    }
    if (host == NULL || host[0] == '\0' || port == 0) {
        return request_fail(in->rq, -E_INVALID, "`%shost` or `%sport` is missing", in->rq->where,
                            in->rq->where);
    }
    t->host = bytes_of(in, host);
    t->ca = bytes_of(in, ca);
    t->port = (uint32_t)port;
    t->tls = tls;
    t->insecure = insecure;
    spec->what_case = PB__ACTION_SPEC__WHAT_TCP;
    spec->tcp = t;
    return 0;
}

static int read_wait(const struct reader *in, const json_t *action, Pb__ActionSpec *spec)
{
    Pb__WaitAction *w = arena_alloc(in->arena, sizeof(*w));
    int r;

    pb__wait_action__init(w);
    r = body_duration(in->rq, action, "wait", LIMIT_TIMEOUT_MS / 2, &w->ms);
    spec->what_case = PB__ACTION_SPEC__WHAT_WAIT;
    spec->wait = w;
    return r;
}

static int read_prefork(const struct reader *in, const json_t *object, Pb__ActionSpec *spec)
{
    Pb__PreforkAction *p = arena_alloc(in->arena, sizeof(*p));
    const char *name = NULL, *input = NULL;
    int64_t keep = DEFAULT_KEEP_BYTES;
    int r;

    pb__prefork_action__init(p);
    if ((r = body_fields(in->rq, object, "", "name input keep")) < 0 ||
        (r = body_text(in->rq, object, "name", LIMIT_PREFORK_NAME, &name)) < 0 ||
        (r = body_text(in->rq, object, "input", LIMIT_ACTION_BODY, &input)) < 0 ||
        (r = body_i64(in->rq, object, "keep", 0, LIMIT_ACTION_RESULT, &keep)) < 0) {
        return r;
    }
    if (name == NULL || name[0] == '\0') {
        return request_fail(in->rq, -E_INVALID, "`%sname` is missing", in->rq->where);
    }
    p->name = arena_strdup(in->arena, str_from(name));
    p->input = bytes_of(in, input);
    p->keep_bytes = (uint32_t)keep;
    spec->what_case = PB__ACTION_SPEC__WHAT_PREFORK;
    spec->prefork = p;
    return 0;
}

int action_read(struct request *rq, const json_t *job, size_t index, struct arena *arena,
                Pb__ActionSpec **ret)
{
    const struct reader in = {.rq = rq, .arena = arena};
    const json_t *action, *http, *tcp, *prefork;
    Pb__ActionSpec *spec;
    int r = body_object(rq, job, "action", &action);

    if (r < 0 || action == NULL) {
        return r;
    }
    spec = arena_alloc(arena, sizeof(*spec));
    pb__action_spec__init(spec);
    body_at(rq, "jobs[%zu].action.", index);
    if ((r = body_fields(rq, action, "", "http tcp wait prefork")) < 0 ||
        (r = body_object(rq, action, "http", &http)) < 0 ||
        (r = body_object(rq, action, "tcp", &tcp)) < 0 ||
        (r = body_object(rq, action, "prefork", &prefork)) < 0) {
        return r;
    }
    if ((http != NULL) + (tcp != NULL) + (prefork != NULL) +
            (json_object_get(action, "wait") != NULL) !=
        1) {
        return request_fail(rq, -E_INVALID,
                            "`jobs[%zu].action` is one of `http`, `tcp`, `prefork` and `wait`",
                            index);
    }
    body_at(rq, "jobs[%zu].action.%s", index,
            http != NULL      ? "http."
            : tcp != NULL     ? "tcp."
            : prefork != NULL ? "prefork."
                              : "");
    r = http != NULL      ? read_http(&in, http, spec)
        : tcp != NULL     ? read_tcp(&in, tcp, spec)
        : prefork != NULL ? read_prefork(&in, prefork, spec)
                          : read_wait(&in, action, spec);
    body_at(rq, "jobs[%zu].", index);
    if (r == 0) {
        *ret = spec;
    }
    return r;
}

/* Without what a name may not hold, and in whole characters. */
static char *clean(struct arena *arena, const char *text)
{
    struct str all = str_from(text);
    size_t n = 0;

    while (n < all.n && n < NAME_BYTES && (unsigned char)all.p[n] >= ' ' && all.p[n] != 0x7f) {
        n += str_char_length(str_sub(all, n, all.n));
    }
    return arena_strdup(arena, str_sub(all, 0, n));
}

char *action_name(struct arena *arena, const Pb__ActionSpec *spec)
{
    const struct str url = spec->what_case == PB__ACTION_SPEC__WHAT_HTTP ? pb_str(spec->http->url)
                                                                         : STR_NULL;

    switch ((int)spec->what_case) {
    case PB__ACTION_SPEC__WHAT_HTTP:
        return clean(arena, arena_printf(arena, "%s " STR_FMT,
                                         spec->http->method[0] != '\0' ? spec->http->method
                                         : spec->http->body.len > 0    ? "POST"
                                                                       : "GET",
                                         STR_ARG(url)));
    case PB__ACTION_SPEC__WHAT_TCP:
        return clean(arena, arena_printf(arena, "tcp " STR_FMT ":%u",
                                         STR_ARG(pb_str(spec->tcp->host)), spec->tcp->port));
    case PB__ACTION_SPEC__WHAT_PREFORK:
        return clean(arena, arena_printf(arena, "prefork %s", spec->prefork->name));
    default:
        return arena_printf(arena, "wait %" PRIu64 " ms", spec->wait->ms);
    }
}

json_t *action_view(const Pb__ActionResult *result)
{
    if (result == NULL) {
        return json_null();
    }
    return json_pack("{s:b, s:s, s:s, s:o, s:o, s:o, s:b}", "ok", (int)result->ok, "code",
                     result->code, "text", result->text, "status",
                     result->status != 0 ? json_integer((json_int_t)result->status) : json_null(),
                     "elapsed_us", json_integer((json_int_t)result->elapsed_us), "body",
                     json_bytes(result->body), "cut", (int)result->cut);
}
