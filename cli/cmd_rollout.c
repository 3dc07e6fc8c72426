/* davit rollout: list, status, watch, explain, what people do to a rollout, and the history of
 * services. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/list.h"
#include "cli/service.h"
#include "common/os.h"
#include "common/str.h"

#define BAR      20u
#define LISTED   100u /* as many as `list` shows */
#define WATCH_MS 1000u

static const char *const verbs[] = {"abort", "pause",   "resume", "approve",
                                    "skip",  "promote", "retry",  "override"};

static const char usage[] =
    "davit rollout list | status | watch | explain | abort | pause | resume | approve | skip | "
    "promote | retry | override, but for `list` with ROLLOUT or ENVIRONMENT/TARGET; "
    "undo ENVIRONMENT/TARGET [--to VERSION] | history [ENVIRONMENT/TARGET] | "
    "diff ROLLOUT | diff ENVIRONMENT/TARGET [--from VERSION] [--to VERSION]";

struct wish {
    const char *verb;
    const char *name; /* NULL: none */
    const char *project;
    const char *reason;
    const char *from;
    const char *to;
};

static bool is_verb(const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verbs[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/* --- which one --- */

static int find(struct cli *c, const struct client *cl, const char *named, const char *name,
                bool live, uint64_t *ret)
{
    if (str_to_u64(str_from(name), ret) == 0) {
        return 0;
    }
    char *project = list_project(c, named);
    const int r = project == NULL ? -E_NOT_FOUND : service_rollout(c, cl, project, name, live, ret);
    free(project);
    return r;
}

/* --- what they look like --- */

static void print_line(const struct cli *c, const json_t *o)
{
    printf("%-8" PRIu64 " %s/%s  %s  %s  %" PRIu64 ".%02" PRIu64 " %%", json_number(o, "id"),
           json_text(o, "environment"), json_text(o, "target"), json_text(o, "version"),
           cli_status(c, json_text(o, "state")), json_number(o, "observed_bp") / 100,
           json_number(o, "observed_bp") % 100);
    if (json_text(o, "waits_for")[0] != '\0') {
        printf("  %s", json_text(o, "waits_for"));
    }
    printf("\n");
}

static void print_steps(const json_t *o)
{
    json_t *s;
    size_t i;
    json_array_foreach(json_object_get(o, "steps"), i, s)
    {
        const char *state = json_text(s, "state");
        printf("  %s %s\n",
               strcmp(state, "done") == 0  ? "+"
               : strcmp(state, "now") == 0 ? ">"
                                           : "-",
               json_text(s, "name"));
    }
}

static void print_metrics(const json_t *list, bool explained)
{
    json_t *m;
    size_t i;
    json_array_foreach(list, i, m)
    {
        printf("  %-8s %s\n           %s\n", json_text(m, "verdict"), json_text(m, "rule"),
               json_text(m, explained ? "explanation" : "text"));
    }
}

static void print_whole(const struct cli *c, const json_t *o)
{
    const uint64_t bp = json_number(o, "observed_bp");
    char bar[BAR + 1];
    for (size_t i = 0; i < BAR; i++) {
        bar[i] = i < bp * BAR / 10000 ? '#' : '.';
    }
    bar[BAR] = '\0';
    print_line(c, o);
    printf("weight [%s] wanted %" PRIu64 ".%02" PRIu64 " %%\n", bar,
           json_number(o, "weight_bp") / 100, json_number(o, "weight_bp") % 100);
    printf("instances: %" PRIu64 " of the new version ready, %" PRIu64 " of the old one\n",
           json_number(o, "ready"), json_number(o, "ready_old"));
    if (json_text(o, "why_text")[0] != '\0') {
        printf("taken back: %s\n", json_text(o, "why_text"));
    }
    print_steps(o);
    print_metrics(json_object_get(o, "metrics"), false);
}

static int list(struct cli *c, const struct client *cl, const char *named)
{
    struct buf query = BUF_INIT;
    json_t *items = NULL;
    json_t *o;
    size_t i;
    char *project = list_project(c, named);
    if (project == NULL) {
        return -E_NOT_FOUND;
    }
    buf_addz(&query, "project=");
    list_escape(&query, project);
    const int r = list_fetch(c, cl, "rollouts", buf_cstr(&query), LISTED, &items);
    buf_release(&query);
    free(project);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:O}", "items", items));
    } else if (r == 0) {
        json_array_foreach(items, i, o)
        {
            print_line(c, o);
        }
        if (json_array_size(items) == 0) {
            printf("no rollouts\n");
        }
    }
    json_decref(items);
    return r;
}

static int get(struct cli *c, const struct client *cl, uint64_t id, const char *rest, json_t **ret)
{
    char path[64];
    snprintf(path, sizeof(path), "/rollouts/%" PRIu64 "%s", id, rest);
    return client_call(c, cl, "GET", path, NULL, NULL, ret);
}

static int show(struct cli *c, const struct client *cl, uint64_t id, bool explained)
{
    json_t *o = NULL;
    const int r = get(c, cl, id, explained ? "/explain" : "", &o);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(o);
        return 0;
    }
    if (explained) {
        print_metrics(json_object_get(o, "items"), true);
        if (json_array_size(json_object_get(o, "items")) == 0) {
            printf("no metric was looked at yet\n");
        }
    } else {
        print_whole(c, o);
    }
    json_decref(o);
    return 0;
}

