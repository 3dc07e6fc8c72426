/* Jobs of the file: which keys of the file are jobs, what they inherit, and their keywords. */
#include "common/base.h"

#include "pipeline/compile.h"

static const struct read_texts script_texts = {.single = true, .depth = SCRIPT_NESTING};

/* `-make` is a text that begins with a dash, where a list was meant. */
static void warn_dash(struct compile *c, const struct node *n, const char *what)
{
    bool letter = n->text.n > 1 && ((n->text.p[1] >= 'a' && n->text.p[1] <= 'z') ||
                                    (n->text.p[1] >= 'A' && n->text.p[1] <= 'Z'));
    if (letter && n->text.p[0] == '-') {
        report_warning(c, n, "list-dash", "an item of a list is written `- item`",
                       "`%s` is one text that begins with `-`: a blank is missing", what);
    }
}

static bool read_lines(struct compile *c, const struct node *n, const char *what, struct texts *ret)
{
    if (node_is_string(n)) {
        warn_dash(c, n, what);
    }
    struct read_texts how = script_texts;
    how.what = what;
    return read_texts(c, n, how, ret);
}

static void read_script(struct compile *c, const struct node *n, struct job *job)
{
    if (read_lines(c, n, "script", &job->script) && job->script.count == 0) {
        report(c, n, "no-script", NULL, "`script` is empty");
    }
}

static void read_before_script(struct compile *c, const struct node *n, struct job *job)
{
    read_lines(c, n, "before_script", &job->before_script);
}

static void read_after_script(struct compile *c, const struct node *n, struct job *job)
{
    struct texts t = {0};
    if (read_lines(c, n, "after_script", &t)) {
        job->plan.after_script = texts_to_bytes(c->arena, t);
        job->plan.n_after_script = t.count;
    }
}

static void read_stage(struct compile *c, const struct node *n, struct job *job)
{
    struct str name;
    if (read_name(c, n, "stage", &name)) {
        job->stage_at = n;
    }
}

static void read_type(struct compile *c, const struct node *n, struct job *job)
{
    report_warning(c, n, "deprecated", "write `stage`", "`type` is the old name of `stage`");
    if (node_is_null(node_get(job->body, "stage"))) {
        read_stage(c, n, job);
    }
}

static void read_job_variables(struct compile *c, const struct node *n, struct job *job)
{
    read_variables(c, n, SCOPE_JOB_VARIABLE, &job->variables);
}

static void read_tags(struct compile *c, const struct node *n, struct job *job)
{
    struct read_texts how = {.what = "tags", .depth = SCRIPT_NESTING};
    if (!read_texts(c, n, how, &job->tags)) {
        return;
    }
    if (job->tags.count > LIMIT_TAGS) {
        report(c, n, "limit", NULL, "more than %u tags", LIMIT_TAGS);
    }
}

static void read_job_needs(struct compile *c, const struct node *n, struct job *job)
{
    read_needs(c, n, &job->needs);
}

static void read_dependencies(struct compile *c, const struct node *n, struct job *job)
{
    struct texts t = {0};
    struct read_texts how = {.what = "dependencies", .depth = SCRIPT_NESTING};
    if (!read_texts(c, n, how, &t)) {
        return;
    }
    job->has_dependencies = true;
    job->dependencies = arena_array(c->arena, t.count + 1, sizeof(*job->dependencies));
    for (size_t i = 0; i < t.count; i++) {
        job->dependencies[i] = (struct need){
            .at = i < n->count && node_is_string(n->items[i]) ? n->items[i] : n, .job = t.items[i]};
    }
    job->dependency_count = t.count;
}

static void read_allow_failure(struct compile *c, const struct node *n, struct job *job)
{
    bool b = false;
    if (n->kind == NODE_MAPPING) {
        const struct node *codes = node_get(n, "exit_codes");
        int32_t *items = NULL;
        size_t count = 0;
        if (read_keys(c, n, SCOPE_ALLOW_FAILURE, "allow_failure") && !node_is_null(codes) &&
            read_exit_codes(c, codes, &items, &count)) {
            job->allow_failure = NO;
            job->plan.allow_failure_exit_codes = items;
            job->plan.n_allow_failure_exit_codes = count;
        }
    } else if (read_bool(c, n, "allow_failure", &b)) {
        job->allow_failure = b ? YES : NO;
    }
}

