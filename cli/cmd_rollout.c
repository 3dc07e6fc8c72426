/* davit rollout: list, status, watch, explain, and what people do to a rollout. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/list.h"
#include "common/os.h"
#include "common/str.h"

#define BAR      20u
#define LISTED   100u /* as many as `list` shows */
#define WATCH_MS 1000u

static const char *const verbs[] = {"abort", "pause",   "resume", "approve",
                                    "skip",  "promote", "retry",  "override"};

static const char usage[] =
    "davit rollout list | status | watch | explain | abort | pause | resume | approve | skip | "
    "promote | retry | override, but for `list` with ROLLOUT or ENVIRONMENT/TARGET";

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

/* The newest rollout of ENVIRONMENT/TARGET, whose own name may have slashes; live ones only where
 * something is to be done to it. */
static int find_by_name(struct cli *c, const struct client *cl, const char *project,
                        const char *name, bool live, uint64_t *ret)
{
    const char *slash = strrchr(name, '/');
    struct buf filter = BUF_INIT;
    json_t *list = NULL;
    json_t *o;
    size_t i;
    if (slash == NULL || slash == name || slash[1] == '\0') {
        return cli_fail(c, -E_USAGE, "a rollout is a number, or ENVIRONMENT/TARGET, not `%s`",
                        name);
    }
    char *environment = str_dup(str_of(name, (size_t)(slash - name)));
    buf_addz(&filter, live ? "&state=live&environment=" : "&environment=");
    list_escape(&filter, environment);
    int r = list_of_project(c, cl, "rollouts", project, buf_cstr(&filter), &list);
    *ret = 0;
    json_array_foreach(list, i, o)
    {
        /* The newest first: one that waits comes before the live one. */
        const bool waits = live && strcmp(json_text(o, "state"), "queued") == 0;
        if (strcmp(json_text(o, "target"), slash + 1) == 0 && (*ret == 0 || live) && !waits) {
            *ret = json_number(o, "id");
        }
    }
    if (r == 0 && *ret == 0) {
        r = cli_fail(c, -E_NOT_FOUND, "%s: no %srollout of %s", project, live ? "live " : "", name);
    }
    json_decref(list);
    buf_release(&filter);
    free(environment);
    return r;
}

static int find(struct cli *c, const struct client *cl, const char *named, const char *name,
                bool live, uint64_t *ret)
{
    if (str_to_u64(str_from(name), ret) == 0) {
        return 0;
    }
    char *project = list_project(c, named);
    const int r = project == NULL ? -E_NOT_FOUND : find_by_name(c, cl, project, name, live, ret);
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

static int run(struct cli *c, const struct client *cl, const char *named, const char *verb,
               const char *name, const char *reason)
{
    uint64_t id;
    int r = find(c, cl, named, name, is_verb(verb), &id);
    if (r < 0) {
        return r;
    }
    return is_verb(verb)                ? act(c, cl, id, verb, reason)
           : strcmp(verb, "watch") == 0 ? watch(c, cl, id)
                                        : show(c, cl, id, strcmp(verb, "explain") == 0);
}

int cmd_rollout(struct cli *c, int argc, char **argv)
{
    const char *named = NULL;
    const char *reason = NULL;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"project", 'p', OPT_TEXT, &named, "NAME", "the project (that of this folder)"},
        {"reason", 'r', OPT_TEXT, &reason, "TEXT", "why, for those who read it later"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 1, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    const char *verb = args[0];
    const bool lists = strcmp(verb, "list") == 0;
    const bool shows = strcmp(verb, "status") == 0 || strcmp(verb, "watch") == 0 ||
                       strcmp(verb, "explain") == 0;
    if (count != (lists ? 1u : 2u) || !(lists || shows || is_verb(verb)) ||
        (reason != NULL && !is_verb(verb))) {
        r = cli_fail(c, -E_USAGE, "%s", usage);
    }
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = lists ? list(c, &cl, named) : run(c, &cl, named, verb, args[1], reason);
        client_release(&cl);
    }
    free(args);
    return r;
}
