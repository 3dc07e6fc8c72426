/* environment: where a job deploys to. The name is expanded when the pipeline is made; the url when
 * the job has ended, as dotenv reports may bring what it needs. */
#include "common/base.h"

#include "pipeline/compile.h"

static void read_name_and_url(struct compile *c, const struct node *name, const struct node *url,
                              struct environment *e)
{
    struct str text;
    if (!name) {
        report(c, e->at, "missing-key", "environment: { name: production }",
               "`environment` needs a `name`");
    } else if (read_name(c, name, "environment:name", &text)) {
        if (str_is_environment_name(text)) {
            e->name = text;
        } else {
            report(c, name, "bad-value", NULL,
                   "`environment:name` may hold letters, digits, blanks, `-`, `_`, `/`, `.`, `$`, "
                   "`{`, `}`, and no `/` at its ends");
        }
    }
    if (url && read_text(c, url, "environment:url", &text)) {
        if (text.n > LIMIT_URL) {
            report(c, url, "limit", NULL, "`environment:url` has more than %u bytes", LIMIT_URL);
        }
        e->spec.url = pb_bytes_ref(text);
    }
}

static void read_choices(struct compile *c, const struct node *n, struct environment *e)
{
    static const char *const actions[] = {"start", "prepare", "stop", "verify", "access"};
    static const char *const tiers[] = {"production", "staging", "testing", "development", "other"};
    const struct node *action = key_of(n, "action");
    const struct node *tier = key_of(n, "deployment_tier");
    size_t i;
    if (action && read_choice(c, action, "environment:action", actions, ARRAY_LEN(actions), &i)) {
        e->spec.action = (Pb__EnvironmentAction)i;
    }
    if (tier && read_choice(c, tier, "environment:deployment_tier", tiers, ARRAY_LEN(tiers), &i)) {
        e->spec.tier = (char *)tiers[i];
    }
}

/* A duration, once its variables are replaced. */
static void read_auto_stop(struct compile *c, const struct node *n, struct environment *e)
{
    uint64_t ms = 0;
    if (node_is_string(n) && str_chr(n->text, '$') >= 0) {
        e->auto_stop_at = n;
    } else if (!str_eqz(n->text, "never") && read_duration(c, n, "environment:auto_stop_in", &ms)) {
        e->spec.auto_stop_in_ms = ms > LIMIT_EXPIRE_MS ? 0 : ms;
    }
}

/* Nothing deploys by an agent of a cluster: checked only. */
static void read_kubernetes(struct compile *c, const struct node *n)
{
    static const char *const texts[] = {"kubernetes:agent", "kubernetes:namespace",
                                        "kubernetes:flux_resource_path"};
    const struct node *dashboard = key_of(n, "dashboard");
    const struct node *managed = key_of(n, "managed_resources");
    struct str text;
    bool b;
    c->below_checked = true;
    if (read_keys(c, n, SCOPE_KUBERNETES, "kubernetes")) {
        for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
            read_name_of(c, n, texts[i], &text);
        }
        if (dashboard && read_keys(c, dashboard, SCOPE_DASHBOARD, "dashboard")) {
            read_name_of(c, dashboard, "dashboard:namespace", &text);
            read_name_of(c, dashboard, "dashboard:flux_resource_path", &text);
        }
        if (managed && read_keys(c, managed, SCOPE_MANAGED_RESOURCES, "managed_resources")) {
            read_bool_of(c, managed, "managed_resources:enabled", &b);
        }
    }
    c->below_checked = false;
}

void environment_read(struct compile *c, const struct node *n, struct job *job)
{
    struct environment *e = &job->environment;
    *e = (struct environment){.at = n};
    pb__environment_spec__init(&e->spec);
    if (n->kind != NODE_MAPPING) {
        read_name_and_url(c, n, NULL, e);
        return;
    }
    if (!read_keys(c, n, SCOPE_ENVIRONMENT, "environment")) {
        return;
    }
    read_name_and_url(c, key_of(n, "name"), key_of(n, "url"), e);
    read_choices(c, n, e);
    e->on_stop_at = key_of(n, "on_stop");
    if (e->on_stop_at) {
        read_name(c, e->on_stop_at, "environment:on_stop", &e->on_stop);
    }
    if (key_of(n, "auto_stop_in")) {
        read_auto_stop(c, key_of(n, "auto_stop_in"), e);
    }
    if (key_of(n, "kubernetes")) {
        read_kubernetes(c, key_of(n, "kubernetes"));
    }
}

void environment_select(struct compile *c, struct job *job, const struct vars *env)
{
    const struct environment *e = &job->environment;
    uint64_t ms = 0;
    if (!e->at) {
        return;
    }
    struct str name = expand_text(c, env, e->name, 0);
    if (!str_is_environment_name(name)) {
        report(c, e->at, "bad-value", NULL,
               "the environment `" STR_FMT "` has no good name once it is expanded: `" STR_FMT "`",
               STR_ARG(e->name), STR_ARG(name));
        return;
    }
    job->plan.environment = arena_alloc(c->arena, sizeof(*job->plan.environment));
    *job->plan.environment = e->spec;
    job->plan.environment->name = arena_strdup(c->arena, name);
    if (!e->auto_stop_at) {
        return;
    }
    struct str text = expand_text(c, env, e->auto_stop_at->text, 0);
    if (str_to_duration_ms(text, &ms) < 0) {
        report(c, e->auto_stop_at, "bad-value", NULL,
               "`environment:auto_stop_in`: `" STR_FMT "` is no duration", STR_ARG(text));
    }
    job->plan.environment->auto_stop_in_ms = ms > LIMIT_EXPIRE_MS ? 0 : ms;
}

void environment_check_stop(struct compile *c, const struct job *job, const struct job *stop)
{
    const struct environment *e = &job->environment;
    const char *wrong = NULL;
    if (stop == job) {
        wrong = "is this job itself";
    } else if (!stop) {
        wrong = "is not in this file";
    } else if (!stop->environment.at) {
        wrong = "has no `environment`";
    } else if (!str_eq(stop->environment.name, e->name)) {
        wrong = "has another environment";
    } else if (stop->environment.spec.action != PB__ENVIRONMENT_ACTION__ENVIRONMENT_ACTION_STOP) {
        wrong = "has no `action: stop`";
    }
    if (wrong) {
        report(c, e->on_stop_at, "bad-on-stop",
               "the other job needs `environment: { name: the same, action: stop }`",
               "`on_stop`: the job `" STR_FMT "` %s", STR_ARG(e->on_stop), wrong);
    }
}
