#include "common/base.h"

#include "worker/engine/engine.h"

#include <stdlib.h>

#include "common/http.h"
#include "common/limits.h"
#include "worker/engine/image_name.h"

/* Of the API's versions 1.N: what we were written against; the oldest with all that we use. */
#define VERSION_KNOWN  44u
#define VERSION_OLDEST 40u
#define PULL_IDLE_S    (10u * 60) /* it may unpack a layer for minutes without a word */
#define CONNECT_MS     5000u
#define START_S        120u

static int result_of(int status)
{
    switch (status) {
    case 400:
        return -E_INVALID;
    case 404:
        return -E_NOT_FOUND;
    case 409:
        return -E_CONFLICT;
    default:
        return status >= 200 && status < 400 ? 0 : -E_FAILED;
    }
}

static int perform(const struct engine *e, struct http_request *req, struct buf *out,
                   struct buf *why)
{
    int status = 0;
    struct buf answer = BUF_INIT;
    req->unix_socket = e->socket;
    req->connect_timeout_ms = CONNECT_MS;
    int r = http_do(req, &status, &answer, why);
    if (r == 0) {
        r = result_of(status);
        if (r < 0) {
            answer_error(buf_str(&answer), why);
        } else if (out != NULL) {
            buf_add_str(out, buf_str(&answer));
        }
    } else if (r != -E_TIMEOUT && r != -E_TOO_BIG) {
        r = -E_UNREACHABLE;
    }
    buf_release(&answer);
    return r;
}

static void add_url(const struct engine *e, const char *path, struct buf *url)
{
    buf_addf(url, "http://docker/v1.%u%s", e->version, path);
}

int engine_call(const struct engine *e, const char *method, const char *path, json_t *body,
                uint32_t wait_s, struct buf *out, struct buf *why)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf url = BUF_INIT;
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    add_url(e, path, &url);
    req.method = method;
    req.url = url.p;
    req.body = str_from(text);
    req.out_limit = LIMIT_ENGINE_ANSWER;
    req.idle_timeout_ms = wait_s * 1000u;
    int r = perform(e, &req, out, why);
    free(text);
    json_decref(body);
    buf_release(&url);
    return r;
}

int engine_open(struct engine *e, const char *socket, struct arena *arena, struct buf *why)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf answer = BUF_INIT;
    unsigned newest = 0;
    unsigned oldest = 0;
    *e = (struct engine){.socket = socket, .arena = arena};
    req.url = "http://docker/version";
    req.out_limit = LIMIT_ENGINE_ANSWER;
    req.idle_timeout_ms = 10000;
    int r = perform(e, &req, &answer, why);
    if (r < 0) {
        return r;
    }
    r = answer_version(buf_str(&answer), &newest, &oldest);
    buf_release(&answer);
    if (r < 0) {
        buf_addf(why, "what answers at %s is no Docker Engine", socket);
        return r;
    }
    if (newest < VERSION_OLDEST) {
        buf_addf(why, "the Engine at %s is too old: it speaks 1.%u, needed is 1.%u", socket, newest,
                 VERSION_OLDEST);
        return -E_UNSUPPORTED;
    }
    e->version = MAX(MIN(newest, VERSION_KNOWN), oldest);
    return 0;
}

static void add_escaped(struct str text, struct buf *out)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-_.~", c) != NULL;
        if (plain) {
            buf_add_char(out, (char)c);
        } else {
            buf_addf(out, "%%%02X", c);
        }
    }
}

static int not_understood(int r, const char *what, struct buf *why)
{
    if (r == -E_PROTOCOL) {
        buf_addf(why, "the Engine's answer is not understood (%s)", what);
    }
    return r;
}

int engine_image(const struct engine *e, const char *name, struct answer_image *ret,
                 struct buf *why)
{
    struct buf answer = BUF_INIT;
    char *path = arena_printf(e->arena, "/images/%s/json", name);
    int r = engine_call(e, "GET", path, NULL, ENGINE_WAIT_S, &answer, why);
    if (r == 0) {
        r = not_understood(answer_image(buf_str(&answer), e->arena, ret), "image", why);
    }
    buf_release(&answer);
    return r;
}

static int take_pull(void *ctx, const void *p, size_t n)
{
    answer_pull_add(ctx, str_of(p, n));
    return 0;
}

/* A tag must be said: without one the Engine pulls all of them. */
static void add_pull_url(const struct engine *e, const char *name, const char *platform,
                         struct buf *url)
{
    struct image_name parts;
    add_url(e, "/images/create?fromImage=", url);
    check(image_name_parse(str_from(name), &parts) == 0);
    add_escaped(parts.path, url);
    if (parts.digest.n > 0) {
        buf_addz(url, "@");
        add_escaped(parts.digest, url);
    } else {
        buf_addz(url, "&tag=");
        add_escaped(parts.tag, url);
    }
    if (platform[0] != '\0') {
        buf_addz(url, "&platform=");
        add_escaped(str_from(platform), url);
    }
}

int engine_pull(const struct engine *e, const char *name, const char *platform, const char *auth,
                struct buf *ret_status, struct buf *why)
{
    struct http_request req = HTTP_REQUEST_INIT;
    const char *headers[] = {"X-Registry-Auth", auth, NULL};
    struct answer_pull pull;
    struct buf url = BUF_INIT;
    add_pull_url(e, name, platform, &url);
    answer_pull_init(&pull);
    req.method = "POST";
    req.url = url.p;
    req.headers = auth[0] != '\0' ? headers : NULL;
    req.out_limit = LIMIT_ENGINE_PULL;
    req.take = take_pull;
    req.take_ctx = &pull;
    req.idle_timeout_ms = PULL_IDLE_S * 1000u;
    int r = perform(e, &req, NULL, why);
    answer_pull_end(&pull);
    if (r == 0 && pull.error.n > 0) {
        buf_add_str(why, buf_str(&pull.error));
        r = -E_FAILED;
    }
    if (r == 0) {
        buf_add_str(ret_status, buf_str(&pull.status));
    }
    answer_pull_release(&pull);
    buf_release(&url);
    return r;
}

