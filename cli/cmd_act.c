/* davit cancel, retry: one POST on a pipeline or a job. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "common/str.h"

static int post(struct cli *c, const struct client *cl, const char *what, uint64_t id,
                const char *verb)
{
    char path[64];
    json_t *o = NULL;
    snprintf(path, sizeof(path), "/%s/%" PRIu64 "/%s", what, id, verb);
    int r = client_call(c, cl, "POST", path, NULL, NULL, &o);
    if (r == 0 && c->json) {
        cli_print_json(o);
    } else if (r == 0) {
        printf("%s %" PRIu64 " %s\n", strcmp(what, "jobs") == 0 ? "job" : "pipeline", id,
               cli_status(c, json_text(o, "status")));
        json_decref(o);
    }
    return r;
}

/* The argument is a pipeline, unless --job names a job. */
static int act(struct cli *c, int argc, char **argv, const char *verb)
{
    const char *job = NULL;
    uint64_t pipeline = 0;
    uint64_t id = 0;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"job", 0, OPT_TEXT, &job, "JOB", "this job: a number, or a name in PIPELINE"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    if (count == 1 && str_to_u64(str_from(args[0]), &pipeline) < 0) {
        r = cli_fail(c, -E_USAGE, "a pipeline is named by its number, not `%s`", args[0]);
    } else if (count == 0 && job == NULL) {
        r = cli_fail(c, -E_USAGE, "which pipeline, or --job JOB?");
    }
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        if (job != NULL) {
            r = client_find_job(c, &cl, job, pipeline, &id);
        }
        if (r == 0) {
            r = post(c, &cl, job != NULL ? "jobs" : "pipelines", job != NULL ? id : pipeline, verb);
        }
        client_release(&cl);
    }
    free(args);
    return r;
}

int cmd_cancel(struct cli *c, int argc, char **argv)
{
    return act(c, argc, argv, "cancel");
}

int cmd_retry(struct cli *c, int argc, char **argv)
{
    return act(c, argc, argv, "retry");
}
