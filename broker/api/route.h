/* The table of routes (routes.def) and finding one in it. Threads: pure. */
#ifndef DAVIT_API_ROUTE_H
#define DAVIT_API_ROUTE_H

#include "common/crypto.h"
#include "common/err.h"

/* The route takes no parameters, and does not mind any. */
#define ROUTE_ANY_QUERY "*"

enum role {
    ROLE_NONE = 0, /* no token is asked for */
    ROLE_ADMIN = 1,
    ROLE_WORKER = 2,
    ROLE_JOB = 4,
    ROLE_JOIN = 16,       /* a join token, used or not: the command says whether it is good */
    ROLE_MAINTAINER = 32, /* of some projects or all: what users may, and their variables */
    ROLE_DEVELOPER = 64,  /* what users may, but for protected refs */
    ROLE_REPORTER = 128,  /* reads what users may read */
    ROLE_USER = 8,        /* submits and acts on jobs; settings are an administrator's */
};

/* People and their programs: who may do that, and read that with a GET, is said by role_reaches. */
#define ROLE_PERSON (ROLE_ADMIN | ROLE_USER)

enum body_kind {
    BODY_NONE,
    BODY_JSON, /* at most LIMIT_HTTP_BODY, kept in memory */
    BODY_BLOB, /* at most LIMIT_BLOB_BYTES, streamed to the disk */
    BODY_PART, /* of an upload of several requests */
};

enum method { GET, POST, PUT, DELETE, PATCH };

struct request;
/* Answers or parks the request and returns 0; or returns an error, which becomes the answer. */
typedef int (*request_fn)(struct request *rq);

struct route {
    enum method method;
    const char *path;
    unsigned roles;
    enum body_kind body;
    const char *query; /* names of parameters, separated by blanks; ROUTE_ANY_QUERY */
    request_fn handler;
};

extern const struct route routes[];
extern const size_t route_count;

/* What the path of a request said. */
struct route_args {
    uint64_t id;
    uint8_t digest[SHA256_BYTES];
    struct str rest; /* {path}, {name}: all that follows, as long as the request lives */
    bool named;      /* {name}: UTF-8 of at most LIMIT_NAME bytes, once the request is admitted */
};

/* Whether the role may use the route: maintainers and developers wherever users may, reporters
 * where that is a GET. */
bool role_reaches(const struct route *route, enum role role);

/* What of the path and query says which project a request is about. */
enum route_about {
    ABOUT_ANY,          /* no project: whoever has the role */
    ABOUT_INSTALLATION, /* all projects: only tokens that are for all */
    ABOUT_HANDLER,      /* the handler sees to it: the body says, or the answer is narrowed */
    ABOUT_PIPELINE,     /* {id} */
    ABOUT_JOB,          /* {id} */
    ABOUT_ENVIRONMENT,  /* {id} */
    ABOUT_PROJECT,      /* {name} */
    ABOUT_QUERY,        /* `project` or `group` */
};
/* A route that is not known here is about the whole installation. */
enum route_about route_about(const struct route *route);

const char *method_name(enum method m);

/* 0; -E_NOT_FOUND: no such path; -E_METHOD: *ret_allow lists what the path knows ("GET, POST"). */
int route_find(const char *method, const char *path, const struct route **ret,
               struct route_args *ret_args, const char **ret_allow);

/* True when the route knows a query parameter of that name. */
bool route_knows_query(const struct route *route, struct str name);

#endif
