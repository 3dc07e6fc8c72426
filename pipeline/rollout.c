/* rollout: jobs that bring a version to where its users are. They have no script and need no
 * worker: the broker walks the steps. What the target can do of it is judged when the rollout is
 * made. */
#include "common/base.h"

#include "common/approver.h"
#include "pipeline/compile.h"
#include "proto/rollout.h"

#define MILLION    1000000u
#define FULL_BP    10000u
#define PERCENT    100u /* basis points */
#define TICK_MIN   100u
#define TICK_MAX   3600000u
#define STEPS_MAX  100u
#define ALPHA_MAX  500000u /* one half */
#define TIMES_MAX  1000000u
#define EVENTS_MAX 1000000u

/* A number without a sign, with at most `digits` behind the point: in units of the last of them. */
static bool to_fixed(struct str s, unsigned digits, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;
    unsigned behind = 0;
    bool point = false;
    bool any = false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.' && !point) {
            point = true;
        } else if (s.p[i] >= '0' && s.p[i] <= '9' && (!point || behind < digits) &&
                   v <= (UINT64_MAX - 9) / 10) {
            v = v * 10 + (uint64_t)(s.p[i] - '0');
            behind += point;
            any = true;
        } else {
            return false;
        }
    }
    for (; behind < digits; behind++) {
        if (v > UINT64_MAX / 10) {
            return false;
        }
        v *= 10;
    }
    *ret = v;
    return any && v <= max;
}

/* "5%" or 5: in basis points. */
static bool read_percent(struct compile *c, const struct node *n, const char *what, uint32_t *ret)
{
    struct str text = n->kind == NODE_SCALAR ? n->text : STR("");
    uint64_t bp = 0;
    if (str_ends(text, STR("%"))) {
        text = str_trim(str_sub(text, 0, text.n - 1));
    }
    if (!to_fixed(text, 2, FULL_BP, &bp)) {
        report(c, n, "bad-value", "as `weight: 5`, or `2.5%`",
               "`%s` must be from 0 to 100 percent, with at most two digits behind the point",
               what);
        return false;
    }
    *ret = (uint32_t)bp;
    return true;
}

static bool read_percent_of(struct compile *c, const struct node *m, const char *what,
                            uint32_t *ret)
{
    const struct node *n = key_of(m, what);
    return n && read_percent(c, n, what, ret);
}

/* Whole percent; "25%" or 25. */
static void read_whole_percent_of(struct compile *c, const struct node *m, const char *what,
                                  uint32_t *ret)
{
    uint32_t bp = 0;
    if (read_percent_of(c, m, what, &bp)) {
        *ret = (bp + PERCENT - 1) / PERCENT;
    }
}

static void read_count_of(struct compile *c, const struct node *m, const char *what, int64_t min,
                          int64_t max, uint32_t *ret)
{
    const struct node *n = key_of(m, what);
    int64_t v = 0;
    if (n && read_number(c, n, what, min, max, &v)) {
        *ret = (uint32_t)v;
    }
}

static void read_ms_of(struct compile *c, const struct node *m, const char *what, uint64_t min,
                       uint64_t max, uint64_t *ret)
{
    const struct node *n = key_of(m, what);
    uint64_t ms = 0;
    if (!n || !read_duration(c, n, what, &ms)) {
        return;
    }
    if (ms < min || ms > max) {
        report(c, n, "bad-value", NULL, "`%s` must be from %" PRIu64 " ms to %" PRIu64 " s", what,
               min, max / 1000);
        return;
    }
    *ret = ms;
}

static void read_policy_of(struct compile *c, const struct node *m, const char *what,
                           Pb__RolloutPolicy *ret)
{
    static const char *const names[] = {"extend", "approve", "pass", "fail", "synthetic"};
    static const Pb__RolloutPolicy values[] = {ROLLOUT_POLICY_EXTEND, ROLLOUT_POLICY_APPROVE,
                                               ROLLOUT_POLICY_PASS, ROLLOUT_POLICY_FAIL,
                                               ROLLOUT_POLICY_SYNTHETIC};
    const struct node *n = key_of(m, what);
    size_t i;
    if (n && read_choice(c, n, what, names, ARRAY_LEN(names), &i)) {
        *ret = values[i];
    }
}

