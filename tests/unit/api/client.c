/* The fixture's two clients. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static size_t take(char *p, size_t size, size_t n, void *ctx)
{
    buf_add(ctx, p, size * n);
    return size * n;
}

void answer_release(struct answer *a)
{
    buf_release(&a->head);
    buf_release(&a->body);
    json_decref(a->json);
    *a = (struct answer){0};
}

static struct curl_slist *header_list(const struct call *c)
{
    struct curl_slist *list = NULL;
    struct buf auth = BUF_INIT;
    const char *token = c->token ? c->token : ADMIN_TOKEN;
    if (token[0] != '\0') {
        buf_addf(&auth, "Authorization: Bearer %s", token);
        list = curl_slist_append(list, buf_cstr(&auth));
    }
    buf_release(&auth);
    list = curl_slist_append(list, "Expect:");
    for (size_t i = 0; i < ARRAY_LEN(c->headers) && c->headers[i]; i++) {
        list = curl_slist_append(list, c->headers[i]);
    }
    return list;
}

void call(struct fixture *x, const struct call *c, struct answer *ret)
{
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = header_list(c);
    struct buf url = BUF_INIT;
    long status;
    *ret = (struct answer){0};
    buf_addf(&url, "http://127.0.0.1:%u%s", api_port(x->api), c->path);
    curl_easy_setopt(curl, CURLOPT_URL, buf_cstr(&url));
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &ret->body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &ret->head);
    if (c->body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE,
                         (long)(c->body_size > 0 ? c->body_size : strlen(c->body)));
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, c->body);
    }
    if (c->method && strcmp(c->method, "HEAD") == 0) {
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    } else if (c->method) {
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, c->method);
    }
    CURLcode code = curl_easy_perform(curl);
    if (code != CURLE_OK) {
        fail_msg("%s: %s", c->path, curl_easy_strerror(code));
    }
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    ret->status = (int)status;
    ret->json = json_loadb(ret->body.p ? ret->body.p : "", ret->body.n, 0, NULL);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    buf_release(&url);
}

static json_t *json_of(struct fixture *x, int status, const struct call *c)
{
    struct answer a;
    call(x, c, &a);
    if (a.status != status) {
        fail_msg("%s: status %d, not %d: %s", c->path, a.status, status, buf_cstr(&a.body));
    }
    assert_non_null(a.json);
    json_t *json = json_incref(a.json);
    answer_release(&a);
    return json;
}

json_t *get_json(struct fixture *x, int status, const char *fmt, ...)
{
    struct buf path = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&path, fmt, ap);
    va_end(ap);
    json_t *json = json_of(x, status, &(struct call){.path = buf_cstr(&path)});
    buf_release(&path);
    return json;
}

json_t *post_json(struct fixture *x, int status, const char *body, const char *fmt, ...)
{
    struct buf path = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&path, fmt, ap);
    va_end(ap);
    json_t *json = json_of(x, status, &(struct call){.path = buf_cstr(&path), .body = body});
    buf_release(&path);
    return json;
}

void assert_problem(struct fixture *x, const struct call *c, int status, const char *code)
{
    json_t *problem = json_of(x, status, c);
    assert_string_equal(text_of(problem, "code"), code);
    assert_int_equal(id_of(problem, "status"), status);
    assert_string_not_equal(text_of(problem, "detail"), "");
    json_decref(problem);
}

const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

uint64_t id_of(const json_t *object, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* --- a bare socket --- */

void plug_open(struct plug *w, struct fixture *x)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(api_port(x->api)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *w = (struct plug){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_true(w->fd >= 0);
    assert_int_equal(connect(w->fd, (struct sockaddr *)&to, sizeof(to)), 0);
}

void plug_close(struct plug *w)
{
    close(w->fd);
    buf_release(&w->in);
}

/* What the server does not want any more is no failure: its answer tells. */
void plug_send(struct plug *w, const void *p, size_t n)
{
    const char *at = p;
    while (n > 0) {
        ssize_t sent = send(w->fd, at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            return;
        }
        at += MAX(sent, 0);
        n -= (size_t)MAX(sent, 0);
    }
}

void plug_sendf(struct plug *w, const char *fmt, ...)
{
    struct buf text = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&text, fmt, ap);
    va_end(ap);
    plug_send(w, text.p, text.n);
    buf_release(&text);
}

/* False: the end, or time is over (*ret_end tells which). */
static bool read_some(struct plug *w, uint64_t until_ms, bool *ret_end)
{
    char bytes[16384];
    uint64_t now_ms = os_monotonic_ms();
    struct pollfd p = {.fd = w->fd, .events = POLLIN};
    *ret_end = false;
    if (poll(&p, 1, now_ms < until_ms ? (int)(until_ms - now_ms) : 0) <= 0) {
        return false;
    }
    ssize_t n = recv(w->fd, bytes, sizeof(bytes), 0);
    if (n <= 0) {
        *ret_end = true;
        return false;
    }
    buf_add(&w->in, bytes, (size_t)n);
    return true;
}

bool plug_until(struct plug *w, const char *text, uint64_t wait_ms)
{
    uint64_t until_ms = os_monotonic_ms() + wait_ms;
    bool end;
    while (str_find(buf_str(&w->in), str_from(text)) < 0) {
        if (!read_some(w, until_ms, &end)) {
            return false;
        }
    }
    return true;
}

bool plug_closed(struct plug *w, uint64_t wait_ms)
{
    uint64_t until_ms = os_monotonic_ms() + wait_ms;
    bool end;
    while (read_some(w, until_ms, &end)) {
    }
    return end;
}

int plug_status(struct plug *w)
{
    int status = 0;
    plug_until(w, "\r\n\r\n", 5000);
    if (w->in.n > 12 && str_starts(buf_str(&w->in), STR("HTTP/1.1 "))) {
        status = (int)strtol(w->in.p + 9, NULL, 10);
    }
    return status;
}
