/* davit play: starts a manual or delayed job; asks first where its author wants that. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/client.h"

/* At a terminal people are asked; scripts have to say it beforehand. */
static int confirm(struct cli *c, const char *question)
{
    char answer[16] = "";
    if (c->json || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
        return cli_fail(c, -E_CONFLICT, "%s (confirm with --yes)", question);
    }
    fprintf(stderr, "%s [y/N] ", question);
    fflush(stderr);
    bool read = fgets(answer, sizeof(answer), stdin) != NULL;
    return read && (answer[0] == 'y' || answer[0] == 'Y') ? 0
                                                          : cli_fail(c, -E_CANCELED, "not started");
}

/* Whether the job wants to be confirmed, and was. */
static int ask(struct cli *c, const struct client *cl, uint64_t job_id, bool *ret_confirmed)
{
    char path[64];
    json_t *job = NULL;
    snprintf(path, sizeof(path), "/jobs/%" PRIu64, job_id);
    int r = client_call(c, cl, "GET", path, NULL, NULL, &job);
    const char *question = json_text(job, "manual_confirmation");
    if (r == 0 && question[0] != '\0') {
        r = confirm(c, question);
        *ret_confirmed = r == 0;
    }
    json_decref(job);
    return r;
}

static int play(struct cli *c, const struct client *cl, uint64_t job_id, bool confirmed)
{
    char path[64];
    json_t *job = NULL;
    json_t *body = json_pack("{s:b}", "confirmed", (int)confirmed);
    snprintf(path, sizeof(path), "/jobs/%" PRIu64 "/play", job_id);
    int r = client_call(c, cl, "POST", path, body, NULL, &job);
    json_decref(body);
    if (r == 0 && c->json) {
        cli_print_json(job);
    } else if (r == 0) {
        printf("job %" PRIu64 " %s\n", job_id, cli_status(c, json_text(job, "status")));
        json_decref(job);
    }
    return r;
}

int cmd_play(struct cli *c, int argc, char **argv)
{
    bool yes = false;
    uint64_t pipeline = 0;
    uint64_t job_id;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"pipeline", 'p', OPT_NUMBER, &pipeline, "ID",
         "JOB is a name in this pipeline (the newest)"},
        {"yes", 'y', OPT_FLAG, &yes, NULL, "confirm what the job asks (manual_confirmation)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 1, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    r = client_open(c, &cl);
    if (r == 0) {
        r = client_find_job(c, &cl, args[0], pipeline, &job_id);
        if (r == 0 && !yes) {
            r = ask(c, &cl, job_id, &yes);
        }
        r = r < 0 ? r : play(c, &cl, job_id, yes);
        client_release(&cl);
    }
    free(args);
    return r;
}
