/* davit run: the pipeline of a folder, on a private broker and worker that live as long as it. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/stack.h"
#include "cli/submit.h"
#include "common/limits.h"
#include "common/os.h"

#define EXIT_INTERRUPTED 130

struct run {
    struct cli *c;
    struct stack *stack;
    uint64_t pipeline_id;
    int cancels; /* sent so far */
};

/* The first Ctrl-C cancels, the second kills what runs, the third leaves at once. */
static bool tick(void *ctx)
{
    struct run *run = ctx;
    char path[64];
    if (!stack_tick(run->stack)) {
        cli_fail(run->c, -E_FAILED, "the broker or the worker ended");
        return false;
    }
    if (interrupt_count() > run->cancels) {
        run->cancels++;
        fprintf(stderr, "davit: %s\n", run->cancels == 1 ? "canceling; again to kill" : "killing");
        snprintf(path, sizeof(path), "/pipelines/%" PRIu64 "/cancel", run->pipeline_id);
        client_call(run->c, stack_client(run->stack), "POST", path, NULL, NULL, NULL);
    }
    return run->cancels < 3;
}

static int print_result(struct run *run, const char *status, uint64_t started_ms)
{
    char path[64];
    char took[32];
    json_t *p = NULL;
    snprintf(path, sizeof(path), "/pipelines/%" PRIu64, run->pipeline_id);
    int r = client_call(run->c, stack_client(run->stack), "GET", path, NULL, NULL, &p);
    if (r < 0) {
        return r;
    }
    if (run->c->json) {
        cli_print_json(p);
        return 0;
    }
    printf("\n");
    print_pipeline(run->c, p);
    print_failures(run->c, stack_client(run->stack), p);
    printf("pipeline %s in %s\n", cli_status(run->c, status),
           cli_duration(os_monotonic_ms() - started_ms, took, sizeof(took)));
    json_decref(p);
    if (strcmp(status, "manual") == 0 || strcmp(status, "skipped") == 0) {
        fprintf(stderr, "davit: manual jobs wait; davit run JOB starts one\n");
    }
    return 0;
}

/* With the stack running: submits, follows, and says by the result how it went. */
static int run_pipeline(struct run *run, struct repo *repo, struct request *request, bool quiet)
{
    struct follow_options follow = {.quiet = quiet || run->c->json, .tick = tick, .ctx = run};
    char status[32] = "";
    json_t *p = NULL;
    uint64_t started_ms = os_monotonic_ms();
    int r = submit_snapshot(run->c, stack_client(run->stack), repo, request);
    r = r < 0 ? r : submit_send(run->c, stack_client(run->stack), request, &p);
    if (r < 0) {
        return r;
    }
    run->pipeline_id = json_number(p, "id");
    json_decref(p);
    r = follow_pipeline(run->c, stack_client(run->stack), run->pipeline_id, &follow, status,
                        sizeof(status));
    if (r < 0) {
        return run->cancels > 0 ? EXIT_INTERRUPTED : r;
    }
    r = print_result(run, status, started_ms);
    if (r < 0) {
        return r;
    }
    if (run->cancels > 0) {
        return EXIT_INTERRUPTED;
    }
    return follow_exit_code(run->c, status);
}

static int run_in(struct cli *c, const char *data, struct repo *repo, struct request *request,
                  const struct stack_options *stack_options, bool quiet)
{
    struct run run = {.c = c};
    struct stack_options o = *stack_options;
    o.data = data;
    interrupt_catch();
    int r = stack_start(c, &o, &run.stack);
    if (r == 0) {
        r = run_pipeline(&run, repo, request, quiet);
        stack_stop(run.stack, run.cancels >= 3);
    }
    return r;
}

static bool has_tag(struct str list, const char *tag)
{
    struct str item;
    while (str_split(&list, ',', &item)) {
        if (str_eqz(str_trim(item), tag)) {
            return true;
        }
    }
    return false;
}

/* A job that no worker takes would wait for ever, for here is only one. */
static int check_tags(struct cli *c, const Pb__Plan *plan, const char *claimed)
{
    struct buf tags = BUF_INIT; /* all that are wanted */
    const char *first = NULL;
    int r = 0;
    buf_addz(&tags, claimed != NULL ? claimed : "");
    for (size_t i = 0; i < plan->n_jobs; i++) {
        const Pb__PlanJob *job = plan->jobs[i];
        for (size_t k = 0; k < job->n_tags && job->when != WHEN_MANUAL && !job->trigger; k++) {
            if (!has_tag(buf_str(&tags), job->tags[k])) {
                buf_addf(&tags, "%s%s", tags.n > 0 ? "," : "", job->tags[k]);
                first = first != NULL ? first : job->name;
            }
        }
    }
    if (first != NULL) {
        r = cli_fail(c, -E_USAGE,
                     "job `%s` wants a worker with other tags; --tags '%s' says that this machine "
                     "will do for all of them",
                     first, buf_cstr(&tags));
    }
    buf_release(&tags);
    return r;
}

