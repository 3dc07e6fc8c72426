#include "common/base.h"

#include "cli/service.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/list.h"
#include "common/str.h"

/* The environment's own name may have slashes; it is on the heap. */
static int split_name(struct cli *c, const char *name, char **ret_environment,
                      const char **ret_target)
{
    const char *slash = strrchr(name, '/');
    if (slash == NULL || slash == name || slash[1] == '\0') {
        return cli_fail(c, -E_USAGE, "a rollout is a number, or ENVIRONMENT/TARGET, not `%s`",
                        name);
    }
    *ret_environment = str_dup(str_of(name, (size_t)(slash - name)));
    *ret_target = slash + 1;
    return 0;
}

static int find(struct cli *c, const struct client *cl, const char *project, const char *name,
                uint64_t *ret)
{
    struct buf filter = BUF_INIT;
    const char *target = NULL;
    char *environment = NULL;
    json_t *list = NULL;
    json_t *o;
    size_t i;
    int r = split_name(c, name, &environment, &target);
    if (r < 0) {
        return r;
    }
    buf_addz(&filter, "&environment=");
    list_escape(&filter, environment);
    r = list_of_project(c, cl, "services", project, buf_cstr(&filter), &list);
    *ret = 0;
    json_array_foreach(list, i, o)
    {
        if (strcmp(json_text(o, "target"), target) == 0) {
            *ret = json_number(o, "id");
        }
    }
    if (r == 0 && *ret == 0) {
        r = cli_fail(c, -E_NOT_FOUND, "%s: nothing was ever rolled out to %s", project, name);
    }
    json_decref(list);
    buf_release(&filter);
    free(environment);
    return r;
}

/* The service with its versions and rollouts. */
static int get(struct cli *c, const struct client *cl, const char *project, const char *name,
               json_t **ret)
{
    char path[64];
    uint64_t id;
    const int r = find(c, cl, project, name, &id);
    if (r < 0) {
        return r;
    }
    snprintf(path, sizeof(path), "/services/%" PRIu64, id);
    return client_call(c, cl, "GET", path, NULL, NULL, ret);
}

int service_rollout(struct cli *c, const struct client *cl, const char *project, const char *name,
                    bool live, uint64_t *ret)
{
    json_t *o = NULL;
    const int r = get(c, cl, project, name, &o);
    if (r < 0) {
        return r;
    }
    *ret = live ? json_number(o, "live_rollout_id")
                : json_number(json_array_get(json_object_get(o, "rollouts"), 0), "id");
    json_decref(o);
    return *ret != 0 ? 0
                     : cli_fail(c, -E_NOT_FOUND, "%s: no %srollout of %s", project,
                                live ? "live " : "", name);
}

/* --- history --- */

static const char *or_dash(const char *text)
{
    return text[0] != '\0' ? text : "-";
}

static void print_service(const json_t *o)
{
    printf("%s/%s  %s", json_text(o, "environment"), json_text(o, "target"),
           or_dash(json_text(o, "version")));
    if (json_number(o, "snapshot_id") != 0) {
        printf("  stable since %s", json_text(o, "stable_since"));
    }
    if (json_number(o, "live_rollout_id") != 0) {
        printf("  rollout %" PRIu64 " is live", json_number(o, "live_rollout_id"));
    }
    printf("\n");
}

int service_list(struct cli *c, const struct client *cl, const char *project)
{
    json_t *list = NULL;
    json_t *o;
    size_t i;
    const int r = list_of_project(c, cl, "services", project, "", &list);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:O}", "items", list));
    } else if (r == 0) {
        json_array_foreach(list, i, o)
        {
            print_service(o);
        }
        if (json_array_size(list) == 0) {
            printf("no services\n");
        }
    }
    json_decref(list);
    return r;
}

static void print_rollout(const struct cli *c, const json_t *o)
{
    printf("  %-8" PRIu64 " %s  %s  %s to %s  by %s%s", json_number(o, "id"),
           json_text(o, "version"), cli_status(c, json_text(o, "state")),
           json_text(o, "created_at"), or_dash(json_text(o, "ended_at")),
           or_dash(json_text(o, "created_by")), json_flag(o, "undo") ? ", an undo" : "");
    if (json_text(o, "why")[0] != '\0') {
        printf("  %s: %s", json_text(o, "why"), json_text(o, "why_text"));
    }
    printf("\n");
}

static void print_history(const struct cli *c, const json_t *o)
{
    const uint64_t stable = json_number(o, "snapshot_id");
    json_t *item;
    size_t i;
    print_service(o);
    printf("versions that are kept:\n");
    json_array_foreach(json_object_get(o, "snapshots"), i, item)
    {
        printf("  %-8" PRIu64 " %s  made %s%s\n", json_number(item, "id"),
               json_text(item, "version"), json_text(item, "created_at"),
               json_number(item, "id") == stable ? "  stable" : "");
    }
    printf("rollouts:\n");
    json_array_foreach(json_object_get(o, "rollouts"), i, item)
    {
        print_rollout(c, item);
    }
}

int service_history(struct cli *c, const struct client *cl, const char *project, const char *name)
{
    json_t *o = NULL;
    const int r = get(c, cl, project, name, &o);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(o);
        return 0;
    }
    print_history(c, o);
    json_decref(o);
    return 0;
}

/* --- versions --- */

/* By its text, else by its number; the newest of those that are called so. */
static uint64_t version_named(const json_t *service, const char *name)
{
    uint64_t number = 0;
    uint64_t found = 0;
    json_t *o;
    size_t i;
    if (str_to_u64(str_from(name), &number) < 0) {
        number = 0;
    }
    json_array_foreach(json_object_get(service, "snapshots"), i, o)
    {
        if (strcmp(json_text(o, "version"), name) == 0) {
            return json_number(o, "id");
        }
        found = number != 0 && json_number(o, "id") == number ? number : found;
    }
    return found;
}