static void read_job_when(struct compile *c, const struct node *n, struct job *job)
{
    bool never = false;
    if (node_is_string(n) && str_eqz(n->text, "never")) {
        report(c, n, "bad-value", "rules: [{ when: never }]", "`when: never` belongs into a rule");
        return;
    }
    job->has_when = read_when(c, n, false, &never, &job->plan.when);
}

static void read_job_start_in(struct compile *c, const struct node *n, struct job *job)
{
    read_start_in(c, n, &job->plan.start_in_ms);
}

static void read_rules(struct compile *c, const struct node *n, struct job *job)
{
    rules_read(c, n, SCOPE_RULE, &job->rules);
}

static void read_only(struct compile *c, const struct node *n, struct job *job)
{
    policy_read(c, n, "only", &job->only);
}

static void read_except(struct compile *c, const struct node *n, struct job *job)
{
    policy_read(c, n, "except", &job->except);
}

static void read_extends(struct compile *c, const struct node *n, struct job *job)
{
    (void)c; /* resolved by extends.c before */
    (void)n;
    (void)job;
}

static void read_parallel(struct compile *c, const struct node *n, struct job *job)
{
    int64_t count = 0;
    if (n->kind == NODE_MAPPING) {
        read_keys(c, n, SCOPE_PARALLEL, "parallel");
        const struct node *matrix = key_of(n, "matrix");
        if (!matrix) {
            report(c, n, "missing-key", NULL, "`parallel` needs a number, or a `matrix`");
        } else if (matrix_read(c, matrix, &job->matrix)) {
            job->parallel = (uint32_t)job->matrix.count;
        }
    } else if (read_number(c, n, "parallel", 1, LIMIT_PARALLEL, &count)) {
        job->parallel = (uint32_t)count;
    }
}

static void read_timeout(struct compile *c, const struct node *n, struct job *job)
{
    uint64_t ms = 0;
    if (!read_duration(c, n, "timeout", &ms)) {
        return;
    }
    if (ms == 0 || ms > LIMIT_TIMEOUT_MS) {
        report(c, n, "bad-value", NULL, "`timeout` must be from 1 second to 30 days");
        return;
    }
    job->plan.timeout_ms = ms;
}

static void read_interruptible(struct compile *c, const struct node *n, struct job *job)
{
    bool b = false;
    if (read_bool(c, n, "interruptible", &b)) {
        job->plan.interruptible = b;
    }
}

static void read_resource_group(struct compile *c, const struct node *n, struct job *job)
{
    read_name(c, n, "resource_group", &job->resource_group);
}

static void read_priority(struct compile *c, const struct node *n, struct job *job)
{
    int64_t v = 0;
    if (read_number(c, n, "priority", -100, 100, &v)) {
        job->plan.priority = (int32_t)v;
    }
}

static void read_on_worker_lost(struct compile *c, const struct node *n, struct job *job)
{
    static const char *const names[] = {"requeue", "fail", "wait"};
    static const Pb__OnWorkerLost values[] = {PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE_ALWAYS,
                                              PB__ON_WORKER_LOST__ON_WORKER_LOST_FAIL,
                                              PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT};
    size_t i;
    if (read_choice(c, n, "on_worker_lost", names, ARRAY_LEN(names), &i)) {
        job->plan.on_worker_lost = values[i];
    }
}

static void read_executor(struct compile *c, const struct node *n, struct job *job)
{
    struct str name;
    if (read_name(c, n, "executor", &name)) {
        job->plan.executor = arena_strdup(c->arena, name);
    }
}

