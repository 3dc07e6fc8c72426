#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"

#include <stdio.h>

struct reader {
    struct arena *arena;
    Pb__Plan *plan;
    Pb__PlanJob *job;
};

NORETURN static void wrong(struct str what)
{
    fprintf(stderr, "bad plan: " STR_FMT "\n", STR_ARG(what));
    check_failed("a right plan", __FILE__, __LINE__);
}

static uint64_t number(struct str s)
{
    uint64_t n;

    if (str_to_u64(s, &n) < 0) {
        wrong(s);
    }
    return n;
}

static uint64_t duration(struct str s)
{
    uint64_t ms;

    if (str_to_duration_ms(s, &ms) < 0) {
        wrong(s);
    }
    return ms;
}

static char **names(struct reader *r, struct str list, size_t *ret_n)
{
    char **out = arena_array(r->arena, 64, sizeof(*out));
    struct str name;

    while (list.n > 0 && str_split(&list, ',', &name)) {
        check(*ret_n < 64);
        out[(*ret_n)++] = arena_strdup(r->arena, name);
    }
    return out;
}

static int32_t *codes(struct reader *r, struct str list, size_t *ret_n)
{
    int32_t *out = arena_array(r->arena, 64, sizeof(*out));
    struct str code;

    while (list.n > 0 && str_split(&list, ',', &code)) {
        check(*ret_n < 64);
        out[(*ret_n)++] = (int32_t)number(code);
    }
    return out;
}

/* Jobs may be named only once they stand above. */
static uint32_t job_index(struct reader *r, struct str name)
{
    for (uint32_t i = 0; i < r->plan->n_jobs; i++) {
        if (str_eqz(name, r->plan->jobs[i]->name)) {
            return i;
        }
    }
    wrong(name);
}

static void set_needs(struct reader *r, struct str list, bool artifacts)
{
    struct str name;

    r->job->dag = true;
    r->job->needs = arena_array(r->arena, LIMIT_JOB_NEEDS, sizeof(*r->job->needs));
    while (!str_eqz(list, "none") && list.n > 0 && str_split(&list, ',', &name)) {
        Pb__Need *need = arena_alloc(r->arena, sizeof(*need));
        pb__need__init(need);
        need->job = job_index(r, name);
        need->artifacts = artifacts;
        r->job->needs[r->job->n_needs++] = need;
    }
}

static void set_dependencies(struct reader *r, struct str list)
{
    struct str name;

    r->job->has_dependencies = true;
    r->job->dependencies = arena_array(r->arena, 64, sizeof(*r->job->dependencies));
    while (!str_eqz(list, "none") && list.n > 0 && str_split(&list, ',', &name)) {
        r->job->dependencies[r->job->n_dependencies++] = job_index(r, name);
    }
}

static uint32_t one_of(struct str word, const char *const *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (str_eqz(word, list[i])) {
            return i;
        }
    }
    wrong(word);
}

static void set_stage(struct reader *r, struct str name)
{
    Pb__Plan *p = r->plan;

    if (p->n_stages == 0 || !str_eqz(name, p->stages[p->n_stages - 1])) {
        p->stages[p->n_stages++] = arena_strdup(r->arena, name);
    }
    r->job->stage = (uint32_t)p->n_stages - 1;
}

static void set_artifacts(struct reader *r, struct str path)
{
    Pb__ArtifactSpec *a = arena_alloc(r->arena, sizeof(*a));

    pb__artifact_spec__init(a);
    a->n_paths = 1;
    a->paths = arena_alloc(r->arena, sizeof(*a->paths));
    a->paths[0] = pb_bytes(r->arena, path);
    r->job->artifacts = a;
}

static Pb__EnvironmentSpec *environment(struct reader *r)
{
    if (r->job->environment == NULL) {
        r->job->environment = arena_alloc(r->arena, sizeof(*r->job->environment));
        pb__environment_spec__init(r->job->environment);
    }
    return r->job->environment;
}

static bool set_environment(struct reader *r, struct str key, struct str v)
{
    static const char *const actions[] = {"start", "prepare", "stop", "verify", "access"};

    if (str_eqz(key, "env")) {
        environment(r)->name = arena_strdup(r->arena, v);
    } else if (str_eqz(key, "url")) {
        environment(r)->url = pb_bytes(r->arena, v);
    } else if (str_eqz(key, "tier")) {
        environment(r)->tier = arena_strdup(r->arena, v);
    } else if (str_eqz(key, "action")) {
        environment(r)->action = (Pb__EnvironmentAction)one_of(v, actions, ARRAY_LEN(actions));
    } else if (str_eqz(key, "on_stop")) {
        environment(r)->has_on_stop = true;
        environment(r)->on_stop = job_index(r, v);
    } else if (str_eqz(key, "auto_stop")) {
        environment(r)->auto_stop_in_ms = duration(v);
    } else {
        return false;
    }
    return true;
}

