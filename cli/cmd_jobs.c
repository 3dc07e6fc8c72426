/* davit jobs: the newest jobs, of pipelines or not, or one of them. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/action.h"
#include "cli/list.h"

static const char *took(const json_t *j, char *text, size_t n)
{
    text[0] = '\0';
    if (json_text(j, "started_at")[0] != 0 && json_text(j, "finished_at")[0] != 0) {
        cli_duration(json_number(j, "duration_ms"), text, n);
    }
    return text;
}

static void print_line(const struct cli *c, const json_t *j)
{
    char time[32];
    struct str name = str_from(json_text(j, "name"));
    const char *reason = json_text(j, "reason");
    printf("%-8" PRIu64 " %-28.*s %-20s %-10s %-12s %s", json_number(j, "id"),
           (int)MIN(name.n, 60u), name.p, json_text(j, "project"), took(j, time, sizeof(time)),
           json_text(j, "worker"), cli_status(c, json_text(j, "status")));
    if (reason[0] != 0) {
        printf(" (%s)", reason);
    }
    if (json_text(j, "starts_at")[0] != 0) {
        printf(" until %s", json_text(j, "starts_at"));
    }
    if (json_number(j, "pipeline_id") != 0) {
        printf(", pipeline %" PRIu64, json_number(j, "pipeline_id"));
    }
    printf("\n");
}

static int list_jobs(struct cli *c, const struct client *cl, const char *project,
                     const char *status, bool actions, uint64_t limit)
{
    struct buf query = BUF_INIT;
    json_t *list = NULL;
    size_t i;
    json_t *j;
    buf_addz(&query, actions ? "actions=true" : "actions=false");
    if (project != NULL) {
        buf_addz(&query, "&project=");
        list_escape(&query, project);
    }
    if (status != NULL) {
        buf_addz(&query, "&status=");
        list_escape(&query, status);
    }
    int r = list_fetch(c, cl, "jobs", buf_cstr(&query), limit, &list);
    buf_release(&query);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", list));
        return 0;
    }
    json_array_foreach(list, i, j)
    {
        print_line(c, j);
    }
    if (json_array_size(list) == 0) {
        printf("no such jobs\n");
    }
    json_decref(list);
    return 0;
}

static void print_field(const char *name, const char *value)
{
    if (value[0] != 0) {
        printf("  %-14s %s\n", name, value);
    }
}

static void print_attempts(const struct cli *c, const json_t *attempts)
{
    size_t i;
    json_t *a;
    json_array_foreach(attempts, i, a)
    {
        printf("  attempt %" PRIu64 " on %s: %s", json_number(a, "attempt"), json_text(a, "worker"),
               cli_status(c, json_text(a, "status")));
        if (json_text(a, "reason")[0] != 0) {
            printf(" (%s)", json_text(a, "reason"));
        }
        printf("%s%s\n", json_text(a, "detail")[0] != 0 ? ": " : "", json_text(a, "detail"));
        action_print(json_object_get(a, "action"));
    }
}

static void print_script(const json_t *lines)
{
    size_t i;
    json_t *line;
    json_array_foreach(lines, i, line)
    {
        printf("  $ %s\n", json_string_value(line));
    }
}

static void print_whole(const struct cli *c, const json_t *j)
{
    static const char *const fields[][2] = {{"project", "project"},
                                            {"stage", "stage"},
                                            {"pool", "pool"},
                                            {"executor", "executor"},
                                            {"resource group", "resource_group"},
                                            {"submitted by", "submitted_by"},
                                            {"created", "created_at"},
                                            {"may start", "starts_at"},
                                            {"queued", "queued_at"},
                                            {"started", "started_at"},
                                            {"ended", "finished_at"}};
    size_t i;
    json_t *tag;
    print_line(c, j);
    for (i = 0; i < ARRAY_LEN(fields); i++) {
        print_field(fields[i][0], json_text(j, fields[i][1]));
    }
    json_array_foreach(json_object_get(j, "tags"), i, tag)
    {
        print_field("tag", json_string_value(tag));
    }
    if (json_integer_value(json_object_get(j, "priority")) != 0) {
        printf("  %-14s %d\n", "priority", (int)json_integer_value(json_object_get(j, "priority")));
    }
    print_script(json_object_get(j, "script"));
    print_attempts(c, json_object_get(j, "attempts"));
}

static int show_job(struct cli *c, const struct client *cl, const char *name)
{
    char path[64];
    uint64_t id;
    json_t *j = NULL;
    int r = client_find_job(c, cl, name, 0, &id);
    if (r == 0) {
        snprintf(path, sizeof(path), "/jobs/%" PRIu64, id);
        r = client_call(c, cl, "GET", path, NULL, NULL, &j);
    }
    if (r == 0 && c->json) {
        cli_print_json(j);
    } else if (r == 0) {
        print_whole(c, j);
        json_decref(j);
    }
    return r;
}

int cmd_jobs(struct cli *c, int argc, char **argv)
{
    const char *project = NULL;
    const char *status = NULL;
    uint64_t limit = 20;
    bool actions = false;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"project", 0, OPT_TEXT, &project, "NAME", "only of this project"},
        {"status", 0, OPT_TEXT, &status, "STATUS", "only those that are pending, running, ..."},
        {"actions", 0, OPT_FLAG, &actions, NULL, "also what rollouts ask of drivers"},
        {"limit", 'n', OPT_NUMBER, &limit, "N", "how many to list (20)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    if (limit == 0) {
        r = cli_fail(c, -E_USAGE, "--limit is 1 or more");
    }
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = count == 1 ? show_job(c, &cl, args[0])
                       : list_jobs(c, &cl, project, status, actions, limit);
        client_release(&cl);
    }
    free(args);
    return r;
}