/* One that says what is inherited: true, false, or a list of names. */
static void read_inherit_one(struct compile *c, const struct node *n, const char *what,
                             struct inherit *ret)
{
    bool b = true;
    if (node_is_null(n)) {
        return;
    }
    ret->all = false;
    if (n->kind == NODE_LIST) {
        read_texts(c, n, (struct read_texts){.what = what, .depth = SCRIPT_NESTING}, &ret->names);
    } else if (read_bool(c, n, what, &b)) {
        ret->all = b;
    }
}

static void read_inherit(struct compile *c, const struct node *n, struct job *job)
{
    if (read_keys(c, n, SCOPE_INHERIT, "inherit")) {
        read_inherit_one(c, node_get(n, "default"), "inherit:default", &job->inherit_defaults);
        read_inherit_one(c, node_get(n, "variables"), "inherit:variables", &job->inherit_variables);
    }
}

static const struct {
    const char *name;
    void (*read)(struct compile *c, const struct node *n, struct job *job);
} readers[] = {
    {"after_script", read_after_script},
    {"allow_failure", read_allow_failure},
    {"artifacts", artifacts_read},
    {"before_script", read_before_script},
    {"cache", cache_read},
    {"coverage", coverage_read},
    {"dast_configuration", dast_configuration_read},
    {"dependencies", read_dependencies},
    {"environment", environment_read},
    {"except", read_except},
    {"executor", read_executor},
    {"extends", read_extends},
    {"hooks", hooks_read},
    {"id_tokens", id_tokens_read},
    {"identity", identity_read},
    {"image", image_read},
    {"inherit", read_inherit},
    {"inputs", job_inputs_read},
    {"interruptible", read_interruptible},
    {"manual_confirmation", manual_confirmation_read},
    {"needs", read_job_needs},
    {"on_worker_lost", read_on_worker_lost},
    {"only", read_only},
    {"pages", pages_read},
    {"parallel", read_parallel},
    {"priority", read_priority},
    {"publish", publish_read},
    {"release", release_read},
    {"resource_group", read_resource_group},
    {"retry", retry_read},
    {"rollout", rollout_read},
    {"rules", read_rules},
    {"run", run_read},
    {"script", read_script},
    {"secrets", secrets_read},
    {"services", services_read},
    {"stage", read_stage},
    {"start_in", read_job_start_in},
    {"tags", read_tags},
    {"timeout", read_timeout},
    {"trigger", trigger_read},
    {"type", read_type},
    {"variables", read_job_variables},
    {"when", read_job_when},
};

/* The readers stand in the order of their names. */
bool job_read_keyword(struct compile *c, struct job *job, const char *name, const struct node *n)
{
    size_t low = 0;
    size_t high = ARRAY_LEN(readers);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, readers[middle].name);
        if (order == 0) {
            if (n) {
                readers[middle].read(c, n, job);
            }
            return true;
        }
        low = order > 0 ? middle + 1 : low;
        high = order < 0 ? middle : high;
    }
    return false;
}

bool inherits(const struct inherit *i, struct str name)
{
    for (size_t k = 0; k < i->names.count; k++) {
        if (str_eq(i->names.items[k], name)) {
            return true;
        }
    }
    return i->all;
}

bool has_job_key(const struct job *job, const char *name)
{
    return !node_is_null(node_get(job->body, name));
}

static void read_keyword(struct compile *c, struct job *job, const struct keyword *k,
                         const struct node *n)
{
    c->below_checked = k->support == CHECKED;
    check(job_read_keyword(c, job, k->name.p, n));
    c->below_checked = false;
}

static void read_mapping(struct compile *c, const struct node *m, struct job *job)
{
    for (uint32_t i = 0; i < m->count && compile_charge(c, 1, m); i++) {
        const struct pair *p = &m->pairs[i];
        const struct keyword *k = keyword_find(SCOPE_JOB, p->key->text);
        if (k && !node_is_null(p->value)) {
            read_keyword(c, job, k, p->value);
        }
    }
}

