/* davit submit: the pipeline of this folder, or of a git URL, to a broker. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/follow.h"
#include "cli/submit.h"
#include "common/os.h"

struct submit_options {
    struct request_options request;
    const char *dir;
    const char *git; /* URL; NULL: a snapshot of dir */
    bool no_source;
    bool follow;
    bool quiet;
};

/* The request is built: adds the sources and sends it. */
static int send(struct cli *c, const struct client *cl, struct repo *repo, struct request *request,
                const struct submit_options *o)
{
    json_t *p = NULL;
    int r = 0;
    if (o->git != NULL) {
        submit_git(request, o->git, repo->sha, repo->ref);
    } else if (!o->no_source) {
        r = submit_snapshot(c, cl, repo, request);
    }
    r = r < 0 ? r : submit_send(c, cl, request, &p);
    if (r < 0) {
        return r;
    }
    uint64_t id = json_number(p, "id");
    if (c->json && !o->follow) {
        cli_print_json(p);
        return 0;
    }
    if (!c->json) {
        printf("pipeline %" PRIu64 " of %s: %zu jobs\n", id, json_text(p, "project"),
               json_array_size(json_object_get(p, "jobs")));
    }
    json_decref(p);
    return o->follow ? follow_to_end(c, cl, id, o->quiet) : 0;
}

static int submit(struct cli *c, const struct client *cl, struct repo *repo,
                  const struct submit_options *o)
{
    struct request request;
    int r = request_build(c, repo, &o->request, &request);
    if (r < 0 && r != -E_PIPELINE) {
        return r;
    }
    bool ours = r == 0 || !request_is_empty(&request); /* else the broker is to judge */
    if (ours) {
        request_print_diags(c, &request, stderr);
    }
    if (r == 0 || !ours) {
        r = send(c, cl, repo, &request, o);
    }
    request_release(&request);
    return r;
}

int cmd_submit(struct cli *c, int argc, char **argv)
{
    struct submit_options o = {.dir = "."};
    const struct opt opts[] = {
        REQUEST_OPTIONS(&o.request),
        {"chdir", 'C', OPT_TEXT, &o.dir, "DIR", "the working tree (.)"},
        {"git", 0, OPT_TEXT, &o.git, "URL", "fetch from here (with --ref), not a snapshot"},
        {"no-source", 0, OPT_FLAG, &o.no_source, NULL, "jobs start in an empty folder"},
        {"follow", 0, OPT_FLAG, &o.follow, NULL, "show logs until the pipeline ends"},
        {"quiet", 'q', OPT_FLAG, &o.quiet, NULL, "with --follow: no logs"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    struct repo repo;
    char *tmp = NULL;
    int r = cli_options(c, opts, argc, argv, 0, 0, NULL, NULL);
    r = r < 0 ? r : client_open(c, &cl);
    if (r < 0) {
        return r;
    }
    if (o.git == NULL) {
        r = repo_open(c, o.dir, &repo);
    } else if ((tmp = os_make_temp_dir("davit-submit")) == NULL) {
        client_release(&cl);
        return cli_fail(c, -E_IO, "cannot make a folder in %s", os_temp_dir());
    } else {
        repo = (struct repo){0};
        r = repo_clone(c, o.git, o.request.ref, tmp, &repo);
        o.request.ref = NULL; /* the clone knows whether it is a branch or a tag */
    }
    r = r < 0 ? r : submit(c, &cl, &repo, &o);
    repo_release(&repo);
    request_options_release(&o.request);
    client_release(&cl);
    if (tmp != NULL) {
        os_remove_tree(tmp);
        free(tmp);
    }
    return r;
}