/* approve: [ROLE], or { roles: [ROLE], count: 2 } */
static void read_approve(struct compile *c, const struct node *n, Pb__RolloutStepWish *w)
{
    struct texts roles = {0};
    struct read_texts how = {.what = "approve", .single = true, .depth = 1, .max = LIMIT_TAGS};
    if (n->kind == NODE_MAPPING) {
        if (!read_keys(c, n, SCOPE_ROLLOUT_APPROVE, "approve")) {
            return;
        }
        read_count_of(c, n, "approve:count", 1, 100, &w->approvals);
        if (!key_of(n, "roles")) {
            report(c, n, "missing-key", "approve: [maintainer]", "`approve` needs `roles`");
            return;
        }
        n = key_of(n, "roles");
        how.what = "approve:roles";
    }
    if (!read_texts(c, n, how, &roles)) {
        return;
    }
    if (roles.count == 0) {
        report(c, n, "bad-value", "approve: [maintainer]", "`approve` names no role");
    }
    for (size_t i = 0; i < roles.count; i++) {
        if (!approver_ok(roles.items[i])) {
            report(c, n, "bad-value", APPROVER_HINT, "`approve`: `" STR_FMT "` is no role",
                   STR_ARG(roles.items[i]));
        }
    }
    w->approve = texts_to_strings(c->arena, roles);
    w->n_approve = roles.count;
}

static void read_step_run(struct compile *c, const struct node *n, Pb__RolloutStepWish *w)
{
    struct texts lines = {0};
    struct read_texts how = {.what = "run", .single = true, .depth = SCRIPT_NESTING};
    if (read_texts(c, n, how, &lines)) {
        w->run = texts_to_bytes(c->arena, lines);
        w->n_run = lines.count;
    }
}

static void read_until(struct compile *c, const struct node *n, Pb__RolloutStepWish *w)
{
    static const char *const names[] = {"good"};
    size_t i;
    w->until_good = read_choice(c, n, "until", names, ARRAY_LEN(names), &i);
    if (w->analyze_ms == 0) {
        report(c, n, "keyword-conflict", "analyze: 10m, until: good",
               "`until` needs `analyze`: the longest it may take");
    }
}

static Pb__RolloutStepWish *read_step(struct compile *c, const struct node *n)
{
    Pb__RolloutStepWish *w = arena_alloc(c->arena, sizeof(*w));
    struct str name = STR("");
    pb__rollout_step_wish__init(w);
    if (!read_keys(c, n, SCOPE_ROLLOUT_STEP, "steps")) {
        return w;
    }
    w->has_weight = read_percent_of(c, n, "steps:weight", &w->weight_bp);
    w->has_scale = key_of(n, "scale") != NULL;
    read_count_of(c, n, "steps:scale", 1, LIMIT_ROLLOUT_INSTANCES, &w->scale);
    read_percent_of(c, n, "steps:mirror", &w->mirror_bp);
    read_ms_of(c, n, "steps:hold", 1, LIMIT_TIMEOUT_MS, &w->hold_ms);
    read_ms_of(c, n, "steps:analyze", 1, LIMIT_TIMEOUT_MS, &w->analyze_ms);
    if (key_of(n, "until")) {
        read_until(c, key_of(n, "until"), w);
    }
    if (key_of(n, "approve")) {
        read_approve(c, key_of(n, "approve"), w);
    }
    if (key_of(n, "run")) {
        read_step_run(c, key_of(n, "run"), w);
    }
    if (read_name_of(c, n, "steps:name", &name) && name.n > 0) {
        w->name = arena_strdup(c->arena, name);
    }
    if (n->count == 0) {
        report(c, n, "bad-value", "- weight: 5", "a step that does nothing");
    }
    return w;
}

static void read_steps(struct compile *c, const struct node *n, Pb__RolloutSpec *spec)
{
    if (n->kind != NODE_LIST || n->count > STEPS_MAX) {
        report(c, n, "wrong-type", "steps: [{ weight: 5, hold: 2m }]",
               "`rollout:steps` must be a list of at most %u steps, found %s", STEPS_MAX,
               node_what(n));
        return;
    }
    spec->steps = arena_array(c->arena, n->count + 1, sizeof(*spec->steps));
    for (uint32_t i = 0; i < n->count; i++) {
        spec->steps[spec->n_steps++] = read_step(c, n->items[i]);
    }
}