bool job_takes_default(const struct job *job, const struct pair *p)
{
    const struct pair *own = node_find(job->body, p->key->text);
    const struct keyword *k = keyword_find(SCOPE_DEFAULT, p->key->text);
    return k && !node_is_null(p->value) && (!own || node_is_null(own->value)) &&
           (!has_job_key(job, "trigger") || trigger_allows(k->name.p)) &&
           (!has_job_key(job, "rollout") || rollout_allows(k->name.p)) &&
           inherits(&job->inherit_defaults, p->key->text);
}

static void read_inherited(struct compile *c, struct job *job)
{
    for (uint32_t i = 0; i < c->defaults->count; i++) {
        const struct pair *p = &c->defaults->pairs[i];
        const struct keyword *k = keyword_find(SCOPE_DEFAULT, p->key->text);
        if (job_takes_default(job, p)) {
            if (k->support == CHECKED) {
                note_checked(c, p->key, k->name.p);
            }
            read_keyword(c, job, k, p->value);
        }
    }
}

static const char *stages_hint(struct compile *c)
{
    struct buf list = BUF_INIT;
    if (c->diags->count == LIMIT_DIAGS) {
        return NULL;
    }
    for (size_t i = 0; i < c->stages.count; i++) {
        buf_addf(&list, "%s%s", i == 0 ? "" : ", ", c->stage_names[i]);
    }
    const char *hint = arena_printf(c->arena, "the stages are %.300s", buf_cstr(&list));
    buf_release(&list);
    return hint;
}

static void resolve_stage(struct compile *c, struct job *job)
{
    struct str name = job->stage_at ? job->stage_at->text : STR("test");
    if (stage_find(c, name, &job->stage) || c->incomplete) {
        return;
    }
    const char *hint = suggest(c, name, c->stage_names, c->stages.count);
    report(c, job->stage_at ? job->stage_at : job->at, "unknown-stage",
           hint ? hint : stages_hint(c), "there is no stage `" STR_FMT "`%s", STR_ARG(name),
           job->stage_at ? "" : ", where jobs without `stage` go");
}

/* One of the jobs that it extends is not there, which was reported: it may have what is missing. */
static bool extends_nothing(const struct compile *c, const struct job *job)
{
    const struct node *names = node_get(job->body, "extends");
    bool list = names && names->kind == NODE_LIST;
    for (uint32_t i = 0; !node_is_null(names) && i < (list ? names->count : 1); i++) {
        const struct node *name = list ? names->items[i] : names;
        if (!node_is_string(name) || !node_find(c->root, name->text)) {
            return true;
        }
    }
    return false;
}

static void check_script(struct compile *c, const struct job *job)
{
    bool other_work = has_job_key(job, "trigger") || has_job_key(job, "run") ||
                      has_job_key(job, "rollout");
    const struct pair *script = node_find(job->body, STR("script"));
    bool has_script = script && (!node_is_null(script->value) || script->value->reference);
    if (has_script || other_work || job->misspelled || c->incomplete || extends_nothing(c, job)) {
        return;
    }
    if (script) {
        report(c, script->key, "no-script", "write the commands below it, each as `- command`",
               "`script` is empty");
    } else {
        report(c, job->at, "no-script", suggest_keyword(c, job->name, SCOPE_TOP),
               "a job needs a `script`");
    }
}

static void warn_never(struct compile *c, const struct job *job)
{
    for (size_t i = 0; i < job->rules.count; i++) {
        if (!job->rules.items[i].never) {
            return;
        }
    }
    if (job->rules.count > 0) {
        report_warning(c, job->rules.items[0].at, "never-runs", NULL,
                       "all rules say `when: never`: the job is in no pipeline");
    }
}

