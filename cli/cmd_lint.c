/* davit lint: check a pipeline file without a broker. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/request.h"

static void print_json(const struct request *r, bool valid)
{
    json_t *diagnostics = request_diags_json(r);
    json_t *jobs = json_array();
    for (size_t i = 0; r->plan != NULL && i < r->plan->n_jobs; i++) {
        const Pb__PlanJob *j = r->plan->jobs[i];
        json_array_append_new(
            jobs, json_pack("{s:s, s:s}", "name", j->name, "stage", r->plan->stages[j->stage]));
    }
    cli_print_json(
        json_pack("{s:b, s:o, s:o}", "valid", valid, "diagnostics", diagnostics, "jobs", jobs));
}

static int lint(struct cli *c, struct repo *repo, const struct request_options *o)
{
    struct request r;
    int res = request_build(c, repo, o, &r);
    if (res < 0 && res != -E_PIPELINE) {
        return res;
    }
    if (c->json) {
        print_json(&r, res == 0);
    } else {
        request_print_diags(c, &r, stdout);
        if (res == 0) {
            printf("%s is valid: %zu jobs in %zu stages\n",
                   o->file != NULL ? o->file : ".gitlab-ci.yml", r.plan->n_jobs, r.plan->n_stages);
        } else {
            printf("%zu errors, %zu warnings\n", r.diags.errors, r.diags.warnings);
        }
    }
    request_release(&r);
    return res;
}

int cmd_lint(struct cli *c, int argc, char **argv)
{
    struct request_options o = {0};
    const char *dir = ".";
    const char **args;
    size_t count;
    const struct opt opts[] = {
        REQUEST_OPTIONS(&o),
        {"chdir", 'C', OPT_TEXT, &dir, "DIR", "the working tree (.)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct repo repo;
    int r = cli_options(c, opts, argc, argv, 0, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    if (count == 1) {
        o.file = args[0];
    }
    r = repo_open(c, dir, &repo);
    r = r < 0 ? r : lint(c, &repo, &o);
    repo_release(&repo);
    request_options_release(&o);
    free(args);
    return r;
}
