/* davit explain: why a pipeline has the jobs it has: which rule matched, what of the others did not
 * hold, the file as it is once everything is merged, the graph. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/request.h"
#include "pipeline/emit.h"

struct explain_options {
    struct request_options request;
    const char *dir;
    const char *tag;
    const char *graph; /* text, dot; NULL: none */
    const char *job;   /* NULL: all */
    bool merge_request;
    bool merged;
};

static bool explain_build(const struct explain_options *o, const struct request *r, struct buf *out)
{
    const struct explain_view view = {
        .in = &r->in, .explain = &r->explain, .plan = r->plan, .job = o->job};
    if (o->merged && r->explain.merged != NULL) {
        emit_yaml(r->explain.merged, out);
    } else if (o->merged) {
        return false;
    } else if (o->graph != NULL && r->plan == NULL) {
        return false;
    } else if (o->graph != NULL && strcmp(o->graph, "dot") == 0) {
        explain_graph_dot(r->plan, out);
    } else if (o->graph != NULL) {
        explain_graph_text(r->plan, out);
    } else {
        explain_text(&view, out);
    }
    return true;
}

static void print_json(const struct explain_options *o, const struct request *r, bool valid)
{
    const struct explain_view view = {
        .in = &r->in, .explain = &r->explain, .plan = r->plan, .job = o->job};
    struct buf text = BUF_INIT;
    json_t *answer = explain_json(&view);
    json_object_set_new(answer, "valid", json_boolean(valid));
    json_object_set_new(answer, "diagnostics", request_diags_json(r));
    if ((o->merged || o->graph != NULL) && explain_build(o, r, &text)) {
        json_object_set_new(answer, o->merged ? "merged" : "graph",
                            json_stringn(buf_cstr(&text), text.n));
    }
    cli_print_json(answer);
    buf_release(&text);
}

static int explain(struct cli *c, struct repo *repo, const struct explain_options *o)
{
    struct request r;
    int res = request_build(c, repo, &o->request, &r);
    if (res < 0 && res != -E_PIPELINE) {
        return res;
    }
    struct buf text = BUF_INIT;
    bool judged = r.explain.has_workflow || r.explain.job_count > 0;
    res = res < 0 && judged && request_is_empty(&r) && o->graph == NULL ? 0 : res;
    if (c->json) {
        print_json(o, &r, r.plan != NULL);
    } else {
        request_print_diags(c, &r, stderr);
        if ((judged || o->merged || o->graph != NULL) && explain_build(o, &r, &text)) {
            fputs(buf_cstr(&text), stdout);
        }
    }
    if (res == 0 && o->job != NULL && !explain_has_job(&r.explain, o->job)) {
        res = cli_fail(c, -E_NOT_FOUND, "there is no job `%s` in the file", o->job);
    }
    buf_release(&text);
    request_release(&r);
    return res;
}

static int check_options(struct cli *c, struct explain_options *o, char *ref, size_t n)
{
    if (o->graph != NULL && strcmp(o->graph, "text") != 0 && strcmp(o->graph, "dot") != 0) {
        return cli_fail(c, -E_USAGE, "--graph wants text or dot, not `%s`", o->graph);
    }
    if (o->merged && o->graph != NULL) {
        return cli_fail(c, -E_USAGE, "--merged and --graph are two answers: ask for one");
    }
    if (o->merge_request && o->request.origin != NULL) {
        return cli_fail(c, -E_USAGE, "--mr is an --origin of its own");
    }
    if (o->tag != NULL && o->request.ref != NULL) {
        return cli_fail(c, -E_USAGE, "a pipeline is for a --ref or for a --tag");
    }
    if (o->tag != NULL) {
        snprintf(ref, n, "refs/tags/%s", o->tag);
        o->request.ref = ref;
    }
    if (o->merge_request) {
        o->request.origin = "merge_request_event";
    }
    return 0;
}

int cmd_explain(struct cli *c, int argc, char **argv)
{
    struct explain_options o = {.dir = ".", .request.explain = true};
    char ref[512];
    const char **args;
    size_t count;
    const struct opt opts[] = {
        REQUEST_OPTIONS(&o.request),
        {"tag", 0, OPT_TEXT, &o.tag, "TAG", "as for this tag"},
        {"mr", 0, OPT_FLAG, &o.merge_request, NULL, "as for a merge request"},
        {"changes", 0, OPT_LIST, &o.request.changes, "PATH", "as if this changed; may be repeated"},
        {"merged", 0, OPT_FLAG, &o.merged, NULL, "the file with all that it includes and extends"},
        {"graph", 0, OPT_TEXT, &o.graph, "FORMAT", "the jobs by stage: text, or dot for Graphviz"},
        {"chdir", 'C', OPT_TEXT, &o.dir, "DIR", "the working tree (.)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct repo repo;
    int r = cli_options(c, opts, argc, argv, 0, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    o.job = count == 1 ? args[0] : NULL;
    r = check_options(c, &o, ref, sizeof(ref));
    if (r == 0) {
        r = repo_open(c, o.dir, &repo);
        r = r < 0 ? r : explain(c, &repo, &o);
        repo_release(&repo);
    }
    request_options_release(&o.request);
    free(args);
    return r;
}