static void read_waves(struct compile *c, const struct node *n, Pb__RolloutSpec *spec)
{
    static const char *const units[] = {"instance", "place"};
    Pb__RolloutWaves *w = arena_alloc(c->arena, sizeof(*w));
    size_t i;
    pb__rollout_waves__init(w);
    spec->waves = w;
    if (!read_keys(c, n, SCOPE_ROLLOUT_WAVES, "waves")) {
        return;
    }
    read_count_of(c, n, "waves:first", 1, LIMIT_ROLLOUT_INSTANCES * LIMIT_ROLLOUT_PLACES,
                  &w->first);
    read_whole_percent_of(c, n, "waves:size", &w->size_percent);
    read_whole_percent_of(c, n, "waves:max_unavailable", &w->max_unavailable_percent);
    read_whole_percent_of(c, n, "waves:max_surge", &w->max_surge_percent);
    if (key_of(n, "by") &&
        read_choice(c, key_of(n, "by"), "waves:by", units, ARRAY_LEN(units), &i)) {
        w->by_place = i == 1;
    }
    read_ms_of(c, n, "waves:hold", 1, LIMIT_TIMEOUT_MS, &w->hold_ms);
    read_ms_of(c, n, "waves:analyze", 1, LIMIT_TIMEOUT_MS, &w->analyze_ms);
}

/* A share as `5%` or 0.05, a time as `1s`, or any number: in millionths, microseconds. */
static bool read_threshold(struct compile *c, const struct node *n, const char *what, uint64_t *ret)
{
    struct str text = n->kind == NODE_SCALAR ? n->text : STR("");
    uint64_t v = 0;
    if (str_ends(text, STR("%")) &&
        to_fixed(str_trim(str_sub(text, 0, text.n - 1)), 4, 100u * FULL_BP, &v)) {
        *ret = v;
        return true;
    }
    if (str_ends(text, STR("ms")) &&
        to_fixed(str_trim(str_sub(text, 0, text.n - 2)), 3, UINT64_MAX, &v)) {
        *ret = v;
        return true;
    }
    if (to_fixed(text, 6, UINT64_MAX, &v)) {
        *ret = v;
        return true;
    }
    if (n->kind == NODE_SCALAR && str_to_duration_ms(text, &v) == 0 && v < UINT64_MAX / 1000) {
        *ret = v * 1000;
        return true;
    }
    report(c, n, "bad-value", "as `5%`, `300ms`, `1s` or `0.05`",
           "`%s` must be a share, a time or a number, found %s", what, node_what(n));
    return false;
}

static void read_percentile(struct compile *c, const struct node *n, Pb__RolloutMetric *m)
{
    uint32_t bp = 0;
    if (read_percent(c, n, "analysis:percentile", &bp) && (bp == 0 || bp == FULL_BP)) {
        report(c, n, "bad-value", "percentile: 99",
               "`analysis:percentile` must be within 0 and 100");
    }
    m->percentile = bp;
}

/* The p99 of `latency_p99`. */
static uint32_t percentile_of_name(struct str name)
{
    size_t at = name.n;
    uint64_t v = 0;
    while (at > 0 && name.p[at - 1] >= '0' && name.p[at - 1] <= '9') {
        at--;
    }
    const size_t digits = name.n - at;
    if (digits < 2 || digits > 4 || at < 3 || name.p[at - 1] != 'p' || name.p[at - 2] != '_' ||
        !to_fixed(str_sub(name, at, name.n), 0, FULL_BP, &v)) {
        return 0;
    }
    for (size_t i = digits; i < 4; i++) {
        v *= 10;
    }
    return (uint32_t)v;
}

static bool is_counted(struct str name)
{
    return str_eqz(name, "readiness") || str_eqz(name, "restarts");
}

