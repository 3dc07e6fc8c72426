/* davit status: the newest pipelines, or one with its jobs. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/follow.h"
#include "common/str.h"

#define NAME_WIDTH_MIN 28u /* of the column of job names */
#define NAME_WIDTH_MAX 60u
#define FAILURES_MAX   20u

/* What only some jobs have. */
static void print_more(const json_t *j)
{
    const json_t *environment = json_object_get(j, "environment");
    const json_t *coverage = json_object_get(j, "coverage");
    if (json_is_number(coverage)) {
        printf(", coverage %.2f %%", json_number_value(coverage));
    }
    if (json_is_object(environment)) {
        printf(", environment %s", json_text(environment, "name"));
    }
    if (json_number(j, "child_pipeline_id") != 0) {
        printf(", pipeline %" PRIu64, json_number(j, "child_pipeline_id"));
    }
    if (strcmp(json_text(j, "status"), "manual") == 0 &&
        json_text(j, "manual_confirmation")[0] != 0) {
        printf(", asks: %s", json_text(j, "manual_confirmation"));
    }
}

static void print_job(const struct cli *c, const json_t *j, int name_width)
{
    char took[32] = "";
    const char *reason = json_text(j, "reason");
    const char *worker = json_text(j, "worker");
    if (json_text(j, "started_at")[0] != 0) {
        cli_duration(json_number(j, "duration_ms"), took, sizeof(took));
    }
    printf("  %-8" PRIu64 " %-*s %-12s %-10s %-12s", json_number(j, "id"), name_width,
           json_text(j, "name"), json_text(j, "stage"), took, worker);
    printf(" %s", cli_status(c, json_text(j, "status")));
    if (reason[0] != 0) {
        printf(" (%s)", reason);
    }
    if (json_number(j, "attempt") > 1) {
        printf(", attempt %" PRIu64, json_number(j, "attempt"));
    }
    print_more(j);
    if (json_flag(j, "allow_failure") && strcmp(json_text(j, "status"), "failed") == 0) {
        printf(", allowed");
    }
    printf("\n");
}

static int name_width(const json_t *jobs)
{
    size_t i;
    size_t width = NAME_WIDTH_MIN;
    json_t *j;
    json_array_foreach(jobs, i, j)
    {
        width = MAX(width, strlen(json_text(j, "name")));
    }
    return (int)MIN(width, NAME_WIDTH_MAX);
}

static void print_failure(struct cli *c, const struct client *cl, const json_t *j)
{
    char path[64];
    json_t *job = NULL;
    snprintf(path, sizeof(path), "/jobs/%" PRIu64, json_number(j, "id"));
    if (client_call(c, cl, "GET", path, NULL, NULL, &job) < 0) {
        return;
    }
    const json_t *attempts = json_object_get(job, "attempts");
    size_t count = json_array_size(attempts);
    const char *detail = count > 0 ? json_text(json_array_get(attempts, count - 1), "detail") : "";
    if (detail[0] != 0) {
        printf("%s: %s\n", json_text(j, "name"), detail);
    }
    json_decref(job);
}

void print_failures(struct cli *c, const struct client *cl, const json_t *pipeline)
{
    size_t i;
    size_t printed = 0;
    json_t *j;
    json_array_foreach(json_object_get(pipeline, "jobs"), i, j)
    {
        if (strcmp(json_text(j, "status"), "failed") == 0 &&
            strcmp(json_text(j, "reason"), "script_failure") != 0 && printed < FAILURES_MAX) {
            print_failure(c, cl, j);
            printed++;
        }
    }
}

void print_pipeline(const struct cli *c, const json_t *pipeline)
{
    size_t i;
    json_t *j;
    const int width = name_width(json_object_get(pipeline, "jobs"));
    const json_t *coverage = json_object_get(pipeline, "coverage");
    printf("pipeline %" PRIu64 "  %s  %s  %.8s  %s", json_number(pipeline, "id"),
           json_text(pipeline, "project"), json_text(pipeline, "ref"), json_text(pipeline, "sha"),
           cli_status(c, json_text(pipeline, "status")));
    if (json_is_number(coverage)) {
        printf("  coverage %.2f %%", json_number_value(coverage));
    }
    if (json_number(pipeline, "parent_pipeline_id") != 0) {
        printf("  of pipeline %" PRIu64, json_number(pipeline, "parent_pipeline_id"));
    }
    printf("\n");
    json_array_foreach(json_object_get(pipeline, "jobs"), i, j)
    {
        print_job(c, j, width);
    }
}

static void print_list(const struct cli *c, const json_t *list)
{
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(list, "items"), i, p)
    {
        printf("%-8" PRIu64 " %-24s %-20s %.8s  %s  %s", json_number(p, "id"),
               json_text(p, "project"), json_text(p, "ref"), json_text(p, "sha"),
               json_text(p, "created_at"), cli_status(c, json_text(p, "status")));
        if (json_number(p, "parent_pipeline_id") != 0) {
            printf("  of %" PRIu64, json_number(p, "parent_pipeline_id"));
        }
        printf("\n");
    }
    if (json_array_size(json_object_get(list, "items")) == 0) {
        printf("no pipelines yet; davit submit makes one\n");
    }
}

int cmd_status(struct cli *c, int argc, char **argv)
{
    uint64_t limit = 20;
    uint64_t id = 0;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"limit", 'n', OPT_NUMBER, &limit, "N", "how many pipelines to list (20)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    char path[64];
    json_t *answer = NULL;
    int r = cli_options(c, opts, argc, argv, 0, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    if (count == 1 && str_to_u64(str_from(args[0]), &id) < 0) {
        r = cli_fail(c, -E_USAGE, "a pipeline is named by its number, not `%s`", args[0]);
    }
    snprintf(path, sizeof(path), count == 1 ? "/pipelines/%" PRIu64 : "/pipelines?limit=%" PRIu64,
             count == 1 ? id : limit);
    free(args);
    r = r < 0 ? r : client_open(c, &cl);
    if (r < 0) {
        return r;
    }
    r = client_call(c, &cl, "GET", path, NULL, NULL, &answer);
    if (r == 0 && c->json) {
        cli_print_json(answer);
    } else if (r == 0) {
        if (count == 1) {
            print_pipeline(c, answer);
            print_failures(c, &cl, answer);
        } else {
            print_list(c, answer);
        }
        json_decref(answer);
    }
    client_release(&cl);
    return r;
}
