#include "common/base.h"

#include "cli/action.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "cli/list.h"

static bool any_of_http(const struct action_options *o)
{
    return o->method != NULL || o->headers.count > 0 || o->body != NULL || o->expect != NULL ||
           o->expect_body != NULL || o->redirects > 0;
}

static int set_text(const struct cli *c, json_t *object, const char *field, const char *text)
{
    if (text == NULL) {
        return 0;
    }
    if (!str_is_utf8(str_from(text), NULL)) {
        return cli_fail(c, -E_USAGE, "%s is no UTF-8", field);
    }
    json_object_set_new(object, field, json_string(text));
    return 0;
}

/* NAME: VALUE */
static int add_header(const struct cli *c, json_t *headers, const char *text)
{
    struct str value = str_from(text);
    struct str name;
    if (str_chr(value, ':') <= 0 || !str_is_utf8(value, NULL)) {
        return cli_fail(c, -E_USAGE, "--header wants NAME: VALUE, not `%s`", text);
    }
    str_split(&value, ':', &name);
    value = str_trim(value);
    char *key = str_dup(str_trim(name));
    json_object_set_new(headers, key, json_stringn(value.p, value.n));
    free(key);
    return 0;
}

static int fill_http(const struct cli *c, const struct action_options *o, json_t *http)
{
    json_t *headers = json_object();
    int r = 0;
    json_object_set_new(http, "headers", headers);
    for (size_t i = 0; i < o->headers.count && r == 0; i++) {
        r = add_header(c, headers, o->headers.items[i]);
    }
    if (r < 0 || (r = set_text(c, http, "url", o->http)) < 0 ||
        (r = set_text(c, http, "method", o->method)) < 0 ||
        (r = set_text(c, http, "body", o->body)) < 0 ||
        (r = set_text(c, http, "expect_body", o->expect_body)) < 0) {
        return r;
    }
    if (o->expect != NULL) {
        json_object_set_new(http, "expect", list_words(o->expect));
    }
    if (o->redirects > 0) {
        json_object_set_new(http, "redirects", json_integer((json_int_t)o->redirects));
    }
    return 0;
}

/* HOST:PORT, [V6]:PORT */
static int fill_tcp(const struct cli *c, const struct action_options *o, json_t *tcp)
{
    struct str text = str_from(o->tcp);
    size_t colon = text.n;
    uint64_t port;
    while (colon > 0 && text.p[colon - 1] != ':') {
        colon--;
    }
    struct str host = colon > 1 ? str_sub(text, 0, colon - 1) : STR_NULL;
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
        host = str_sub(host, 1, host.n - 2);
    }
    if (host.n == 0 || str_to_u64(str_sub(text, colon, text.n), &port) < 0 || port == 0 ||
        port > 65535 || !str_is_utf8(text, NULL)) {
        return cli_fail(c, -E_USAGE, "--tcp wants HOST:PORT, not `%s`", o->tcp);
    }
    json_object_set_new(tcp, "host", json_stringn(host.p, host.n));
    json_object_set_new(tcp, "port", json_integer((json_int_t)port));
    return 0;
}

static int fill_prefork(const struct cli *c, const struct action_options *o, json_t *prefork)
{
    int r = set_text(c, prefork, "name", o->prefork);
    return r < 0 ? r : set_text(c, prefork, "input", o->input);
}

int action_from_options(const struct cli *c, const struct action_options *o, json_t **ret)
{
    int count = (o->http != NULL) + (o->tcp != NULL) + (o->wait != NULL) + (o->prefork != NULL);
    if (count > 1 || (o->http == NULL && any_of_http(o))) {
        return cli_fail(c, -E_USAGE,
                        count > 1 ? "one of --http, --tcp, --wait and --prefork"
                                  : "--method, --header, --body, --expect, --expect-body and "
                                    "--redirects are for --http");
    }
    if (o->input != NULL && o->prefork == NULL) {
        return cli_fail(c, -E_USAGE, "--input is for --prefork");
    }
    if (count == 0) {
        return 0;
    }
    json_t *action = json_object();
    json_t *what = json_object();
    int r = 0;
    if (o->wait != NULL) {
        r = set_text(c, action, "wait", o->wait);
        json_decref(what);
    } else {
        json_object_set_new(action,
                            o->http != NULL  ? "http"
                            : o->tcp != NULL ? "tcp"
                                             : "prefork",
                            what);
        r = o->http != NULL  ? fill_http(c, o, what)
            : o->tcp != NULL ? fill_tcp(c, o, what)
                             : fill_prefork(c, o, what);
    }
    if (r < 0) {
        json_decref(action);
        return r;
    }
    *ret = action;
    return 0;
}

void action_print(const json_t *result)
{
    const char *text = json_text(result, "text");
    const char *body = json_text(result, "body");
    uint64_t status = json_number(result, "status");
    if (!json_is_object(result)) {
        return;
    }
    printf("    action: %s", json_flag(result, "ok") ? "ok" : json_text(result, "code"));
    if (status != 0) {
        printf(", status %" PRIu64, status);
    }
    printf(", %" PRIu64 " us%s%s\n", json_number(result, "elapsed_us"), text[0] != '\0' ? ": " : "",
           text);
    if (body[0] != '\0') {
        printf("%s%s\n", body, json_flag(result, "cut") ? "..." : "");
    }
}
