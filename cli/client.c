#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "common/str.h"

#define SEND_TRIES       5
#define SEND_PAUSE_MS    200u
#define LIMIT_TOKEN_FILE 4096u

static char *home_path(const char *xdg, const char *below_home)
{
    const char *base = getenv(xdg);
    if (base != NULL && base[0] == '/') {
        return os_path_join(base, "davit");
    }
    const char *home = getenv("HOME");
    char *dir = os_path_join(home != NULL ? home : "/", below_home);
    char *path = os_path_join(dir, "davit");
    free(dir);
    return path;
}

char *client_data_dir(const struct cli *c)
{
    const char *env = getenv("DAVIT_DATA");
    if (c->data != NULL || env != NULL) {
        return xstrdup(c->data != NULL ? c->data : env);
    }
    return home_path("XDG_STATE_HOME", ".local/state");
}

/* A text file's content without blanks around it, heap; NULL: it cannot be read. */
static char *read_trimmed(const char *path)
{
    struct buf b = BUF_INIT;
    char *text = NULL;
    if (os_read_file(path, LIMIT_TOKEN_FILE, &b) == 0) {
        text = str_dup(str_trim(buf_str(&b)));
    }
    buf_release(&b);
    return text;
}

static char *trim_slash(const char *url)
{
    struct str s = str_from(url);
    while (s.n > 0 && s.p[s.n - 1] == '/') {
        s.n--;
    }
    return str_dup(s);
}

static void trust(const struct client *cl, const char *path)
{
    if (path != NULL && path[0] != '\0' && str_starts(str_from(cl->url), STR("https://"))) {
        http_trust(cl->url, path);
    }
}

int client_open_data(const char *data, struct client *ret)
{
    char *endpoints = os_path_join(data, "endpoints.json");
    char *token_path = os_path_join(data, "admin.token");
    char *token = read_trimmed(token_path);
    json_t *o = json_load_file(endpoints, 0, NULL);
    int r = -E_NOT_FOUND;
    if (token != NULL && json_text(o, "http")[0] != 0) {
        *ret = (struct client){.url = trim_slash(json_text(o, "http")), .token = token};
        token = NULL;
        r = 0;
        char *ca_path = os_path_join(data, "tls/ca.pem");
        if (str_starts(str_from(ret->url), STR("https://"))) {
            http_trust_broker(ret->url, ca_path);
        }
        free(ca_path);
    }
    json_decref(o);
    free(token);
    free(token_path);
    free(endpoints);
    return r;
}

static char *find_token(const struct cli *c, const json_t *config)
{
    if (c->token_file != NULL) {
        return read_trimmed(c->token_file);
    }
    const char *env = getenv("DAVIT_TOKEN");
    return xstrdup(env != NULL ? env : json_text(config, "token"));
}

char *client_cache_dir(void)
{
    return home_path("XDG_CACHE_HOME", ".cache");
}

json_t *client_config(void)
{
    char *dir = home_path("XDG_CONFIG_HOME", ".config");
    char *path = os_path_join(dir, "config.json");
    json_t *config = json_load_file(path, 0, NULL);
    free(path);
    free(dir);
    return config;
}

int client_take_token(struct cli *c, struct client *cl)
{
    const char *env = getenv("DAVIT_TOKEN");
    char *token = c->token_file != NULL ? read_trimmed(c->token_file) : xstrdup(env ? env : "");
    if (token == NULL) {
        client_release(cl);
        return cli_fail(c, -E_NOT_FOUND, "cannot read the token file %s", c->token_file);
    }
    if (token[0] != '\0') {
        free(cl->token);
        cl->token = token;
    } else {
        free(token);
    }
    return 0;
}

int client_open(struct cli *c, struct client *ret)
{
    json_t *config = client_config();
    const char *url = c->url != NULL ? c->url : getenv("DAVIT_URL");
    int r = 0;
    if (url == NULL && c->data == NULL) {
        url = json_text(config, "url")[0] != 0 ? json_text(config, "url") : NULL;
    }
    if (url != NULL) {
        char *token = find_token(c, config);
        if (token == NULL) {
            r = cli_fail(c, -E_NOT_FOUND, "cannot read the token file %s", c->token_file);
        } else {
            const char *ca = c->ca_file != NULL ? c->ca_file : getenv("DAVIT_CA_FILE");
            *ret = (struct client){.url = trim_slash(url), .token = token};
            trust(ret, ca != NULL ? ca : json_text(config, "ca_file"));
        }
    } else {
        char *data = client_data_dir(c);
        r = client_open_data(data, ret) < 0
                ? cli_fail(c, -E_UNREACHABLE,
                           "no broker: none runs in %s; start one with `davit up`, or give --url "
                           "and --token-file",
                           data)
                : client_take_token(c, ret);
        free(data);
    }
    json_decref(config);
    return r;
}

void client_release(struct client *cl)
{
    free(cl->url);
    free(cl->token);
    *cl = (struct client){0};
}

char *client_url(const struct client *cl, const char *path)
{
    struct buf b = BUF_INIT;
    buf_addf(&b, "%s/api/v1%s", cl->url, path);
    return buf_take(&b);
}

static void print_diagnostic(const json_t *d)
{
    const char *hint = json_text(d, "hint");
    fprintf(stderr, "%s:%" PRIu64 ":%" PRIu64 ": %s: %s [%s]\n", json_text(d, "file"),
            json_number(d, "line"), json_number(d, "column"), json_text(d, "level"),
            json_text(d, "message"), json_text(d, "code"));
    if (hint[0] != 0) {
        fprintf(stderr, "  hint: %s\n", hint);
    }
    size_t i;
    json_t *n;
    json_array_foreach(json_object_get(d, "notes"), i, n)
    {
        fprintf(stderr, "  note: %s: %s:%" PRIu64 ":%" PRIu64 "\n", json_text(n, "message"),
                json_text(n, "file"), json_number(n, "line"), json_number(n, "column"));
    }
}