static void read_rule(struct compile *c, const struct node *n, Pb__RolloutMetric *m)
{
    const struct node *tolerance = key_of(n, "tolerance");
    const struct node *threshold = key_of(n, "threshold");
    const struct node *failures = key_of(n, "failures");
    uint64_t v = 0;
    if (!!tolerance + !!threshold + !!failures != 1) {
        report(
            c, n, "missing-key", "tolerance: 1.2",
            "a metric has one of `tolerance` (times that of the stable version), `threshold` and "
            "`failures`");
    } else if (tolerance) {
        m->rule = ROLLOUT_RULE_COMPARE;
        if (tolerance->kind != NODE_SCALAR ||
            !to_fixed(tolerance->text, 3, 1000u * TIMES_MAX, &v) || v < 1000) {
            report(c, tolerance, "bad-value", "tolerance: 1.2",
                   "`analysis:tolerance` must be a number of at least 1, with at most three digits "
                   "behind the point");
        }
        m->tolerance_millis = (uint32_t)MIN(v, UINT32_MAX);
    } else if (threshold) {
        m->rule = ROLLOUT_RULE_THRESHOLD;
        read_threshold(c, threshold, "analysis:threshold", &m->threshold_micros);
    } else {
        m->rule = ROLLOUT_RULE_FAILURES;
        read_count_of(c, n, "analysis:failures", 1, 1000, &m->failures);
    }
}

static Pb__RolloutMetric *read_metric(struct compile *c, const struct node *n)
{
    Pb__RolloutMetric *m = arena_alloc(c->arena, sizeof(*m));
    struct str name = STR("");
    bool b = false;
    pb__rollout_metric__init(m);
    if (!read_keys(c, n, SCOPE_ROLLOUT_METRIC, "analysis")) {
        return m;
    }
    if (!key_of(n, "metric")) {
        report(c, n, "missing-key", "- metric: error_rate",
               "an entry of `analysis` needs a `metric`");
    } else if (read_name_of(c, n, "analysis:metric", &name)) {
        m->metric = arena_strdup(c->arena, name);
        m->percentile = percentile_of_name(name);
    }
    read_rule(c, n, m);
    if (m->rule == ROLLOUT_RULE_FAILURES && name.n > 0 && !is_counted(name)) {
        report(c, key_of(n, "failures"), "keyword-conflict", NULL,
               "`failures` counts `readiness` and `restarts` only");
    }
    if (key_of(n, "percentile")) {
        read_percentile(c, key_of(n, "percentile"), m);
    }
    m->critical = read_bool_of(c, n, "analysis:critical", &b) && b;
    b = false;
    m->dry_run = read_bool_of(c, n, "analysis:dry_run", &b) && b;
    b = false;
    m->below = read_bool_of(c, n, "analysis:below", &b) && b;
    read_count_of(c, n, "analysis:min_events", 1, EVENTS_MAX, &m->min_events);
    return m;
}

static void add_metric(struct compile *c, Pb__RolloutSpec *spec, Pb__RolloutMetric *m)
{
    Pb__RolloutMetric **all = arena_array(c->arena, spec->n_analysis + 1, sizeof(*all));
    if (spec->n_analysis > 0) {
        memcpy(all, spec->analysis, spec->n_analysis * sizeof(*all));
    }
    all[spec->n_analysis++] = m;
    spec->analysis = all;
}

static void read_analysis(struct compile *c, const struct node *n, Pb__RolloutSpec *spec)
{
    if (n->kind != NODE_LIST || n->count > LIMIT_ROLLOUT_METRICS) {
        report(c, n, "wrong-type", "analysis: [{ metric: error_rate, tolerance: 1.2 }]",
               "`rollout:analysis` must be a list of at most %u metrics, found %s",
               LIMIT_ROLLOUT_METRICS, node_what(n));
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        add_metric(c, spec, read_metric(c, n->items[i]));
    }
}

/* rollback: { error_rate: 5%, readiness_failure: 3 }: what must never be, whatever the stable
 * version does. */
static void read_rollback(struct compile *c, const struct node *n, Pb__RolloutSpec *spec)
{
    if (n->kind != NODE_MAPPING || n->count + spec->n_analysis > LIMIT_ROLLOUT_METRICS) {
        report(c, n, "wrong-type", "rollback: { error_rate: 5% }",
               "`rollout:rollback` must be a mapping of metrics to thresholds, found %s",
               node_what(n));
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *value = n->pairs[i].value;
        struct str name = n->pairs[i].key->text;
        Pb__RolloutMetric *m = arena_alloc(c->arena, sizeof(*m));
        int64_t count = 0;
        pb__rollout_metric__init(m);
        m->critical = true;
        if (str_eqz(name, "readiness_failure") || str_eqz(name, "restart")) {
            m->rule = ROLLOUT_RULE_FAILURES;
            m->metric = (char *)(str_eqz(name, "restart") ? "restarts" : "readiness");
            if (read_number(c, value, "rollback", 1, 1000, &count)) {
                m->failures = (uint32_t)count;
            }
        } else {
            m->rule = ROLLOUT_RULE_THRESHOLD;
            m->metric = arena_strdup(c->arena, name);
            m->percentile = percentile_of_name(name);
            read_threshold(c, value, "rollback", &m->threshold_micros);
        }
        add_metric(c, spec, m);
    }
}