static void check_job(struct compile *c, const struct job *job)
{
    check_script(c, job);
    warn_never(c, job);
    if (job->rules.present && (job->only.present || job->except.present)) {
        report(c, job->at, "rules-with-only", "say it all in `rules`",
               "`rules` cannot stand beside `%s`", job->only.present ? "only" : "except");
    }
    bool delayed = job->has_when && job->plan.when == WHEN_DELAYED;
    bool unread = job->plan.start_in_ms == 0 && !node_is_null(node_get(job->body, "start_in"));
    if (delayed != (job->plan.start_in_ms > 0) && !job->rules.present && !unread) {
        report(c, job->at, "bad-value", NULL, "`when: delayed` and `start_in` go together");
    }
    for (size_t i = 0; job->needs.count > 0 && i < job->dependency_count; i++) {
        bool needed = false;
        for (size_t k = 0; k < job->needs.count; k++) {
            needed |= str_eq(job->needs.items[k].job, job->dependencies[i].job);
        }
        if (!needed) {
            report(c, job->dependencies[i].at, "dependency-not-needed", NULL,
                   "`dependencies`: `" STR_FMT "` must be among the `needs`, too",
                   STR_ARG(job->dependencies[i].job));
        }
    }
}

static struct job *new_job(struct compile *c)
{
    if (c->job_count == c->job_cap) {
        c->job_cap = MAX(2 * c->job_cap, (size_t)c->root->count); /* as a rule, all fit */
        struct job *jobs = arena_array(c->arena, c->job_cap, sizeof(*jobs));
        if (c->job_count > 0) {
            memcpy(jobs, c->jobs, c->job_count * sizeof(*jobs));
        }
        c->jobs = jobs;
    }
    return &c->jobs[c->job_count++];
}

/* GitLab has no limit for the names of parts; here the number of the part keeps them apart. */
static struct str cut_name(struct compile *c, const struct job *part)
{
    const char *end = arena_printf(c->arena, "... %u/%u]", part->plan.node_index,
                                   part->plan.node_total);
    size_t n = LIMIT_NAME - strlen(end);
    while (n > 0 && ((uint8_t)part->name.p[n] & 0xc0) == 0x80) {
        n--; /* not in the middle of a character */
    }
    return str_from(arena_printf(c->arena, "%.*s%s", (int)n, part->name.p, end));
}

/* The name and the variables that one part of a parallel job has of its own. */
static void set_part(struct compile *c, struct job *part, const struct job *job, uint32_t index)
{
    part->plan.node_index = index;
    part->plan.node_total = job->parallel;
    if (job->matrix.count == 0) {
        part->name = str_from(
            arena_printf(c->arena, STR_FMT " %u/%u", STR_ARG(job->name), index, job->parallel));
    } else {
        const struct combination *combination = &job->matrix.items[index - 1];
        part->name = matrix_name(c, job->name, combination);
        part->matrix_variables = combination->variables;
        part->variables = matrix_merge(c, &job->variables, &combination->variables);
    }
    if (part->name.n > LIMIT_NAME) {
        part->long_name = part->name;
        part->name = cut_name(c, part);
    }
    if (!str_is_utf8(part->name, NULL)) {
        report(c, job->at, "bad-value", NULL, "the name of a part holds a NUL character");
    }
    part->needs = needs_unfold(c, part, &job->needs);
}

/* A job with `parallel` becomes as many jobs as that says. */
static void unfold(struct compile *c, const struct job *job)
{
    uint32_t total = job->parallel;
    if (c->job_count + MAX(total, 1u) > LIMIT_JOB_DEFINITIONS) {
        report(c, job->at, "limit", NULL, "more than %u jobs in the file", LIMIT_JOB_DEFINITIONS);
        return;
    }
    for (uint32_t i = 1; i <= MAX(total, 1u); i++) {
        struct job *instance = new_job(c);
        *instance = *job;
        if (total > 0) {
            set_part(c, instance, job, i);
        } else {
            instance->needs = needs_unfold(c, job, &job->needs);
        }
        instance->plan.base_name = arena_strdup(c->arena, job->name);
        instance->plan.name = arena_strdup(c->arena, instance->name);
    }
}

static bool has_job_keyword(const struct node *body)
{
    for (uint32_t i = 0; i < body->count; i++) {
        if (keyword_find(SCOPE_JOB, body->pairs[i].key->text)) {
            return true;
        }
    }
    return false;
}

