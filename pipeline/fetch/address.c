/* Where the repository of a project is: as it was configured, else on the server of the pipeline's
 * own one. */
#include "common/base.h"

#include <stdlib.h>

#include "common/os.h"
#include "pipeline/fetch/inside.h"

bool fetch_project_parse(const char *text, struct fetch_project *ret)
{
    struct str s = str_from(text);
    ptrdiff_t eq = str_chr(s, '=');
    if (eq <= 0 || s.p[eq + 1] == '\0' || s.p[eq + 1] == '-' || s.p[0] == '/') {
        return false;
    }
    ret->name = str_sub(s, 0, (size_t)eq);
    ret->from = text + eq + 1;
    return true;
}

/* The part of the own repository's URL before the project: "https://host/", "git@host:"; *ret_host
 * is the host, with its port. False: it is a folder of this machine. */
static bool split_origin(const char *origin, struct str *ret_base, struct str *ret_host)
{
    struct str url = str_from(origin);
    ptrdiff_t scheme = str_find(url, STR("://"));
    size_t start = scheme >= 0 ? (size_t)scheme + 3 : 0;
    struct str rest = str_sub(url, start, url.n);
    ptrdiff_t end = str_chr(rest, scheme >= 0 ? '/' : ':');
    if (end <= 0 || str_starts(url, STR("file:")) ||
        (scheme < 0 && str_chr(str_sub(rest, 0, (size_t)end), '/') >= 0)) {
        return false;
    }
    struct str host = str_sub(rest, 0, (size_t)end);
    ptrdiff_t user = str_chr(host, '@');
    *ret_base = str_sub(url, 0, start + (size_t)end + 1);
    *ret_host = user >= 0 ? str_sub(host, (size_t)user + 1, host.n) : host;
    return true;
}

/* HOST/GROUP/NAME of another server: a first part that looks like a host, and two more. */
static bool names_host(struct str project)
{
    ptrdiff_t slash = str_chr(project, '/');
    struct str first = str_sub(project, 0, slash > 0 ? (size_t)slash : 0);
    struct str rest = str_sub(project, first.n + 1, project.n);
    return (str_chr(first, '.') >= 0 || str_chr(first, ':') >= 0) && str_chr(rest, '/') >= 0;
}

static const char *find_configured(const struct fetcher *f, struct str project)
{
    for (size_t i = 0; i < f->config.project_count; i++) {
        if (str_eq(f->config.projects[i].name, project)) {
            return f->config.projects[i].from;
        }
    }
    return NULL;
}

/* A folder of this machine by its whole path, so that the cache knows it from anywhere. */
static const char *settle(struct fetcher *f, const char *from)
{
    char *path = os_absolute_path(from);
    const char *settled = path ? arena_strdup(&f->arena, str_from(path)) : from;
    free(path);
    return settled;
}

int address_of(struct fetcher *f, struct str project, const char **ret_url, const char **ret_why)
{
    struct str base = STR_NULL;
    struct str host = STR_NULL;
    bool server = f->config.origin && split_origin(f->config.origin, &base, &host);
    const char *from = find_configured(f, project);
    struct str path = project;
    if (!from && server && str_starts(project, host) && project.n > host.n &&
        project.p[host.n] == '/') {
        path = str_sub(project, host.n + 1, project.n);
        from = find_configured(f, path);
    }
    if (from) {
        *ret_url = settle(f, from);
        return 0;
    }
    if (!server || (path.n == project.n && names_host(project)) || path.p[0] == '-') {
        *ret_why = arena_printf(&f->arena,
                                "no address of project " STR_FMT
                                " is known; --include-project " STR_FMT "=PATH_OR_URL gives one",
                                STR_ARG(project), STR_ARG(project));
        return -E_UNSUPPORTED;
    }
    *ret_url = arena_printf(&f->arena, STR_FMT STR_FMT ".git", STR_ARG(base), STR_ARG(path));
    return 0;
}
