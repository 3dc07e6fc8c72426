/* davit pools, projects, resource-groups: what is set of them, and setting it. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/list.h"

#define ALL 100000u

/* "no", "yes": -E_USAGE for anything else. NULL: not given. */
static int add_flag(const struct cli *c, json_t *body, const char *field, const char *text)
{
    if (text == NULL) {
        return 0;
    }
    bool yes = strcmp(text, "yes") == 0;
    if (!yes && strcmp(text, "no") != 0) {
        return cli_fail(c, -E_USAGE, "`%s` is yes or no, not `%s`", field, text);
    }
    json_object_set_new(body, field, json_boolean(yes));
    return 0;
}

static int add_number(const struct cli *c, json_t *body, const char *field, const char *text)
{
    uint64_t n;
    if (text == NULL) {
        return 0;
    }
    if (str_to_u64(str_from(text), &n) < 0 || n > INT64_MAX) {
        return cli_fail(c, -E_USAGE, "`%s` is a number, not `%s`", field, text);
    }
    json_object_set_new(body, field, json_integer((json_int_t)n));
    return 0;
}

/* A PUT or DELETE on /WHAT/NAME. *ret (may be NULL) is the answer. */
static int act(struct cli *c, const struct client *cl, const char *method, const char *what,
               const char *name, const json_t *body, json_t **ret)
{
    struct buf path = BUF_INIT;
    buf_addf(&path, "/%s/", what);
    list_escape(&path, name);
    int r = client_call(c, cl, method, buf_cstr(&path), body, NULL, ret);
    buf_release(&path);
    return r;
}

/* "-" for 0. */
static const char *bound(uint64_t n, char *text, size_t size)
{
    snprintf(text, size, n == 0 ? "-" : "%" PRIu64, n);
    return text;
}

/* --- pools --- */

struct pool_options {
    const char *projects;
    const char *protected;
    const char *locked;
    const char *preempt;
    const char *max_running;
    const char *project_max_running;
    const char *queue_timeout;
    const char *heartbeat_ms;
    const char *suspect_ms;
    const char *lease_ms;
    const char *on_worker_lost;
};

static void print_pool(const json_t *p)
{
    char most[24], each[24], busy[32], wait[32] = "-";
    size_t i;
    json_t *project;
    uint64_t wait_ms = json_number(p, "queue_timeout_ms");
    snprintf(busy, sizeof(busy), "%" PRIu64 "/%" PRIu64, json_number(p, "busy"),
             json_number(p, "slots"));
    printf("%-20s %-8" PRIu64 " %-9s %-6s %-12s %-10s", json_text(p, "name"),
           json_number(p, "online"), busy, bound(json_number(p, "max_running"), most, sizeof(most)),
           bound(json_number(p, "project_max_running"), each, sizeof(each)),
           wait_ms > 0 ? cli_duration(wait_ms, wait, sizeof(wait)) : wait);
    printf("%s%s%s", json_flag(p, "protected") ? " protected" : "",
           json_flag(p, "locked") ? " locked" : "", json_flag(p, "preempt") ? " preempt" : "");
    if (json_number(p, "lease_ms") > 0) {
        printf(" lease %s", cli_duration(json_number(p, "lease_ms"), wait, sizeof(wait)));
    }
    if (strcmp(json_text(p, "on_worker_lost"), "requeue") != 0) {
        printf(" lost: %s", json_text(p, "on_worker_lost"));
    }
    printf("%s", json_flag(p, "declared") ? " declared" : "");
    json_array_foreach(json_object_get(p, "projects"), i, project)
    {
        printf("%s%s", i == 0 ? " for " : ", ", json_string_value(project));
    }
    printf("\n");
}

static void print_pools_head(void)
{
    printf("%-20s %-8s %-9s %-6s %-12s %s\n", "POOL", "WORKERS", "BUSY", "MOST", "EACH PROJECT",
           "WAIT");
}

static int list_pools(struct cli *c, const struct client *cl)
{
    json_t *list = NULL;
    size_t i;
    json_t *p;
    int r = list_fetch(c, cl, "pools", "", ALL, &list);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", list));
        return 0;
    }
    if (json_array_size(list) == 0) {
        printf("no pools: every worker takes the jobs of all projects\n");
    } else {
        print_pools_head();
    }
    json_array_foreach(list, i, p)
    {
        print_pool(p);
    }
    json_decref(list);
    return 0;
}

