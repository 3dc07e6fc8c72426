/* davit logs: the bytes of a job's log. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/follow.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/str.h"

/* The log as a JSON text; what is no UTF-8 in it becomes a question mark. */
static int print_log_json(uint64_t job_id, struct buf *log)
{
    size_t at;
    struct str rest = buf_str(log);
    while (!str_is_utf8(rest, &at)) {
        size_t bad = log->n - rest.n + at;
        log->p[bad] = '?';
        rest = str_sub(buf_str(log), bad, log->n);
    }
    cli_print_json(json_pack("{s:I, s:o}", "job", (json_int_t)job_id, "log",
                             json_stringn(log->n > 0 ? log->p : "", log->n)));
    return 0;
}

static int print_log(struct cli *c, const struct client *cl, uint64_t job_id, uint64_t attempt)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    char path[96];
    int status = 0;
    snprintf(path, sizeof(path), "/jobs/%" PRIu64 "/log", job_id);
    if (attempt != 0) {
        snprintf(path, sizeof(path), "/jobs/%" PRIu64 "/log?attempt=%" PRIu64, job_id, attempt);
    }
    char *url = client_url(cl, path);
    req.url = url;
    req.token = cl->token;
    req.out_fd = c->json ? -1 : STDOUT_FILENO;
    req.out_limit = c->json ? 2 * LIMIT_LOG_BYTES : UINT64_MAX;
    int r = http_do(&req, &status, &out, &why);
    if (r < 0) {
        cli_fail(c, r, "cannot read the log: %s", buf_cstr(&why));
    } else if (status != 200) {
        r = client_problem(c, status, buf_str(&out));
    } else if (c->json) {
        r = print_log_json(job_id, &out);
    }
    free(url);
    buf_release(&out);
    buf_release(&why);
    return r;
}

int cmd_logs(struct cli *c, int argc, char **argv)
{
    bool follow = false;
    uint64_t attempt = 0;
    uint64_t pipeline = 0;
    uint64_t job_id;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"follow", 'f', OPT_FLAG, &follow, NULL, "go on until the job ends"},
        {"attempt", 'a', OPT_NUMBER, &attempt, "N", "of this attempt (the newest)"},
        {"pipeline", 'p', OPT_NUMBER, &pipeline, "ID",
         "JOB is a name in this pipeline (the newest)"},
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
        if (r == 0 && follow) {
            r = follow_log(c, &cl, job_id, attempt);
        }
        if (r == 0 && (!follow || c->json)) {
            r = print_log(c, &cl, job_id, attempt);
        }
        client_release(&cl);
    }
    free(args);
    return r;
}