static int find_version(struct cli *c, const json_t *service, const char *name, uint64_t *ret)
{
    *ret = version_named(service, name);
    return *ret != 0
               ? 0
               : cli_fail(c, -E_NOT_FOUND,
                          "%s/%s keeps no version `%s`: `davit rollout history` lists them",
                          json_text(service, "environment"), json_text(service, "target"), name);
}

/* The newest that is not the stable one; 0: there is none. */
static uint64_t before_stable(const json_t *service)
{
    json_t *o;
    size_t i;
    json_array_foreach(json_object_get(service, "snapshots"), i, o)
    {
        if (json_number(o, "id") != json_number(service, "snapshot_id")) {
            return json_number(o, "id");
        }
    }
    return 0;
}

static void print_change(const json_t *o)
{
    const char *change = json_text(o, "change");
    printf("  %s %s%s%s",
           strcmp(change, "added") == 0     ? "+"
           : strcmp(change, "removed") == 0 ? "-"
                                            : "~",
           json_text(o, "what"), json_text(o, "name")[0] != '\0' ? " " : "", json_text(o, "name"));
    if (!json_is_null(json_object_get(o, "from")) || !json_is_null(json_object_get(o, "to"))) {
        printf(": %s -> %s", or_dash(json_text(o, "from")), or_dash(json_text(o, "to")));
    }
    printf("\n");
}

/* Those that every pipeline has differ always: they are counted. */
static bool is_predefined(const json_t *o)
{
    const struct str name = str_from(json_text(o, "name"));
    return strcmp(json_text(o, "what"), "variable") == 0 &&
           (str_starts(name, STR("CI_")) || str_starts(name, STR("DAVIT_")) ||
            str_starts(name, STR("GITLAB_")));
}

static void print_diff(const json_t *diff)
{
    const json_t *from = json_object_get(diff, "from");
    const json_t *to = json_object_get(diff, "to");
    size_t predefined = 0;
    json_t *o;
    size_t i;
    printf("%s (%" PRIu64 ") -> %s (%" PRIu64 ")\n", json_text(from, "version"),
           json_number(from, "id"), json_text(to, "version"), json_number(to, "id"));
    json_array_foreach(json_object_get(diff, "items"), i, o)
    {
        if (is_predefined(o)) {
            predefined++;
        } else {
            print_change(o);
        }
    }
    if (json_array_size(json_object_get(diff, "items")) == 0) {
        printf("  the same\n");
    }
    if (predefined > 0) {
        printf("  and %zu predefined variables\n", predefined);
    }
}

static int diff(struct cli *c, const struct client *cl, uint64_t from, uint64_t to)
{
    char path[96];
    json_t *o = NULL;
    snprintf(path, sizeof(path), "/snapshots/%" PRIu64 "/diff?from=%" PRIu64, to, from);
    const int r = client_call(c, cl, "GET", path, NULL, NULL, &o);
    if (r == 0 && c->json) {
        cli_print_json(o);
    } else if (r == 0) {
        print_diff(o);
        json_decref(o);
    }
    return r;
}

int service_diff(struct cli *c, const struct client *cl, const char *project, const char *name,
                 const char *from, const char *to)
{
    json_t *o = NULL;
    int r = get(c, cl, project, name, &o);
    if (r < 0) {
        return r;
    }
    uint64_t a = before_stable(o);
    uint64_t b = json_number(o, "snapshot_id");
    r = from != NULL ? find_version(c, o, from, &a) : 0;
    r = r == 0 && to != NULL ? find_version(c, o, to, &b) : r;
    if (r == 0 && (a == 0 || b == 0)) {
        r = cli_fail(c, -E_NOT_FOUND, "%s keeps no two versions", name);
    }
    json_decref(o);
    return r < 0 ? r : diff(c, cl, a, b);
}

int service_diff_rollout(struct cli *c, const struct client *cl, uint64_t rollout_id)
{
    char path[64];
    json_t *o = NULL;
    snprintf(path, sizeof(path), "/rollouts/%" PRIu64, rollout_id);
    int r = client_call(c, cl, "GET", path, NULL, NULL, &o);
    if (r < 0) {
        return r;
    }
    const uint64_t from = json_number(o, "from_snapshot_id");
    const uint64_t to = json_number(o, "snapshot_id");
    json_decref(o);
    return from != 0 ? diff(c, cl, from, to)
                     : cli_fail(c, -E_NOT_FOUND, "rollout %" PRIu64 " has left no other version",
                                rollout_id);
}

/* --- the way back --- */

int service_undo(struct cli *c, const struct client *cl, const char *project, const char *name,
                 const char *to, const char *reason, json_t **ret)
{
    char path[64];
    json_t *service = NULL;
    uint64_t version = 0;
    int r = get(c, cl, project, name, &service);
    r = r == 0 && to != NULL ? find_version(c, service, to, &version) : r;
    if (r < 0) {
        json_decref(service);
        return r;
    }
    json_t *body = json_object();
    if (version != 0) {
        json_object_set_new(body, "snapshot_id", json_integer((json_int_t)version));
    }
    if (reason != NULL) {
        json_object_set_new(body, "reason", json_string(reason));
    }
    snprintf(path, sizeof(path), "/services/%" PRIu64 "/undo", json_number(service, "id"));
    r = client_call(c, cl, "POST", path, body, NULL, ret);
    json_decref(body);
    json_decref(service);
    return r;
}
