#include "common/base.h"

#include <stdlib.h>

#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "pipeline/fetch/inside.h"

#define REDIRECTS  3u
#define TIMEOUT_MS 60000u

struct fetcher *fetch_new(const struct fetch_config *config)
{
    struct fetcher *f = xcalloc(1, sizeof(*f));
    f->config = *config;
    f->end_ms = config->budget_ms > 0 ? os_monotonic_ms() + config->budget_ms : 0;
    arena_init(&f->arena, 0);
    return f;
}

uint32_t fetch_timeout_ms(const struct fetcher *f)
{
    uint32_t timeout_ms = f->config.timeout_ms > 0 ? f->config.timeout_ms : TIMEOUT_MS;
    uint64_t now_ms = os_monotonic_ms();
    uint64_t left_ms = f->end_ms > now_ms ? f->end_ms - now_ms : 0;
    return f->end_ms > 0 && left_ms < timeout_ms ? (uint32_t)MAX(left_ms, 1u) : timeout_ms;
}

bool fetch_is_stopped(const struct fetch_config *config)
{
    return config != NULL && config->stop != NULL && atomic_load(config->stop);
}

void fetch_free(struct fetcher *f)
{
    if (f) {
        arena_release(&f->arena);
        free(f);
    }
}

static int fetch_remote(struct fetcher *f, struct str url, struct included *ret,
                        const char **ret_why)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf text = BUF_INIT;
    struct buf why = BUF_INIT;
    int status = 0;
    if (f->config.offline) {
        *ret_why = "--offline allows no fetching";
        return -E_UNSUPPORTED;
    }
    req.url = arena_strdup(&f->arena, url);
    req.out_limit = LIMIT_YAML_BYTES;
    req.redirects = REDIRECTS;
    req.public_only = f->config.public_only;
    req.timeout_ms = fetch_timeout_ms(f);
    req.stop = f->config.stop;
    int r = http_do(&req, &status, &text, &why);
    if (r < 0) {
        *ret_why = arena_strdup(&f->arena, buf_str(&why));
    } else if (status != 200) {
        *ret_why = arena_printf(&f->arena, "the server answers %d", status);
        r = status == 404 || status == 410 ? -E_NOT_FOUND : -E_UNREACHABLE;
    } else {
        ret->text = arena_str(&f->arena, buf_str(&text));
    }
    buf_release(&text);
    buf_release(&why);
    return r;
}

static int fetch_project(struct fetcher *f, struct str project, struct str ref,
                         const struct str *paths, size_t count, struct included *ret,
                         const char **ret_why)
{
    const char *url = NULL;
    const struct version *v = NULL;
    int r = address_of(f, project, &url, ret_why);
    r = r < 0 ? r : version_find(f, url, ref, &v, ret_why);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < count; i++) {
        const char *why = NULL;
        r = version_read(f, v, paths[i], &ret->text, &why);
        *ret_why = i == 0 || r != -E_NOT_FOUND ? why : *ret_why;
        if (r != -E_NOT_FOUND) {
            break;
        }
    }
    if (r == 0) {
        ret->sha = str_from(v->sha);
        ret->version = v->name;
        ret->project = arena_str(&f->arena, project);
    }
    return r;
}

/* [HOST]/GROUP/PROJECT/NAME@VERSION: the compiler has looked at its parts. */
static int fetch_component(struct fetcher *f, struct str address, struct included *ret,
                           const char **ret_why)
{
    size_t at = address.n;
    while (at > 0 && address.p[at - 1] != '@') {
        at--;
    }
    size_t slash = at;
    while (slash > 0 && address.p[slash - 1] != '/') {
        slash--;
    }
    if (at < 2 || slash < 2) {
        return -E_NOT_FOUND;
    }
    struct str name = str_sub(address, slash, at - 1 - slash);
    struct str project = str_sub(address, 0, slash - 1);
    struct str version = str_sub(address, at, address.n);
    if (project.p[0] == '/') {
        project = str_sub(project, 1, project.n);
    }
    const struct str paths[] = {
        str_from(arena_printf(&f->arena, "templates/" STR_FMT ".yml", STR_ARG(name))),
        str_from(arena_printf(&f->arena, "templates/" STR_FMT "/template.yml", STR_ARG(name))),
    };
    return fetch_project(f, project, version, paths, ARRAY_LEN(paths), ret, ret_why);
}

static bool leaves_folder(struct str path)
{
    struct str part;
    bool leaves = path.n == 0 || path.p[0] == '/';
    while (str_split(&path, '/', &part)) {
        leaves |= str_eqz(part, "..");
    }
    return leaves;
}

static int fetch_template(struct fetcher *f, struct str name, struct included *ret,
                          const char **ret_why)
{
    struct buf text = BUF_INIT;
    if (!f->config.templates) {
        *ret_why = "there is no folder of templates: --templates DIR gives one";
        return -E_UNSUPPORTED;
    }
    char *path = os_path_join(f->config.templates, arena_strdup(&f->arena, name));
    int r = leaves_folder(name) ? -E_NOT_FOUND : os_read_file(path, LIMIT_YAML_BYTES, &text);
    if (r < 0) {
        *ret_why = arena_printf(&f->arena, "cannot read it in %s", f->config.templates);
    } else {
        ret->text = arena_str(&f->arena, buf_str(&text));
    }
    free(path);
    buf_release(&text);
    return r;
}

int fetch_include(void *fetcher, const struct include_ref *ref, struct included *ret,
                  const char **ret_why)
{
    struct fetcher *f = fetcher;
    if (fetch_is_stopped(&f->config)) {
        *ret_why = "this program ends";
        return -E_SHUTDOWN;
    }
    if (f->end_ms > 0 && os_monotonic_ms() >= f->end_ms) {
        *ret_why = "fetching all that this pipeline includes takes too long";
        return -E_TIMEOUT;
    }
    switch (ref->kind) {
    case INCLUDE_REMOTE:
        return fetch_remote(f, ref->name, ret, ret_why);
    case INCLUDE_PROJECT:
        return fetch_project(f, ref->project, ref->ref, &ref->name, 1, ret, ret_why);
    case INCLUDE_COMPONENT:
        return fetch_component(f, ref->name, ret, ret_why);
    case INCLUDE_TEMPLATE:
        return fetch_template(f, ref->name, ret, ret_why);
    case INCLUDE_LOCAL:
    case INCLUDE_ARTIFACT:
        break;
    }
    return -E_UNSUPPORTED;
}