static int read_pool(const struct cli *c, const struct pool_options *o, json_t *body)
{
    int r;
    if (o->projects != NULL) {
        json_object_set_new(body, "projects", list_words(o->projects));
    }
    if (o->on_worker_lost != NULL) {
        json_object_set_new(body, "on_worker_lost", json_string(o->on_worker_lost));
    }
    if (o->queue_timeout != NULL) {
        json_object_set_new(body, "queue_timeout", json_string(o->queue_timeout));
    }
    if ((r = add_flag(c, body, "protected", o->protected)) < 0 ||
        (r = add_flag(c, body, "locked", o->locked)) < 0 ||
        (r = add_flag(c, body, "preempt", o->preempt)) < 0 ||
        (r = add_number(c, body, "max_running", o->max_running)) < 0 ||
        (r = add_number(c, body, "heartbeat_ms", o->heartbeat_ms)) < 0 ||
        (r = add_number(c, body, "suspect_ms", o->suspect_ms)) < 0 ||
        (r = add_number(c, body, "lease_ms", o->lease_ms)) < 0) {
        return r;
    }
    return add_number(c, body, "project_max_running", o->project_max_running);
}

static int set_pool(struct cli *c, const struct client *cl, const char *name,
                    const struct pool_options *o)
{
    json_t *body = json_object();
    json_t *p = NULL;
    int r = read_pool(c, o, body);
    r = r < 0 ? r : act(c, cl, "PUT", "pools", name, body, &p);
    json_decref(body);
    if (r == 0 && c->json) {
        cli_print_json(p);
    } else if (r == 0) {
        print_pools_head();
        print_pool(p);
        json_decref(p);
    }
    return r;
}

static int delete_pool(struct cli *c, const struct client *cl, const char *name)
{
    json_t *answer = NULL;
    int r = act(c, cl, "DELETE", "pools", name, NULL, &answer);
    if (r == 0 && c->json) {
        cli_print_json(answer);
    } else if (r == 0) {
        printf("pool %s deleted\n", name);
        json_decref(answer);
    }
    return r;
}

int cmd_pools(struct cli *c, int argc, char **argv)
{
    struct pool_options o = {0};
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"projects", 0, OPT_TEXT, &o.projects, "NAME,...", "whose jobs; group/*; '' for all"},
        {"protected", 0, OPT_TEXT, &o.protected, "yes|no", "only jobs of protected refs"},
        {"locked", 0, OPT_TEXT, &o.locked, "yes|no", "only jobs that name the pool"},
        {"preempt", 0, OPT_TEXT, &o.preempt, "yes|no", "higher priorities displace jobs"},
        {"max-running", 0, OPT_TEXT, &o.max_running, "N", "jobs in it at once; 0: no bound"},
        {"project-max-running", 0, OPT_TEXT, &o.project_max_running, "N", "the same, a project"},
        {"queue-timeout", 0, OPT_TEXT, &o.queue_timeout, "TIME", "jobs wait so long; 0: for ever"},
        {"heartbeat-ms", 0, OPT_TEXT, &o.heartbeat_ms, "N",
         "workers beat so often; 0: as davitd says"},
        {"suspect-ms", 0, OPT_TEXT, &o.suspect_ms, "N", "silent for longer: no new work"},
        {"lease-ms", 0, OPT_TEXT, &o.lease_ms, "N", "silent for so long: lost"},
        {"on-worker-lost", 0, OPT_TEXT, &o.on_worker_lost, "HOW", "requeue, fail or wait"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    bool set = count == 2 && strcmp(args[0], "set") == 0;
    bool delete = count == 2 && strcmp(args[0], "delete") == 0;
    if (count > 0 && !set && !delete) {
        r = cli_fail(c, -E_USAGE, "davit pools, pools set POOL, or pools delete POOL");
    }
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = set      ? set_pool(c, &cl, args[1], &o)
            : delete ? delete_pool(c, &cl, args[1])
                     : list_pools(c, &cl);
        client_release(&cl);
    }
    free(args);
    return r;
}

/* --- projects --- */

static void print_names(const json_t *names, const char *before)
{
    size_t i;
    json_t *name;
    json_array_foreach(names, i, name)
    {
        printf("%s%s", i == 0 ? before : ", ", json_string_value(name));
    }
}

static void print_project(const json_t *p)
{
    char most[24];
    const json_t *branches = json_object_get(p, "protected_branches");
    const json_t *tags = json_object_get(p, "protected_tags");
    const char *main_branch = json_text(p, "default_branch");
    printf("%-32s %-7" PRIu64 " %s\n", json_text(p, "name"), json_number(p, "weight"),
           bound(json_number(p, "max_running"), most, sizeof(most)));
    if (main_branch[0] != '\0' || json_array_size(branches) > 0 || json_array_size(tags) > 0) {
        printf("  protected: %s", main_branch[0] != '\0' ? main_branch : "the default branch");
        print_names(branches, ", ");
        print_names(tags, "; tags ");
        printf("\n");
    }
}

static int list_projects(struct cli *c, const struct client *cl)
{
    json_t *list = NULL;
    size_t i;
    json_t *p;
    int r = list_fetch(c, cl, "projects", "", ALL, &list);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", list));
        return 0;
    }
    printf("%-32s %-7s %s\n", "PROJECT", "WEIGHT", "MOST");
    json_array_foreach(list, i, p)
    {
        print_project(p);
    }
    json_decref(list);
    return 0;
}

