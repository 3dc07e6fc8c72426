/* davit follow: a pipeline's jobs and logs until it ends. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/follow.h"
#include "common/str.h"

int follow_to_end(struct cli *c, const struct client *cl, uint64_t pipeline_id, bool quiet)
{
    struct follow_options o = {.quiet = quiet || c->json};
    char status[32] = "";
    char path[64];
    json_t *p = NULL;
    int r = follow_pipeline(c, cl, pipeline_id, &o, status, sizeof(status));
    if (r < 0) {
        return r;
    }
    snprintf(path, sizeof(path), "/pipelines/%" PRIu64, pipeline_id);
    r = client_call(c, cl, "GET", path, NULL, NULL, &p);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(p);
    } else {
        printf("\n");
        print_pipeline(c, p);
        print_failures(c, cl, p);
        json_decref(p);
    }
    return follow_exit_code(c, status);
}

int cmd_follow(struct cli *c, int argc, char **argv)
{
    bool quiet = false;
    uint64_t id;
    char path[64];
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"quiet", 'q', OPT_FLAG, &quiet, NULL, "no logs, only what becomes of the jobs"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 1, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    if (str_to_u64(str_from(args[0]), &id) < 0) {
        r = cli_fail(c, -E_USAGE, "a pipeline is named by its number, not `%s`", args[0]);
    }
    free(args);
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        snprintf(path, sizeof(path), "/pipelines/%" PRIu64, id);
        r = client_call(c, &cl, "GET", path, NULL, NULL, NULL); /* is there such a pipeline? */
        r = r < 0 ? r : follow_to_end(c, &cl, id, quiet);
        client_release(&cl);
    }
    return r;
}
