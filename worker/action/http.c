/* HTTP requests and TCP connects. */
#include "common/base.h"

#include "worker/action/state.h"

#include "common/limits.h"
#include "common/regex.h"

#define LOOKED_AT (64u * KIB) /* of an answer, for expect_body: all of them may be in memory */

static bool is_expected(const Pb__HttpAction *what, int status)
{
    for (size_t i = 0; i < what->n_expect; i++) {
        const Pb__StatusRange *range = what->expect[i];
        if (status >= (int)range->from && status <= (int)range->to) {
            return true;
        }
    }
    return what->n_expect == 0 && status >= 200 && status <= 299;
}

/* True: it holds what it should, or the action has ended for it. */
static bool body_fits(struct action *a, struct str literal, struct str body)
{
    struct str pattern = literal;
    struct str flags = STR("");
    struct regex *re;
    const char *reason;
    size_t at;
    bool found = false;
    (void)regex_split_literal(literal, &pattern, &flags);
    if (regex_compile(&a->arena, pattern, flags, &re, &reason, &at) < 0) {
        action_end_bad(a, REASON_CONFIG_ERROR, "invalid", "expect_body: %s", reason);
        return true;
    }
    if (regex_search(re, body, &found) < 0) {
        action_end_bad(a, REASON_SCRIPT_FAILURE, "body", "expect_body takes too long to match");
        return true;
    }
    return found;
}

static void on_answer(void *ctx, const struct http_call_end *end)
{
    struct action *a = ctx;
    const Pb__HttpAction *what = a->spec->action->http;
    struct str keep = str_sub(end->body, 0, MIN(what->keep_bytes, LIMIT_ACTION_RESULT));
    struct str pattern = STR_NULL;
    a->http = NULL;
    if (end->error < 0) {
        action_end_error(a, end->error, end->why);
        return;
    }
    a->result.status = (uint32_t)end->status;
    a->result.body = pb_bytes(&a->arena, keep);
    a->result.cut = end->cut || keep.n < end->body.n;
    if (!is_expected(what, end->status)) {
        action_end_bad(a, REASON_SCRIPT_FAILURE, "status", "the answer's status is %d",
                       end->status);
    } else if (what->expect_body.len > 0 &&
               (!action_expand(a, what->expect_body, LIMIT_EXPRESSION, &pattern) ||
                !body_fits(a, pattern, end->body))) {
        action_end_bad(a, REASON_SCRIPT_FAILURE, "body",
                       "the answer does not hold what is expected");
    } else {
        action_end_ok(a);
    }
}

static bool add_headers(struct action *a, const Pb__HttpAction *what)
{
    for (size_t i = 0; i < what->n_headers; i++) {
        const Pb__HttpHeader *h = what->headers[i];
        struct str value;
        if (!action_expand(a, h->value, LIMIT_ACTION_BODY, &value)) {
            return false;
        }
        if (http_call_header(a->http, h->name, value.p) < 0) {
            action_end_bad(a, REASON_CONFIG_ERROR, "invalid",
                           "header %s: a line break or control character", h->name);
            return false;
        }
    }
    return true;
}

static bool is_url(struct str url)
{
    return str_starts(url, STR("http://")) || str_starts(url, STR("https://"));
}

void action_http(struct action *a, const Pb__HttpAction *what)
{
    struct str url, body, ca;
    if (!action_expand(a, what->url, LIMIT_URL, &url) ||
        !action_expand(a, what->body, LIMIT_ACTION_BODY, &body) ||
        !action_expand(a, what->ca, LIMIT_ACTION_CA, &ca)) {
        return;
    }
    if (!is_url(url)) {
        action_end_bad(a, REASON_CONFIG_ERROR, "invalid", "the URL is not of http or https: %.200s",
                       url.p);
        return;
    }
    bool has_body = what->body.len > 0;
    struct http_call_request request = {
        .method = what->method[0] != '\0' ? what->method
                  : has_body              ? "POST"
                                          : "GET",
        .url = url.p,
        .body = body,
        .has_body = has_body,
        .redirects = what->redirects,
        .ca = ca,
        .any_server = what->insecure,
        .timeout_ms = what->timeout_ms > 0 ? what->timeout_ms : ACTION_HTTP_MS,
        .keep = what->expect_body.len > 0 ? LOOKED_AT : MIN(what->keep_bytes, LIMIT_ACTION_RESULT),
        .limit = LIMIT_ACTION_ANSWER,
    };
    a->http = http_call_new(a->all->http, &request, on_answer, a);
    if (add_headers(a, what)) {
        http_call_begin(a->http);
    }
}

static void on_connected(void *ctx, const struct http_call_end *end)
{
    struct action *a = ctx;
    a->http = NULL;
    if (end->error < 0) {
        action_end_error(a, end->error, end->why);
    } else {
        action_end_ok(a);
    }
}

/* What is between the slashes of a URL: nothing that ends it. */
static bool is_host(struct str host)
{
    static const char extra[] = "-._:%";
    for (size_t i = 0; i < host.n; i++) {
        unsigned char c = (unsigned char)host.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c < 0x80 && strchr(extra, c) == NULL) {
            return false;
        }
    }
    return host.n > 0 && host.n <= LIMIT_NAME;
}

void action_tcp(struct action *a, const Pb__TcpAction *what)
{
    struct str host, ca;
    if (!action_expand(a, what->host, LIMIT_URL, &host) ||
        !action_expand(a, what->ca, LIMIT_ACTION_CA, &ca)) {
        return;
    }
    if (!is_host(host) || what->port == 0 || what->port > 65535) {
        action_end_bad(a, REASON_CONFIG_ERROR, "invalid", "no host and port: %.200s", host.p);
        return;
    }
    bool v6 = str_chr(host, ':') >= 0;
    struct http_call_request request = {
        .method = "GET",
        .url = arena_printf(&a->arena, "%s://%s%s%s:%u/", what->tls ? "https" : "http",
                            v6 ? "[" : "", host.p, v6 ? "]" : "", what->port),
        .ca = ca,
        .any_server = what->insecure,
        .connect_only = true,
        .timeout_ms = what->timeout_ms > 0 ? what->timeout_ms : ACTION_TCP_MS,
    };
    a->http = http_call_new(a->all->http, &request, on_connected, a);
    http_call_begin(a->http);
}