struct project_options {
    const char *weight;
    const char *max_running;
    const char *default_branch;
    const char *branches;
    const char *tags;
};

static int set_project(struct cli *c, const struct client *cl, const char *name,
                       const struct project_options *o)
{
    json_t *body = json_object();
    json_t *p = NULL;
    int r = add_number(c, body, "weight", o->weight);
    r = r < 0 ? r : add_number(c, body, "max_running", o->max_running);
    if (o->default_branch != NULL) {
        json_object_set_new(body, "default_branch", json_string(o->default_branch));
    }
    if (o->branches != NULL) {
        json_object_set_new(body, "protected_branches", list_words(o->branches));
    }
    if (o->tags != NULL) {
        json_object_set_new(body, "protected_tags", list_words(o->tags));
    }
    r = r < 0 ? r : act(c, cl, "PUT", "projects", name, body, &p);
    json_decref(body);
    if (r == 0 && c->json) {
        cli_print_json(p);
    } else if (r == 0) {
        print_project(p);
        json_decref(p);
    }
    return r;
}

int cmd_projects(struct cli *c, int argc, char **argv)
{
    struct project_options o = {.weight = NULL};
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"weight", 0, OPT_TEXT, &o.weight, "N", "its share beside others, 1 to 1000 (100)"},
        {"max-running", 0, OPT_TEXT, &o.max_running, "N", "jobs at once; 0: no bound"},
        {"default-branch", 0, OPT_TEXT, &o.default_branch, "NAME",
         "which is protected; '' for what each submit says"},
        {"protected-branches", 0, OPT_TEXT, &o.branches, "NAME,...",
         "protected, too; release/*; '' for no others"},
        {"protected-tags", 0, OPT_TEXT, &o.tags, "NAME,...", "protected tags; v*; '' for none"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    if (count == 1 || (count == 2 && strcmp(args[0], "set") != 0)) {
        r = cli_fail(c, -E_USAGE, "davit projects, or davit projects set PROJECT");
    }
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = count == 2 ? set_project(c, &cl, args[1], &o) : list_projects(c, &cl);
        client_release(&cl);
    }
    free(args);
    return r;
}

/* --- resource groups --- */

static void print_group(const json_t *g)
{
    char holder[32] = "free";
    if (json_number(g, "holder") > 0) {
        snprintf(holder, sizeof(holder), "job %" PRIu64, json_number(g, "holder"));
    }
    printf("%-32s %-20s %-14s %zu wait\n", json_text(g, "name"), json_text(g, "mode"), holder,
           json_array_size(json_object_get(g, "waiting")));
}

static int list_groups(struct cli *c, const struct client *cl, const char *project)
{
    json_t *list = NULL;
    size_t i;
    json_t *g;
    int r = list_of_project(c, cl, "resource-groups", project, "", &list);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", list));
        return 0;
    }
    json_array_foreach(list, i, g)
    {
        print_group(g);
    }
    if (json_array_size(list) == 0) {
        printf("no resource group has a mode: all are unordered\n");
    }
    json_decref(list);
    return 0;
}

static int set_group(struct cli *c, const struct client *cl, const char *project, const char *name,
                     const char *mode)
{
    struct buf path = BUF_INIT;
    json_t *g = NULL;
    json_t *body = json_pack("{s:s}", "mode", mode);
    buf_addz(&path, "/resource-groups/");
    list_escape(&path, name);
    buf_addz(&path, "?project=");
    list_escape(&path, project);
    int r = client_call(c, cl, "PUT", buf_cstr(&path), body, NULL, &g);
    json_decref(body);
    buf_release(&path);
    if (r == 0 && c->json) {
        cli_print_json(g);
    } else if (r == 0) {
        print_group(g);
        json_decref(g);
    }
    return r;
}

int cmd_resource_groups(struct cli *c, int argc, char **argv)
{
    const char *named = NULL;
    const char *mode = NULL;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"project", 0, OPT_TEXT, &named, "NAME", "the project (that of this folder)"},
        {"mode", 0, OPT_TEXT, &mode, "MODE",
         "unordered, oldest_first, newest_first, newest_ready_first"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    if (count == 1 || (count == 2 && (strcmp(args[0], "set") != 0 || mode == NULL))) {
        r = cli_fail(c, -E_USAGE,
                     "davit resource-groups, or resource-groups set GROUP --mode MODE");
    }
    char *project = r < 0 ? NULL : list_project(c, named);
    r = r == 0 && project == NULL ? -E_NOT_FOUND : r;
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = count == 2 ? set_group(c, &cl, project, args[1], mode) : list_groups(c, &cl, project);
        client_release(&cl);
    }
    free(project);
    free(args);
    return r;
}