static void read_alpha(struct compile *c, const struct node *n, Pb__RolloutSpec *spec)
{
    uint64_t v = 0;
    if (n->kind != NODE_SCALAR || !to_fixed(n->text, 6, ALPHA_MAX, &v) || v == 0) {
        report(c, n, "bad-value", "alpha: 0.01",
               "`rollout:alpha` must be above 0 and at most 0.5: how often a good version may be "
               "rolled back");
        return;
    }
    spec->alpha_millionths = (uint32_t)v;
}

static ProtobufCBinaryData bytes_of(struct compile *c, const struct node *m, const char *what)
{
    struct str text = STR("");
    read_text_of(c, m, what, &text);
    return pb_bytes_ref(text);
}

static void read_flags(struct compile *c, const struct node *n, Pb__RolloutSpec *spec)
{
    static const char *const failures[] = {"rollback", "hold"};
    const struct node *on_failure = key_of(n, "on_failure");
    bool safe = true;
    size_t i;
    if (on_failure &&
        read_choice(c, on_failure, "rollout:on_failure", failures, ARRAY_LEN(failures), &i)) {
        spec->on_failure = (Pb__OnRolloutFailure)i;
    }
    read_bool_of(c, n, "rollout:rollback_safe", &safe);
    spec->rollback_unsafe = !safe;
    read_policy_of(c, n, "rollout:on_thin", &spec->on_thin);
    read_policy_of(c, n, "rollout:on_no_data", &spec->on_no_data);
    read_policy_of(c, n, "rollout:on_error", &spec->on_error);
}

static void read_lists(struct compile *c, const struct node *n, Pb__RolloutSpec *spec)
{
    if (key_of(n, "steps")) {
        read_steps(c, key_of(n, "steps"), spec);
    }
    if (key_of(n, "waves")) {
        read_waves(c, key_of(n, "waves"), spec);
        if (spec->strategy != ROLLOUT_ROLLING) {
            report(c, key_of(n, "waves"), "keyword-conflict", "strategy: rolling",
                   "`waves` is of the strategy `rolling`");
        }
    }
    if (key_of(n, "analysis")) {
        read_analysis(c, key_of(n, "analysis"), spec);
    }
    if (key_of(n, "rollback")) {
        read_rollback(c, key_of(n, "rollback"), spec);
    }
}

/* Weights rise: what is written wrongly is found before anything moves. */
static void check_weights(struct compile *c, const struct node *steps, const Pb__RolloutSpec *spec)
{
    uint32_t before = 0;
    for (size_t i = 0; i < spec->n_steps; i++) {
        const Pb__RolloutStepWish *w = spec->steps[i];
        if (w->has_weight && w->weight_bp < before) {
            report(c, steps->items[i], "bad-value", NULL,
                   "weights rise from step to step: %u.%02u after %u.%02u", w->weight_bp / PERCENT,
                   w->weight_bp % PERCENT, before / PERCENT, before % PERCENT);
        }
        before = w->has_weight ? w->weight_bp : before;
    }
}