static void set_trigger(struct reader *r, struct str strategy)
{
    static const char *const names[] = {"none", "depend", "mirror"};
    Pb__TriggerSpec *t = arena_alloc(r->arena, sizeof(*t));

    pb__trigger_spec__init(t);
    t->config = pb_bytes(r->arena, STR("{\"include\":[{\"local\":\"child.yml\"}]}"));
    t->strategy = (Pb__TriggerStrategy)one_of(strategy, names, ARRAY_LEN(names));
    r->job->trigger = t;
}

static void set_dotenv(struct reader *r)
{
    Pb__ArtifactSpec *a = arena_alloc(r->arena, sizeof(*a));
    Pb__ReportSpec *report = arena_alloc(r->arena, sizeof(*report));

    pb__artifact_spec__init(a);
    pb__report_spec__init(report);
    report->type = (char *)"dotenv";
    a->n_reports = 1;
    a->reports = arena_alloc(r->arena, sizeof(Pb__ReportSpec *));
    a->reports[0] = report;
    r->job->artifacts = a;
}

/* PIPELINE/JOB, or PROJECT@REF/JOB, with "?" behind it when it may be missing. */
static void add_outer_need(struct reader *r, struct str v)
{
    Pb__OuterNeed *need = arena_alloc(r->arena, sizeof(*need));
    struct str from, project;

    pb__outer_need__init(need);
    if (v.n > 0 && v.p[v.n - 1] == '?') {
        need->optional = true;
        v.n--;
    }
    if (!str_split(&v, '/', &from)) {
        wrong(v);
    }
    if (str_chr(from, '@') >= 0 && str_split(&from, '@', &project)) {
        need->project = pb_bytes(r->arena, project);
        need->ref = pb_bytes(r->arena, from);
    } else {
        need->pipeline = pb_bytes(r->arena, from);
    }
    need->job = pb_bytes(r->arena, v);
    if (r->job->outer_needs == NULL) {
        r->job->outer_needs = arena_array(r->arena, 16, sizeof(*r->job->outer_needs));
    }
    check(r->job->n_outer_needs < 16);
    r->job->outer_needs[r->job->n_outer_needs++] = need;
}

/* NAME:VALUE,NAME:VALUE */
static void set_variables(struct reader *r, struct str list)
{
    struct str item, name;

    r->job->variables = arena_array(r->arena, 64, sizeof(*r->job->variables));
    while (list.n > 0 && str_split(&list, ',', &item)) {
        Pb__Variable *v = arena_alloc(r->arena, sizeof(*v));
        str_split(&item, ':', &name);
        pb__variable__init(v);
        v->name = arena_strdup(r->arena, name);
        v->value = pb_bytes(r->arena, item);
        check(r->job->n_variables < 64);
        r->job->variables[r->job->n_variables++] = v;
    }
}

static bool set_extra(struct reader *r, struct str key, struct str v)
{
    if (str_eqz(key, "trigger")) {
        set_trigger(r, v);
    } else if (str_eqz(key, "unsupported")) {
        r->job->unsupported = names(r, v, &r->job->n_unsupported);
    } else if (str_eqz(key, "confirm")) {
        r->job->manual_confirmation = arena_strdup(r->arena, v);
    } else if (str_eqz(key, "dotenv")) {
        set_dotenv(r);
    } else if (str_eqz(key, "vars")) {
        set_variables(r, v);
    } else if (str_eqz(key, "outer")) {
        add_outer_need(r, v);
    } else {
        return false;
    }
    return true;
}

static bool set_choice(struct reader *r, struct str key, struct str v)
{
    static const char *const whens[] = {"on_success", "on_failure", "always", "manual", "delayed"};
    static const char *const losses[] = {"requeue", "fail", "wait", "always"};

    if (str_eqz(key, "when")) {
        r->job->when = (Pb__When)one_of(v, whens, ARRAY_LEN(whens));
    } else if (str_eqz(key, "lost")) {
        r->job->on_worker_lost = (Pb__OnWorkerLost)one_of(v, losses, ARRAY_LEN(losses));
    } else if (str_eqz(key, "interruptible")) {
        r->job->interruptible = str_eqz(v, "yes");
    } else if (str_eqz(key, "allow_failure") && str_eqz(v, "yes")) {
        r->job->allow_failure = true;
    } else if (str_eqz(key, "allow_failure")) {
        r->job->allow_failure_exit_codes = codes(r, v, &r->job->n_allow_failure_exit_codes);
    } else {
        return false;
    }
    return true;
}

