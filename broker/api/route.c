#include "common/base.h"

#include "broker/api/route.h"

#include "broker/api/handlers.h"

const struct route routes[] = {
#define ROUTE(method, path, roles, body, query, handler) \
    {method, path, roles, body, query, handler},
#include "broker/api/routes.def"
#undef ROUTE
};
const size_t route_count = ARRAY_LEN(routes);

static bool segment_matches(struct str pattern, struct str segment, struct route_args *args)
{
    if (str_eq(pattern, STR("{id}"))) {
        /* No sign, no leading zero: a thing has one address. */
        return segment.n > 0 && segment.p[0] != '0' && str_to_u64(segment, &args->id) == 0;
    }
    if (str_eq(pattern, STR("{digest}"))) {
        return str_from_hex(segment, args->digest, sizeof(args->digest)) == 0;
    }
    return str_eq(pattern, segment);
}

static bool path_matches(const char *pattern_text, const char *path_text, struct route_args *args)
{
    struct str pattern = str_from(pattern_text);
    struct str path = str_from(path_text);
    struct str want, got;
    for (;;) {
        bool named = str_eq(pattern, STR("{name}"));
        if (named || str_eq(pattern, STR("{path}"))) {
            args->rest = path;
            args->named = named;
            return path.n > 0;
        }
        bool more_want = str_split(&pattern, '/', &want);
        bool more_got = str_split(&path, '/', &got);
        if (!more_want || !more_got) {
            return more_want == more_got;
        }
        if (!segment_matches(want, got, args)) {
            return false;
        }
    }
}

const char *method_name(enum method m)
{
    static const char *const names[] = {
        [GET] = "GET", [POST] = "POST", [PUT] = "PUT", [DELETE] = "DELETE", [PATCH] = "PATCH"};
    check((size_t)m < ARRAY_LEN(names));
    return names[m];
}

/* HEAD is a GET of which only the head is sent; libmicrohttpd cuts the body off. */
static bool method_matches(enum method m, const char *text)
{
    return strcmp(method_name(m), text) == 0 || (m == GET && strcmp(text, "HEAD") == 0);
}

/* What a path knows, by the bits of its methods. */
static const char *allowed(unsigned methods)
{
    static const char *const texts[] = {
        [1u << GET] = "GET, HEAD",
        [1u << POST] = "POST",
        [1u << GET | 1u << POST] = "GET, HEAD, POST",
        [1u << PUT] = "PUT",
        [1u << GET | 1u << PUT] = "GET, HEAD, PUT",
        [1u << POST | 1u << PUT] = "POST, PUT",
        [1u << GET | 1u << POST | 1u << PUT] = "GET, HEAD, POST, PUT",
        [1u << DELETE] = "DELETE",
        [1u << GET | 1u << DELETE] = "GET, HEAD, DELETE",
        [1u << POST | 1u << DELETE] = "POST, DELETE",
        [1u << GET | 1u << POST | 1u << DELETE] = "GET, HEAD, POST, DELETE",
        [1u << PUT | 1u << DELETE] = "PUT, DELETE",
        [1u << GET | 1u << PUT | 1u << DELETE] = "GET, HEAD, PUT, DELETE",
        [1u << POST | 1u << PUT | 1u << DELETE] = "POST, PUT, DELETE",
        [1u << GET | 1u << POST | 1u << PUT | 1u << DELETE] = "GET, HEAD, POST, PUT, DELETE",
        [1u << GET | 1u << DELETE | 1u << PATCH] = "GET, HEAD, DELETE, PATCH",
    };
    check(methods < ARRAY_LEN(texts) && texts[methods]);
    return texts[methods];
}

int route_find(const char *method, const char *path, const struct route **ret,
               struct route_args *ret_args, const char **ret_allow)
{
    unsigned methods = 0;
    for (size_t i = 0; i < route_count; i++) {
        struct route_args args = {0};
        if (!path_matches(routes[i].path, path, &args)) {
            continue;
        }
        if (method_matches(routes[i].method, method)) {
            *ret = &routes[i];
            *ret_args = args;
            return 0;
        }
        methods |= 1u << routes[i].method;
    }
    if (methods == 0) {
        return -E_NOT_FOUND;
    }
    *ret_allow = allowed(methods);
    return -E_METHOD;
}

bool route_knows_query(const struct route *route, struct str name)
{
    struct str names = str_from(route->query);
    struct str known;
    while (str_split(&names, ' ', &known)) {
        if (known.n > 0 && str_eq(known, name)) {
            return true;
        }
    }
    return false;
}

bool role_reaches(const struct route *route, enum role role)
{
    if (route->roles & role) {
        return true;
    }
    bool user = (route->roles & ROLE_USER) != 0;
    return user && (role == ROLE_MAINTAINER || role == ROLE_DEVELOPER ||
                    (role == ROLE_REPORTER && route->method == GET));
}

static const struct {
    const char *path; /* of a route, or what it begins with */
    bool whole;
    enum route_about about;
} subjects[] = {
    {"/api/v1/version", true, ABOUT_ANY},
    {"/api/v1/token", true, ABOUT_ANY},
    {"/api/v1/blobs", true, ABOUT_ANY}, /* what is uploaded is nobody's yet */
    {"/api/v1/uploads", false, ABOUT_ANY},
    {"/api/v1/lint", true, ABOUT_HANDLER},
    {"/api/v1/projects", true, ABOUT_HANDLER},
    {"/api/v1/projects/{name}", true, ABOUT_PROJECT},
    {"/api/v1/pipelines", true, ABOUT_HANDLER},
    {"/api/v1/pipelines/{id}", false, ABOUT_PIPELINE},
    {"/api/v1/jobs", true, ABOUT_HANDLER},
    {"/api/v1/jobs/{id}", false, ABOUT_JOB},
    {"/api/v1/environments", true, ABOUT_QUERY},
    {"/api/v1/environments/{id}", false, ABOUT_ENVIRONMENT},
    {"/api/v1/rollouts", true, ABOUT_QUERY},
    {"/api/v1/rollouts/{id}", false, ABOUT_HANDLER},
    {"/api/v1/services", true, ABOUT_QUERY},
    {"/api/v1/services/{id}", false, ABOUT_HANDLER},
    {"/api/v1/snapshots/{id}", false, ABOUT_HANDLER},
    {"/api/v1/resource-groups", false, ABOUT_QUERY},
    {"/api/v1/releases", true, ABOUT_QUERY},
    {"/api/v1/caches", true, ABOUT_QUERY},
    {"/api/v1/variables", false, ABOUT_QUERY},
};

enum route_about route_about(const struct route *route)
{
    for (size_t i = 0; i < ARRAY_LEN(subjects); i++) {
        const size_t n = strlen(subjects[i].path);
        if (subjects[i].whole ? strcmp(route->path, subjects[i].path) == 0
                              : strncmp(route->path, subjects[i].path, n) == 0) {
            return subjects[i].about;
        }
    }
    return ABOUT_INSTALLATION;
}