int client_problem(struct cli *c, int status, struct str body)
{
    json_t *o = json_loadb(body.p != NULL ? body.p : "", body.n, 0, NULL);
    int r = json_text(o, "code")[0] != 0 ? err_from_code(json_text(o, "code")) : -E_INTERNAL;
    const char *detail = json_text(o, "detail");
    size_t i;
    json_t *d;
    json_array_foreach(json_object_get(o, "diagnostics"), i, d)
    {
        print_diagnostic(d);
    }
    if (detail[0] != 0) {
        cli_fail(c, r, "%s", detail);
    } else {
        cli_fail(c, r, "the broker answered with status %d: %s", status,
                 json_text(o, "title")[0] != 0 ? json_text(o, "title") : "no reason given");
    }
    json_decref(o);
    return r;
}

static int exchange(const struct client *cl, const char *method, const char *path,
                    const json_t *body, const char *key, int *ret_status, struct buf *out,
                    struct buf *why)
{
    struct http_request req = HTTP_REQUEST_INIT;
    char *url = client_url(cl, path);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    req.method = method;
    req.url = url;
    req.token = cl->token;
    req.idempotency_key = key;
    req.body = str_from(text);
    int r = http_do(&req, ret_status, out, why);
    free(text);
    free(url);
    return r;
}

bool client_poll(const struct client *cl, const char *path, json_t **ret_json)
{
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    int status = 0;
    json_t *answer = NULL;
    if (exchange(cl, "GET", path, NULL, NULL, &status, &out, &why) == 0 && status == 200) {
        answer = json_loadb(buf_cstr(&out), out.n, JSON_REJECT_DUPLICATES, NULL);
    }
    buf_release(&why);
    buf_release(&out);
    *ret_json = answer;
    return answer != NULL;
}

int client_call(struct cli *c, const struct client *cl, const char *method, const char *path,
                const json_t *body, const char *key, json_t **ret_json)
{
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    int status = 0;
    int r = exchange(cl, method, path, body, key, &status, &out, &why);
    if (r < 0) {
        cli_fail(c, r, "cannot reach the broker at %s: %s", cl->url, buf_cstr(&why));
    } else if (status < 200 || status > 299) {
        r = client_problem(c, status, buf_str(&out));
    } else if (ret_json != NULL) {
        *ret_json = json_loadb(buf_cstr(&out), out.n, JSON_REJECT_DUPLICATES, NULL);
        if (*ret_json == NULL) {
            r = cli_fail(c, -E_PROTOCOL, "the broker's answer is no JSON");
        }
    }
    buf_release(&why);
    buf_release(&out);
    return r;
}

int client_send(struct cli *c, const struct client *cl, const char *path, const json_t *body,
                const char *key, json_t **ret_json)
{
    int r = -E_UNREACHABLE;
    for (int i = 0; i < SEND_TRIES; i++) {
        r = client_call(c, cl, "POST", path, body, key, ret_json);
        if (r != -E_UNREACHABLE && r != -E_BUSY && r != -E_TIMEOUT && r != -E_SHUTDOWN) {
            break;
        }
        os_sleep_ms(SEND_PAUSE_MS << i);
    }
    return r;
}

bool client_wait(void *ctx, unsigned tries, const char *why)
{
    (void)ctx;
    if (tries >= SEND_TRIES) {
        return false;
    }
    if (tries == 0) {
        fprintf(stderr, "davit: the transfer broke off (%s); trying again\n", why);
    }
    os_sleep_ms(SEND_PAUSE_MS << tries);
    return true;
}

/* Child pipelines are looked into by their number only. */
static int newest_pipeline(struct cli *c, const struct client *cl, uint64_t *ret_id)
{
    json_t *list = NULL;
    size_t i;
    json_t *p;
    int r = client_call(c, cl, "GET", "/pipelines?limit=200", NULL, NULL, &list);
    if (r < 0) {
        return r;
    }
    r = -E_NOT_FOUND;
    json_array_foreach(json_object_get(list, "items"), i, p)
    {
        if (json_number(p, "parent_pipeline_id") == 0) {
            *ret_id = json_number(p, "id");
            r = 0;
            break;
        }
    }
    json_decref(list);
    return r < 0 ? cli_fail(c, r, "there are no pipelines") : 0;
}

int client_find_job(struct cli *c, const struct client *cl, const char *job, uint64_t pipeline,
                    uint64_t *ret_id)
{
    char path[64];
    json_t *p = NULL;
    if (pipeline == 0 && str_to_u64(str_from(job), ret_id) == 0) {
        return 0;
    }
    int r = pipeline != 0 ? 0 : newest_pipeline(c, cl, &pipeline);
    if (r < 0) {
        return r;
    }
    snprintf(path, sizeof(path), "/pipelines/%" PRIu64, pipeline);
    r = client_call(c, cl, "GET", path, NULL, NULL, &p);
    if (r < 0) {
        return r;
    }
    size_t i;
    json_t *j;
    r = -E_NOT_FOUND;
    json_array_foreach(json_object_get(p, "jobs"), i, j)
    {
        if (strcmp(json_text(j, "name"), job) == 0) {
            *ret_id = json_number(j, "id");
            r = 0;
        }
    }
    if (r < 0) {
        cli_fail(c, r, "pipeline %" PRIu64 " has no job `%s`", pipeline, job);
    }
    json_decref(p);
    return r;
}