/* A line whenever it changed, until it ends: 0 when it is done, else exit code 1. */
static int watch(struct cli *c, const struct client *cl, uint64_t id)
{
    char *said = xstrdup("");
    json_t *o = NULL;
    int r;
    for (;;) {
        r = get(c, cl, id, "", &o);
        if (r < 0) {
            break;
        }
        struct buf now = BUF_INIT;
        buf_addf(&now, "%s %" PRIu64 " %s", json_text(o, "state"), json_number(o, "observed_bp"),
                 json_text(o, "waits_for"));
        const bool changed = strcmp(said, buf_cstr(&now)) != 0;
        const bool ended = json_text(o, "ended_at")[0] != '\0';
        free(said);
        said = buf_take(&now);
        if (changed && !c->json) {
            print_line(c, o);
            fflush(stdout);
        }
        if (ended) {
            r = strcmp(json_text(o, "state"), "done") == 0 ? 0 : 1;
            break;
        }
        json_decref(o);
        o = NULL;
        os_sleep_ms(WATCH_MS);
    }
    if (r >= 0 && c->json) {
        cli_print_json(json_incref(o));
    }
    json_decref(o);
    free(said);
    return r;
}

static int act(struct cli *c, const struct client *cl, uint64_t id, const char *verb,
               const char *reason)
{
    char path[64];
    json_t *o = NULL;
    json_t *body = reason != NULL ? json_pack("{s:s}", "reason", reason) : json_object();
    snprintf(path, sizeof(path), "/rollouts/%" PRIu64 "/%s", id, verb);
    const int r = client_call(c, cl, "POST", path, body, NULL, &o);
    json_decref(body);
    if (r == 0 && c->json) {
        cli_print_json(o);
    } else if (r == 0) {
        print_line(c, o);
        json_decref(o);
    }
    return r;
}

/* --- services --- */

static bool is_of_services(const char *verb)
{
    return strcmp(verb, "undo") == 0 || strcmp(verb, "history") == 0 || strcmp(verb, "diff") == 0;
}

static int undo(struct cli *c, const struct client *cl, const char *project, const struct wish *w)
{
    json_t *o = NULL;
    const int r = service_undo(c, cl, project, w->name, w->to, w->reason, &o);
    if (r == 0 && c->json) {
        cli_print_json(o);
    } else if (r == 0) {
        print_line(c, o);
        json_decref(o);
    }
    return r;
}

static int run_of_services(struct cli *c, const struct client *cl, const struct wish *w)
{
    uint64_t id;
    if (strcmp(w->verb, "diff") == 0 && str_to_u64(str_from(w->name), &id) == 0) {
        return w->from == NULL && w->to == NULL
                   ? service_diff_rollout(c, cl, id)
                   : cli_fail(c, -E_USAGE, "--from and --to are of ENVIRONMENT/TARGET");
    }
    char *project = list_project(c, w->project);
    const int r = project == NULL                ? -E_NOT_FOUND
                  : strcmp(w->verb, "undo") == 0 ? undo(c, cl, project, w)
                  : strcmp(w->verb, "diff") == 0
                      ? service_diff(c, cl, project, w->name, w->from, w->to)
                  : w->name == NULL ? service_list(c, cl, project)
                                    : service_history(c, cl, project, w->name);
    free(project);
    return r;
}

/* --- the command --- */

static int run(struct cli *c, const struct client *cl, const struct wish *w)
{
    const bool acts = is_verb(w->verb);
    uint64_t id;
    if (is_of_services(w->verb)) {
        return run_of_services(c, cl, w);
    }
    if (strcmp(w->verb, "list") == 0) {
        return list(c, cl, w->project);
    }
    const int r = find(c, cl, w->project, w->name, acts, &id);
    if (r < 0) {
        return r;
    }
    return acts                            ? act(c, cl, id, w->verb, w->reason)
           : strcmp(w->verb, "watch") == 0 ? watch(c, cl, id)
                                           : show(c, cl, id, strcmp(w->verb, "explain") == 0);
}

/* What was asked for is something that there is. */
static bool is_asked_well(const struct wish *w)
{
    const char *v = w->verb;
    const bool shows = strcmp(v, "status") == 0 || strcmp(v, "watch") == 0 ||
                       strcmp(v, "explain") == 0;
    const bool undoes = strcmp(v, "undo") == 0;
    const bool diffs = strcmp(v, "diff") == 0;
    const bool history = strcmp(v, "history") == 0;
    const bool lists = strcmp(v, "list") == 0;
    return (lists || history || shows || undoes || diffs || is_verb(v)) &&
           (history || lists == (w->name == NULL)) && (w->reason == NULL || undoes || is_verb(v)) &&
           (w->from == NULL || diffs) && (w->to == NULL || undoes || diffs);
}

int cmd_rollout(struct cli *c, int argc, char **argv)
{
    struct wish w = {0};
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"project", 'p', OPT_TEXT, &w.project, "NAME", "the project (that of this folder)"},
        {"reason", 'r', OPT_TEXT, &w.reason, "TEXT", "why, for those who read it later"},
        {"to", 0, OPT_TEXT, &w.to, "VERSION", "undo: a kept version; diff: (the stable one)"},
        {"from", 0, OPT_TEXT, &w.from, "VERSION", "diff: (the one before)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 1, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    w.verb = args[0];
    w.name = count > 1 ? args[1] : NULL;
    if (!is_asked_well(&w)) {
        r = cli_fail(c, -E_USAGE, "%s", usage);
    }
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = run(c, &cl, &w);
        client_release(&cl);
    }
    free(args);
    return r;
}
