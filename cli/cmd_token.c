/* davit token: who may use the API, as what, for which projects and until when; and the tokens with
 * which workers join. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/list.h"

#define ALL 100000u

struct token_options {
    const char *role;
    const char *projects;
    const char *expires;
    bool worker;
    const char *pool;
    const char *tags;
    const char *ttl;
};

static const char *day(const json_t *t, const char *field)
{
    const char *text = json_text(t, field);
    return text[0] != '\0' ? text : "-";
}

static void print_token(const json_t *t)
{
    json_t *project;
    size_t i;
    printf("%-17s %-20s %-11s %-21s %-21s%s", json_text(t, "id"), json_text(t, "name"),
           json_text(t, "role"), day(t, "expires_at"), day(t, "last_used_at"),
           json_flag(t, "expired") ? " expired" : "");
    json_array_foreach(json_object_get(t, "projects"), i, project)
    {
        printf("%s%s", i == 0 ? " for " : ", ", json_string_value(project));
    }
    printf("\n");
}

static int list(struct cli *c, const struct client *cl)
{
    json_t *items = NULL;
    json_t *t;
    size_t i;
    int r = list_fetch(c, cl, "tokens", "", ALL, &items);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", items));
        return 0;
    }
    printf("%-17s %-20s %-11s %-21s %s\n", "TOKEN", "NAME", "ROLE", "UNTIL", "LAST USED");
    json_array_foreach(items, i, t)
    {
        print_token(t);
    }
    json_decref(items);
    return 0;
}

/* The token alone is on standard output: it is for a file or a variable. */
static int create(struct cli *c, const struct client *cl, const char *name,
                  const struct token_options *o)
{
    json_t *t = NULL;
    if (o->role == NULL) {
        return cli_fail(
            c, -E_USAGE,
            "--role is missing: admin, maintainer, developer, reporter, user or worker");
    }
    json_t *body = json_pack("{s:s, s:s, s:o}", "name", name, "role", o->role, "projects",
                             list_words(o->projects));
    if (o->expires != NULL) {
        json_object_set_new(body, "expires_in", json_string(o->expires));
    }
    int r = client_call(c, cl, "POST", "/tokens", body, NULL, &t);
    json_decref(body);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(t);
        return 0;
    }
    fprintf(stderr, "token %s of %s, %s; it is not shown again:\n", json_text(t, "id"), name,
            json_text(t, "expires_at")[0] != '\0' ? json_text(t, "expires_at") : "without an end");
    printf("%s\n", json_text(t, "token"));
    json_decref(t);
    return 0;
}

/* With which one worker may join. */
static int create_join(struct cli *c, const struct client *cl, const struct token_options *o)
{
    json_t *body = json_object();
    json_t *answer = NULL;
    json_object_set_new(body, "pool", json_string(o->pool != NULL ? o->pool : ""));
    json_object_set_new(body, "tags", list_words(o->tags));
    if (o->ttl != NULL) {
        json_object_set_new(body, "ttl", json_string(o->ttl));
    }
    int r = client_call(c, cl, "POST", "/join-tokens", body, NULL, &answer);
    json_decref(body);
    if (r == 0 && c->json) {
        cli_print_json(answer);
    } else if (r == 0) {
        printf("%s\n", json_text(answer, "token"));
        fprintf(stderr,
                "for one worker, until %s: davit-worker join %s --token TOKEN --state DIR\n",
                json_text(answer, "expires_at"), cl->url);
        json_decref(answer);
    }
    return r;
}

static int revoke(struct cli *c, const struct client *cl, const char *id)
{
    struct buf path = BUF_INIT;
    buf_addz(&path, "/tokens/");
    list_escape(&path, id);
    int r = client_call(c, cl, "DELETE", buf_cstr(&path), NULL, NULL, NULL);
    buf_release(&path);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:s}", "revoked", id));
    } else if (r == 0) {
        printf("token %s is good for nothing any more\n", id);
    }
    return r;
}

static int show(struct cli *c, const struct client *cl)
{
    json_t *t = NULL;
    int r = client_call(c, cl, "GET", "/token", NULL, NULL, &t);
    if (r == 0 && c->json) {
        cli_print_json(t);
    } else if (r == 0) {
        print_token(t);
        json_decref(t);
    }
    return r;
}

static int check_words(const struct cli *c, const struct token_options *o, const char *verb,
                       size_t count)
{
    bool create = strcmp(verb, "create") == 0;
    bool one = (create && !o->worker) || strcmp(verb, "revoke") == 0;
    bool none = (create && o->worker) || strcmp(verb, "list") == 0 || strcmp(verb, "show") == 0;
    if ((one && count == 2) || (none && count <= 1)) {
        return 0;
    }
    return cli_fail(c, -E_USAGE,
                    "davit token [list | create NAME | create --worker | revoke TOKEN | show]");
}

/* An option that would be ignored: who says --ttl of a token of the API would get one for ever. */
static int check_options(const struct cli *c, const struct token_options *o, const char *verb)
{
    const bool create = strcmp(verb, "create") == 0;
    const struct {
        const char *option;
        bool said, good;
        const char *use;
    } rows[] = {
        {"role", o->role != NULL, create && !o->worker, "create NAME"},
        {"projects", o->projects != NULL, create && !o->worker, "create NAME"},
        {"expires", o->expires != NULL, create && !o->worker, "create NAME"},
        {"worker", o->worker, create, "create"},
        {"pool", o->pool != NULL, create && o->worker, "create --worker"},
        {"tags", o->tags != NULL, create && o->worker, "create --worker"},
        {"ttl", o->ttl != NULL, create && o->worker, "create --worker"},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].said && !rows[i].good) {
            return cli_fail(c, -E_USAGE, "--%s is for davit token %s", rows[i].option, rows[i].use);
        }
    }
    return 0;
}

static int run(struct cli *c, const struct client *cl, const struct token_options *o,
               const char *verb, const char *name)
{
    switch (verb[0]) {
    case 'c':
        return o->worker ? create_join(c, cl, o) : create(c, cl, name, o);
    case 'r':
        return revoke(c, cl, name);
    case 's':
        return show(c, cl);
    default:
        return list(c, cl);
    }
}

int cmd_token(struct cli *c, int argc, char **argv)
{
    struct token_options o = {0};
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"role", 0, OPT_TEXT, &o.role, "ROLE",
         "admin, maintainer, developer, reporter, user, worker"},
        {"projects", 0, OPT_TEXT, &o.projects, "A,B",
         "names, and GROUP/* for all of a group (all)"},
        {"expires", 0, OPT_TEXT, &o.expires, "TIME", "how long it is good: 30d, 12h (for ever)"},
        {"worker", 0, OPT_FLAG, &o.worker, NULL, "with which one worker may join, once"},
        {"pool", 0, OPT_TEXT, &o.pool, "NAME", "the pool that the worker is of"},
        {"tags", 0, OPT_TEXT, &o.tags, "TAG,...", "the tags that it may offer (any)"},
        {"ttl", 0, OPT_TEXT, &o.ttl, "TIME", "how long the worker's is good (1h; at most 30d)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    const char *verb = count > 0 ? args[0] : "list";
    r = check_words(c, &o, verb, count);
    r = r < 0 ? r : check_options(c, &o, verb);
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = run(c, &cl, &o, verb, count > 1 ? args[1] : NULL);
        client_release(&cl);
    }
    free(args);
    return r;
}