static bool set_list(struct reader *r, struct str key, struct str v)
{
    if (str_eqz(key, "stage")) {
        set_stage(r, v);
    } else if (str_eqz(key, "needs") || str_eqz(key, "needs_no_artifacts")) {
        set_needs(r, v, str_eqz(key, "needs"));
    } else if (str_eqz(key, "deps")) {
        set_dependencies(r, v);
    } else if (str_eqz(key, "tags")) {
        r->job->tags = names(r, v, &r->job->n_tags);
    } else if (str_eqz(key, "retry_when")) {
        r->job->retry_when = names(r, v, &r->job->n_retry_when);
    } else if (str_eqz(key, "retry_codes")) {
        r->job->retry_exit_codes = codes(r, v, &r->job->n_retry_exit_codes);
    } else if (str_eqz(key, "artifacts")) {
        set_artifacts(r, v);
    } else {
        return false;
    }
    return true;
}

static bool set_value(struct reader *r, struct str key, struct str v)
{
    int64_t priority;

    if (str_eqz(key, "start_in")) {
        r->job->start_in_ms = duration(v);
    } else if (str_eqz(key, "timeout")) {
        r->job->timeout_ms = duration(v);
    } else if (str_eqz(key, "retry")) {
        r->job->retry_max = (uint32_t)number(v);
    } else if (str_eqz(key, "priority") && str_to_i64(v, &priority) == 0) {
        r->job->priority = (int32_t)priority;
    } else if (str_eqz(key, "group")) {
        r->job->resource_group = arena_strdup(r->arena, v);
    } else if (str_eqz(key, "executor")) {
        r->job->executor = arena_strdup(r->arena, v);
    } else if (str_eqz(key, "pool")) {
        r->job->pool = arena_strdup(r->arena, v);
    } else if (str_eqz(key, "cpu")) {
        r->job->cpu_millis = (uint32_t)number(v);
    } else if (str_eqz(key, "memory")) {
        r->job->memory_bytes = number(v);
    } else if (str_eqz(key, "disk")) {
        r->job->disk_bytes = number(v);
    } else {
        return false;
    }
    return true;
}

static void set_plan(struct reader *r, struct str key, struct str v)
{
    if (str_eqz(key, "on_job_failure") && str_eqz(v, "all")) {
        r->plan->on_job_failure = PB__AUTO_CANCEL_ON_FAILURE__AUTO_CANCEL_ON_FAILURE_ALL;
    } else if (str_eqz(key, "auto_cancel")) {
        r->plan->on_new_commit = str_eqz(v, "yes")             ? AUTO_CANCEL_CONSERVATIVE
                                 : str_eqz(v, "interruptible") ? AUTO_CANCEL_INTERRUPTIBLE
                                                               : AUTO_CANCEL_NONE;
    } else if (str_eqz(key, "name")) {
        r->plan->name = arena_strdup(r->arena, v);
    } else {
        wrong(key);
    }
}

static void read_words(struct reader *r, struct str rest)
{
    struct str word, key;

    while (rest.n > 0 && str_split(&rest, ' ', &word)) {
        struct str v = word;
        if (word.n == 0) {
            continue;
        }
        str_split(&v, '=', &key);
        if (r->job == NULL) {
            set_plan(r, key, v);
        } else if (!set_list(r, key, v) && !set_choice(r, key, v) && !set_value(r, key, v) &&
                   !set_environment(r, key, v) && !set_extra(r, key, v)) {
            wrong(word);
        }
    }
}

static void read_line(struct reader *r, struct str line)
{
    struct str name;

    str_split(&line, ':', &name);
    r->job = NULL;
    if (!str_eqz(name, "plan")) {
        r->job = arena_alloc(r->arena, sizeof(*r->job));
        pb__plan_job__init(r->job);
        r->job->name = arena_strdup(r->arena, name);
        r->job->base_name = r->job->name;
        if (str_find(line, STR("stage=")) < 0) {
            set_stage(r, STR("test"));
        }
    }
    read_words(r, line);
    if (r->job != NULL) {
        r->plan->jobs[r->plan->n_jobs++] = r->job;
    }
}

Pb__Plan *plan_from_text(struct arena *a, const char *text)
{
    struct reader r = {.arena = a, .plan = arena_alloc(a, sizeof(Pb__Plan))};
    struct str rest = str_from(text), line;

    pb__plan__init(r.plan);
    r.plan->jobs = arena_array(a, LIMIT_PIPELINE_JOBS, sizeof(*r.plan->jobs));
    r.plan->stages = arena_array(a, LIMIT_PIPELINE_STAGES, sizeof(*r.plan->stages));
    while (rest.n > 0 && str_split(&rest, '\n', &line)) {
        line = str_trim(line);
        if (line.n > 0) {
            read_line(&r, line);
        }
    }
    return r.plan;
}
