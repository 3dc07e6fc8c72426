/* davit why: what a job waits for. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"

static void print_why(const json_t *o)
{
    size_t i;
    json_t *w;
    printf("%s\n", json_text(o, "summary"));
    if (json_number(o, "position") > 0) {
        printf("  place in its queue: %" PRIu64 "%s\n", json_number(o, "position"),
               json_is_true(json_object_get(o, "position_or_more")) ? " or later" : "");
    }
    if (json_is_integer(json_object_get(o, "estimate_ms"))) {
        printf("  begins in about %" PRIu64 " s, as jobs like it went lately\n",
               (json_number(o, "estimate_ms") + 999) / 1000);
    }
    if (json_number(o, "holder") > 0) {
        printf("  held up by job %" PRIu64 "\n", json_number(o, "holder"));
    }
    json_array_foreach(json_object_get(o, "workers"), i, w)
    {
        printf("  worker %-20s %s\n", json_text(w, "name"), json_text(w, "reason"));
    }
    json_array_foreach(json_object_get(o, "empty_pools"), i, w)
    {
        printf("  pool %-22s no worker\n", json_string_value(w));
    }
}

int cmd_why(struct cli *c, int argc, char **argv)
{
    uint64_t pipeline = 0;
    uint64_t job_id;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"pipeline", 'p', OPT_NUMBER, &pipeline, "ID",
         "JOB is a name in this pipeline (the newest)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    json_t *o = NULL;
    char path[64];
    int r = cli_options(c, opts, argc, argv, 1, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    r = client_open(c, &cl);
    if (r == 0) {
        r = client_find_job(c, &cl, args[0], pipeline, &job_id);
        if (r == 0) {
            snprintf(path, sizeof(path), "/jobs/%" PRIu64 "/why", job_id);
            r = client_call(c, &cl, "GET", path, NULL, NULL, &o);
        }
        client_release(&cl);
    }
    if (r == 0 && c->json) {
        cli_print_json(o);
    } else if (r == 0) {
        print_why(o);
        json_decref(o);
    }
    free(args);
    return r;
}