void rollout_read(struct compile *c, const struct node *n, struct job *job)
{
    static const char *const strategies[] = {"canary", "blue_green", "rolling"};
    Pb__RolloutSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    struct str text = STR("$CI_COMMIT_SHA");
    size_t i;
    pb__rollout_spec__init(spec);
    if (!read_keys(c, n, SCOPE_ROLLOUT, "rollout")) {
        return;
    }
    if (key_of(n, "strategy") && read_choice(c, key_of(n, "strategy"), "rollout:strategy",
                                             strategies, ARRAY_LEN(strategies), &i)) {
        spec->strategy = (Pb__RolloutStrategy)i;
    }
    if (!key_of(n, "target")) {
        report(c, n, "missing-key", "target: web", "`rollout` needs a `target`");
    }
    read_name_of(c, n, "rollout:version", &text);
    spec->version = arena_strdup(c->arena, text);
    text = STR("");
    read_name_of(c, n, "rollout:target", &text);
    spec->target = arena_strdup(c->arena, text);
    text = STR("");
    read_name_of(c, n, "rollout:group", &text);
    spec->group = arena_strdup(c->arena, text);
    spec->image = bytes_of(c, n, "rollout:image");
    spec->command = bytes_of(c, n, "rollout:command");
    read_count_of(c, n, "rollout:instances", 1, LIMIT_ROLLOUT_INSTANCES, &spec->instances);
    read_ms_of(c, n, "rollout:bake", 0, LIMIT_TIMEOUT_MS, &spec->bake_ms);
    read_ms_of(c, n, "rollout:progress", 1000, LIMIT_TIMEOUT_MS, &spec->progress_ms);
    read_ms_of(c, n, "rollout:tick", TICK_MIN, TICK_MAX, &spec->tick_ms);
    if (key_of(n, "alpha")) {
        read_alpha(c, key_of(n, "alpha"), spec);
    }
    read_flags(c, n, spec);
    read_lists(c, n, spec);
    if (key_of(n, "steps") && key_of(n, "steps")->kind == NODE_LIST) {
        check_weights(c, key_of(n, "steps"), spec);
    }
    job->plan.rollout = spec;
}

/* What the target has against it, where whoever compiles knows targets. */
static void ask_target(struct compile *c, const struct job *job)
{
    const struct node *at = key_of(job->body, "rollout");
    const char *error = NULL;
    const char *warning = NULL;
    if (!c->in->rollout || !job->plan.environment) {
        return;
    }
    c->in->rollout(c->in->rollout_ctx, job->plan.environment->name, job->plan.rollout, c->arena,
                   &error, &warning);
    if (error) {
        report(c, at ? at : job->at, "rollout-target", NULL, "`rollout`: %s", error);
    }
    if (warning) {
        report_warning(c, at ? at : job->at, "rollout-workers", NULL, "`rollout`: %s", warning);
    }
}

void rollout_select(struct compile *c, struct job *job, const struct vars *env)
{
    Pb__RolloutSpec *spec;
    if (!job->plan.rollout) {
        return;
    }
    spec = arena_alloc(c->arena, sizeof(*spec));
    *spec = *job->plan.rollout;
    spec->target = arena_strdup(c->arena, expand_text(c, env, str_from(spec->target), 0));
    spec->group = arena_strdup(c->arena, expand_text(c, env, str_from(spec->group), 0));
    if (spec->target[0] == '\0' || strlen(spec->target) > LIMIT_NAME) {
        report(c, job->at, "bad-value", NULL,
               "`rollout:target` has no good name once it is expanded: `%s`", spec->target);
    }
    job->plan.rollout = spec;
    ask_target(c, job);
}

/* What a job without a script and a worker can do nothing with, and what it needs. */
void rollout_check(struct compile *c, const struct job *job)
{
    for (uint32_t i = 0; i < job->body->count; i++) {
        const struct pair *p = &job->body->pairs[i];
        const struct keyword *k = keyword_find(SCOPE_JOB, p->key->text);
        if (k && !node_is_null(p->value) && !rollout_allows(k->name.p)) {
            report(c, p->key, "keyword-conflict", "`steps:run` runs a script within the rollout",
                   "`%s` cannot stand beside `rollout`", k->name.p);
        }
    }
    if (!has_job_key(job, "environment")) {
        report(c, job->at, "missing-key", "environment: production",
               "a job with `rollout` needs an `environment`: it has the target");
    } else if (job->environment.spec.action != PB__ENVIRONMENT_ACTION__ENVIRONMENT_ACTION_START) {
        report(c, job->environment.at, "keyword-conflict", NULL,
               "`rollout` deploys: `environment:action` must be `start`");
    }
}

bool rollout_allows(const char *keyword)
{
    static const char *const names[] = {
        "allow_failure", "dependencies", "environment",         "except", "extends",
        "inherit",       "needs",        "manual_confirmation", "only",   "priority",
        "interruptible", "rollout",      "resource_group",      "rules",  "stage",
        "start_in",      "type",         "variables",           "when",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], keyword) == 0) {
            return true;
        }
    }
    return false;
}