/* The first job that wants a container and leaves it to us who makes it, or NULL. */
static const Pb__PlanJob *find_contained(const Pb__Plan *plan)
{
    for (size_t i = 0; i < plan->n_jobs; i++) {
        const Pb__PlanJob *job = plan->jobs[i];
        bool contained = job->image != NULL || job->n_services > 0;
        if (contained && job->executor[0] == '\0' && job->when != WHEN_MANUAL) {
            return job;
        }
    }
    return NULL;
}

/* As with tags: what no worker here can run would wait for ever. */
static int choose_executors(struct cli *c, const Pb__Plan *plan, const char **executors)
{
    const Pb__PlanJob *job = find_contained(plan);
    if (job == NULL) {
        return 0;
    }
    if (*executors == NULL) {
        *executors = "shell,docker";
    } else if (!has_tag(str_from(*executors), "docker")) {
        return cli_fail(c, -E_USAGE,
                        "job `%s` has an image or services: it needs the executor docker",
                        job->name);
    }
    return 0;
}

static int run_in_temp_dir(struct cli *c, struct repo *repo, struct request *request,
                           const struct stack_options *stack_options, bool quiet, bool keep)
{
    char *data = os_make_temp_dir("davit-run");
    if (data == NULL) {
        return cli_fail(c, -E_IO, "cannot make a folder in %s", os_temp_dir());
    }
    int r = run_in(c, data, repo, request, stack_options, quiet);
    if (keep) {
        fprintf(stderr, "davit: kept %s\n", data);
    } else {
        os_remove_tree(data);
    }
    free(data);
    return r;
}

int cmd_run(struct cli *c, int argc, char **argv)
{
    struct request_options request_options = {0};
    struct stack_options stack_options = {
        .listen = "tcp://127.0.0.1:0",
        .http = "127.0.0.1:0",
        .workers = 1,
        .slots = (uint64_t)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1),
        .logs_to_files = true,
        .restart = true,
    };
    const char *dir = ".";
    bool quiet = false;
    bool keep = false;
    const struct opt opts[] = {
        REQUEST_OPTIONS(&request_options),
        {"chdir", 'C', OPT_TEXT, &dir, "DIR", "the working tree (.)"},
        {"slots", 'j', OPT_NUMBER, &stack_options.slots, "N", "jobs at a time (processors)"},
        {"tags", 0, OPT_TEXT, &stack_options.tags, "A,B", "tags that the worker claims to have"},
        {"executors", 0, OPT_TEXT, &stack_options.executors, "A,B",
         "ways to run jobs (shell; docker, too, where a job has an image)"},
        {"quiet", 'q', OPT_FLAG, &quiet, NULL, "no logs, only what becomes of the jobs"},
        {"keep", 0, OPT_FLAG, &keep, NULL, "keep the private broker's folder, and say where it is"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct repo repo;
    struct request request;
    const char **args;
    size_t arg_count;
    int r = cli_options(c, opts, argc, argv, 0, LIMIT_PIPELINE_JOBS, &args, &arg_count);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < arg_count; i++) {
        opt_list_add(&request_options.jobs, args[i]);
    }
    free(args);
    if (stack_options.slots < 1 || stack_options.slots > 1024) {
        return cli_fail(c, -E_USAGE, "--slots must be 1 to 1024");
    }
    r = repo_open(c, dir, &repo);
    if (r == 0) {
        r = request_build(c, &repo, &request_options, &request);
        if (r == 0 || r == -E_PIPELINE) {
            request_print_diags(c, &request, stderr);
        }
        if (r == 0) {
            r = check_tags(c, request.plan, stack_options.tags);
        }
        if (r == 0) {
            r = choose_executors(c, request.plan, &stack_options.executors);
        }
        if (r == 0) {
            r = run_in_temp_dir(c, &repo, &request, &stack_options, quiet, keep);
        }
        if (r == 0 || r == -E_PIPELINE || request.body != NULL) {
            request_release(&request);
        }
    }
    repo_release(&repo);
    request_options_release(&request_options);
    return r;
}