/* A mapping that is no job at all, but nearly named as a keyword: `varibles`. */
static bool is_misspelled_keyword(struct compile *c, const struct pair *p)
{
    if (p->value->kind != NODE_MAPPING || has_job_keyword(p->value)) {
        return false;
    }
    const char *hint = suggest_keyword(c, p->key->text, SCOPE_TOP);
    if (!hint) {
        return false;
    }
    c->job_at = NULL;
    report(c, p->key, "unknown-keyword", hint,
           "`" STR_FMT "` is no keyword, and it has none of a job's", STR_ARG(p->key->text));
    return true;
}

/* What a key at the top that makes no job may be. */
static const char *no_job_hint(struct compile *c, const struct pair *p)
{
    struct str rest = p->value->text;
    struct str word;
    if (str_starts(p->key->text, STR("\xc2\xa0"))) {
        return "a no-break space stands before it: indent with plain ones";
    }
    const char *hint = suggest_keyword(c, p->key->text, SCOPE_TOP);
    if (keyword_find(SCOPE_JOB, p->key->text) && !(hint && p->value->kind == NODE_LIST)) {
        return arena_printf(c->arena, "`" STR_FMT "` belongs in a job: indent it below the name",
                            STR_ARG(p->key->text));
    }
    if (node_is_string(p->value) && str_split(&rest, ':', &word) && word.n < p->value->text.n &&
        keyword_find(SCOPE_JOB, word)) {
        return arena_printf(c->arena, "a blank is missing behind the colon of `" STR_FMT ":`",
                            STR_ARG(word));
    }
    return hint || !node_is_null(p->value) ? hint : "indent the lines that belong to it";
}

/* Ruby's words for nothing and truth, which GitLab keeps for itself. */
static bool is_reserved(struct compile *c, const struct node *name)
{
    static const char *const names[] = {"true", "false", "nil"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eqz(name->text, names[i])) {
            report(c, name, "bad-value", NULL, "`%s` cannot be the name of a job", names[i]);
            return true;
        }
    }
    return false;
}

static void read_job(struct compile *c, const struct pair *p)
{
    struct job job = {.name = p->key->text,
                      .at = p->key,
                      .body = p->value,
                      .inherit_defaults = {.all = true},
                      .inherit_variables = {.all = true}};
    pb__plan_job__init(&job.plan);
    struct str name;
    if (!read_name(c, p->key, "name of the job", &name) || is_misspelled_keyword(c, p) ||
        is_reserved(c, p->key)) {
        return;
    }
    if (job.body->kind != NODE_MAPPING) {
        report(c, p->key, "wrong-type", no_job_hint(c, p),
               "`" STR_FMT "` is no keyword, and no job: a job is a mapping, found %s",
               STR_ARG(job.name), node_what(job.body));
        return;
    }
    size_t errors = c->diags->errors;
    c->unsupported = (struct texts){0};
    read_keys(c, job.body, SCOPE_JOB, "job");
    job.misspelled = c->diags->errors > errors;
    read_mapping(c, job.body, &job);
    read_inherited(c, &job);
    pages_finish(c, &job);
    if (has_job_key(&job, "trigger")) {
        trigger_check(c, &job);
    }
    if (has_job_key(&job, "rollout")) {
        rollout_check(c, &job);
    }
    job.plan.unsupported = texts_to_strings(c->arena, c->unsupported);
    job.plan.n_unsupported = c->unsupported.count;
    resolve_stage(c, &job);
    check_job(c, &job);
    unfold(c, &job);
}

void jobs_read(struct compile *c)
{
    for (uint32_t i = 0; i < c->root->count; i++) {
        const struct pair *p = &c->root->pairs[i];
        if (keyword_find(SCOPE_TOP, p->key->text) || str_starts(p->key->text, STR("."))) {
            continue;
        }
        c->job_at = p->key;
        read_job(c, p);
    }
    c->job_at = NULL;
}