static int call_for_id(const struct engine *e, const char *path, json_t *body, const char **ret_id,
                       struct buf *why)
{
    struct buf answer = BUF_INIT;
    int r = engine_call(e, "POST", path, body, ENGINE_WAIT_S, &answer, why);
    if (r == 0) {
        r = not_understood(answer_id(buf_str(&answer), e->arena, ret_id), "id", why);
    }
    buf_release(&answer);
    return r;
}

int engine_create(const struct engine *e, const char *name, const char *platform, json_t *body,
                  const char **ret_id, struct buf *why)
{
    struct buf path = BUF_INIT;
    buf_addz(&path, "/containers/create?name=");
    add_escaped(str_from(name), &path);
    if (platform[0] != '\0') {
        buf_addz(&path, "&platform=");
        add_escaped(str_from(platform), &path);
    }
    int r = call_for_id(e, path.p, body, ret_id, why);
    buf_release(&path);
    return r;
}

int engine_create_network(const struct engine *e, const char *name, json_t *labels,
                          const char **ret_id, struct buf *why)
{
    json_t *body = json_pack("{s:s, s:b, s:s, s:o}", "Name", name, "CheckDuplicate", 1, "Driver",
                             "bridge", "Labels", labels);
    check(body != NULL);
    return call_for_id(e, "/networks/create", body, ret_id, why);
}

int engine_start(const struct engine *e, const char *container, struct buf *why)
{
    char *path = arena_printf(e->arena, "/containers/%s/start", container);
    return engine_call(e, "POST", path, NULL, START_S, NULL, why);
}

int engine_inspect(const struct engine *e, const char *container, struct answer_container *ret,
                   struct buf *why)
{
    struct buf answer = BUF_INIT;
    char *path = arena_printf(e->arena, "/containers/%s/json", container);
    int r = engine_call(e, "GET", path, NULL, ENGINE_WAIT_S, &answer, why);
    if (r == 0) {
        r = not_understood(answer_container(buf_str(&answer), e->arena, ret), "container", why);
    }
    buf_release(&answer);
    return r;
}

int engine_wait(const struct engine *e, const char *container, uint32_t wait_s, struct buf *why)
{
    char *path = arena_printf(e->arena, "/containers/%s/wait?condition=not-running", container);
    return engine_call(e, "POST", path, NULL, wait_s, NULL, why);
}

struct logs {
    struct answer_logs frames;
    struct buf *out;
};

static int take_logs(void *ctx, const void *p, size_t n)
{
    struct logs *logs = ctx;
    answer_logs_add(&logs->frames, str_of(p, n), logs->out);
    return 0;
}

int engine_logs(const struct engine *e, const char *container, unsigned lines, struct buf *out,
                struct buf *why)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct logs logs = {.out = out};
    struct buf url = BUF_INIT;
    char *path = arena_printf(e->arena, "/containers/%s/logs?stdout=1&stderr=1&tail=%u", container,
                              lines);
    add_url(e, path, &url);
    req.url = url.p;
    req.out_limit = LIMIT_ENGINE_ANSWER;
    req.take = take_logs;
    req.take_ctx = &logs;
    req.idle_timeout_ms = ENGINE_WAIT_S * 1000u;
    int r = perform(e, &req, NULL, why);
    buf_release(&url);
    return r;
}

static const struct {
    const char *list;
    const char *remove;
} kinds[] = {
    [ENGINE_CONTAINERS] = {"/containers/json?all=1&filters=", "/containers/%s?force=1&v=1"},
    [ENGINE_NETWORKS] = {"/networks?filters=", "/networks/%s"},
};

int engine_list(const struct engine *e, enum engine_kind kind, const char *worker, const char *job,
                struct answer_item **ret, size_t *ret_count, struct buf *why)
{
    struct buf path = BUF_INIT;
    struct buf answer = BUF_INIT;
    json_t *labels = json_array();
    json_array_append_new(labels, json_sprintf("%s=%s", ENGINE_LABEL_WORKER, worker));
    if (job != NULL) {
        json_array_append_new(labels, json_sprintf("%s=%s", ENGINE_LABEL_JOB, job));
    }
    json_t *filters = json_pack("{s:o}", "label", labels);
    char *text = json_dumps(filters, JSON_COMPACT);
    buf_addz(&path, kinds[kind].list);
    add_escaped(str_from(text), &path);
    int r = engine_call(e, "GET", path.p, NULL, ENGINE_WAIT_S, &answer, why);
    if (r == 0) {
        r = not_understood(answer_list(buf_str(&answer), e->arena, ret, ret_count), "list", why);
    }
    free(text);
    json_decref(filters);
    buf_release(&path);
    buf_release(&answer);
    return r;
}

int engine_remove(const struct engine *e, enum engine_kind kind, const char *id, struct buf *why)
{
    struct buf path = BUF_INIT;
    const char *format = kinds[kind].remove;
    const char *place = strstr(format, "%s");
    buf_add(&path, format, (size_t)(place - format));
    buf_addz(&path, id);
    buf_addz(&path, place + 2);
    int r = engine_call(e, "DELETE", path.p, NULL, ENGINE_WAIT_S, NULL, why);
    buf_release(&path);
    /* A conflict: it is being removed already. */
    return r == -E_NOT_FOUND || (r == -E_CONFLICT && kind == ENGINE_CONTAINERS) ? 0 : r;
}
