#include "common/base.h"

#include "broker/rollout/steps.h"
#include "broker/rollout/verdict.h"

#include "common/err.h"
#include "common/limits.h"
#include "proto/rollout.h"

#define FULL_BP            10000u
#define WAVE_SIZE_PERCENT  25u
#define WAVE_SURGE_PERCENT 25u

struct compiler {
    const Pb__RolloutSpec *spec;
    const Pb__RolloutTarget *target;
    struct arena *a;
    uint32_t places;
    uint32_t each; /* instances in each place, at full weight */
    Pb__RolloutStepRecord **steps;
    size_t count;
    const char *why; /* NULL: nothing is wrong */
    uint32_t scaled; /* the last SCALE, all places together */
};

static uint32_t all_of(const struct compiler *c)
{
    return c->places * c->each;
}

static void wrong(struct compiler *c, const char *why)
{
    c->why = c->why == NULL ? why : c->why;
}

static Pb__RolloutStepRecord *add(struct compiler *c, Pb__RolloutStepKind kind, const char *name)
{
    Pb__RolloutStepRecord *s = arena_alloc(c->a, sizeof(*s));

    pb__rollout_step_record__init(s);
    s->kind = kind;
    s->name = arena_strdup(c->a, str_from(name));
    if (c->count == LIMIT_ROLLOUT_PLAN_STEPS) {
        wrong(c, arena_printf(c->a, "more than %u steps", LIMIT_ROLLOUT_PLAN_STEPS));
        return s;
    }
    c->steps[c->count++] = s;
    return s;
}

/* Spread over the places: the first ones have one more where it does not come out even. */
static void spread(struct compiler *c, Pb__RolloutStepRecord *s, uint32_t total, bool whole_places)
{
    uint32_t left = total;

    s->n_instances = c->places;
    s->instances = arena_array(c->a, c->places, sizeof(*s->instances));
    for (uint32_t i = 0; i < c->places; i++) {
        const uint32_t even = total / c->places + (i < total % c->places ? 1 : 0);
        s->instances[i] = whole_places ? MIN(c->each, left) : even;
        left -= s->instances[i];
    }
}

/* The old version goes where the new one has come: what stays is spread as the rest. */
static void spread_rest(struct compiler *c, Pb__RolloutStepRecord *s, uint32_t total, bool whole)
{
    spread(c, s, total, whole);
    for (uint32_t i = 0; i < c->places / 2; i++) { /* the last places keep theirs the longest */
        const uint32_t other = s->instances[c->places - 1 - i];
        s->instances[c->places - 1 - i] = s->instances[i];
        s->instances[i] = other;
    }
}

static void scale_to(struct compiler *c, uint32_t total, bool whole_places)
{
    if (total > c->scaled) {
        Pb__RolloutStepRecord *s = add(
            c, ROLLOUT_STEP_SCALE,
            arena_printf(c->a, "%u instance%s", total, total == 1 ? "" : "s"));
        spread(c, s, total, whole_places);
        c->scaled = total;
    }
}

static void weigh(struct compiler *c, uint32_t bp)
{
    const char *name = bp % 100 == 0 ? arena_printf(c->a, "weight %u %%", bp / 100)
                                     : arena_printf(c->a, "weight %u.%02u %%", bp / 100, bp % 100);

    add(c, ROLLOUT_STEP_WEIGHT, name)->weight_bp = bp;
}

/* How many instances must stand behind a weight. */
static uint32_t behind(const struct compiler *c, uint32_t bp)
{
    const uint64_t n = ((uint64_t)all_of(c) * bp + FULL_BP - 1) / FULL_BP;

    return (uint32_t)MAX(n, 1u);
}

static void timed(struct compiler *c, Pb__RolloutStepKind kind, const char *verb, uint64_t for_ms,
                  const char *name)
{
    Pb__RolloutStepRecord *s = add(
        c, kind,
        name[0] != '\0' ? name : arena_printf(c->a, "%s %" PRIu64 " s", verb, for_ms / 1000));

    s->for_ms = for_ms;
}

static void approve(struct compiler *c, const Pb__RolloutStepWish *w)
{
    Pb__RolloutStepRecord *s = add(c, ROLLOUT_STEP_APPROVE,
                                   w->name[0] != '\0' ? w->name : "approval");

    s->roles = w->approve;
    s->n_roles = w->n_approve;
    s->approvals = MAX(w->approvals, 1u);
}

/* What an entry wants besides instances and weight. */
static void waits(struct compiler *c, const Pb__RolloutStepWish *w)
{
    if (w->n_run > 0) {
        Pb__RolloutStepRecord *s = add(c, ROLLOUT_STEP_RUN,
                                       w->name[0] != '\0' ? w->name : "script");
        s->script = w->run;
        s->n_script = w->n_run;
    }
    if (w->hold_ms > 0) {
        timed(c, ROLLOUT_STEP_HOLD, "hold", w->hold_ms, w->name);
    }
    if (w->analyze_ms > 0) {
        timed(c, ROLLOUT_STEP_ANALYZE, "analyze", w->analyze_ms, w->name);
        c->steps[c->count - 1]->until_good = w->until_good;
    }
    if (w->n_approve > 0) {
        approve(c, w);
    }
}

static bool router_is(const struct compiler *c, const char *driver)
{
    const Pb__DriverConfig *d = c->target->router_driver;

    return strcmp(d != NULL ? d->driver : "none", driver) == 0;
}

static void mirror(struct compiler *c, uint32_t bp)
{
    if (!router_is(c, "exec")) {
        wrong(c, "the target's router cannot mirror requests");
    }
    add(c, ROLLOUT_STEP_MIRROR, "mirror")->weight_bp = bp;
}

static void canary_entry(struct compiler *c, const Pb__RolloutStepWish *w, uint32_t *weight_bp)
{
    if (w->has_scale) {
        scale_to(c, MIN(w->scale, c->each) * c->places, false);
    }
    if (w->has_weight) {
        if (w->weight_bp < *weight_bp || w->weight_bp > FULL_BP) {
            wrong(c, "weights rise from step to step, to 100 at most");
            return;
        }
        scale_to(c, behind(c, w->weight_bp), false);
        weigh(c, w->weight_bp);
        *weight_bp = w->weight_bp;
    }
    if (w->mirror_bp > 0) {
        scale_to(c, behind(c, w->mirror_bp), false);
        mirror(c, w->mirror_bp);
    }
    waits(c, w);
}

/* The first step is what PROVISION starts: one instance, unless the steps say more before any
 * weight is given. */
static void canary(struct compiler *c)
{
    uint32_t weight_bp = 0;

    for (size_t i = 0; i < c->spec->n_steps; i++) {
        const Pb__RolloutStepWish *w = c->spec->steps[i];
        if (c->count == 0) {
            scale_to(c,
                     MAX(w->has_scale ? MIN(w->scale, c->each) * c->places : 0,
                         behind(c, w->has_weight ? w->weight_bp : w->mirror_bp)),
                     false);
        }
        canary_entry(c, w, &weight_bp);
        if (c->spec->group[0] != '\0') {
            add(c, ROLLOUT_STEP_BARRIER, "barrier");
        }
    }
}

static void blue_green(struct compiler *c)
{
    scale_to(c, all_of(c), false);
    for (size_t i = 0; i < c->spec->n_steps; i++) {
        const Pb__RolloutStepWish *w = c->spec->steps[i];
        if ((w->has_weight && w->weight_bp != 0 && w->weight_bp != FULL_BP) || w->has_scale) {
            wrong(c, "blue_green moves all traffic at once: no weights and scales between");
        }
        if (w->mirror_bp > 0) {
            mirror(c, w->mirror_bp);
        }
        waits(c, w);
    }
    if (c->spec->group[0] != '\0') {
        add(c, ROLLOUT_STEP_BARRIER, "barrier");
    }
}

static uint32_t percent_of(uint32_t percent, uint32_t all)
{
    return (uint32_t)(((uint64_t)all * percent + 99) / 100);
}

struct rolling {
    uint32_t now; /* instances of the new version */
    uint32_t old;
    uint32_t most;  /* of both together */
    uint32_t least; /* likewise */
};

static void share_out(struct compiler *c, const struct rolling *r)
{
    if (!router_is(c, "none")) {
        weigh(c, (uint32_t)((uint64_t)FULL_BP * r->now / (r->now + r->old)));
    }
}

/* Fewer of the old version, until as many fit as the wave wants. */
static void make_room(struct compiler *c, struct rolling *r, uint32_t want, bool whole)
{
    const uint32_t rest = r->now + want > r->most ? 0 : r->most - r->now - want;
    const uint32_t keep = MAX(MIN(r->old, rest), r->least > r->now ? r->least - r->now : 0);

    if (keep < r->old) {
        if (keep == 0 && !router_is(c, "none")) {
            weigh(c, FULL_BP); /* what has weight is not stopped */
        }
        Pb__RolloutStepRecord *s = add(c, ROLLOUT_STEP_SHRINK,
                                       arena_printf(c->a, "%u of the old version", keep));
        spread_rest(c, s, keep, whole);
        r->old = keep;
    }
}

static void wave(struct compiler *c, struct rolling *r, uint32_t size, bool whole)
{
    uint32_t left = MIN(size, all_of(c) - r->now);

    while (left > 0 && c->why == NULL) {
        make_room(c, r, left, whole);
        const uint32_t fit = MIN(left, r->most - r->now - r->old);
        if (fit == 0) {
            wrong(c, "with no surge and none unavailable no instance can be replaced");
            return;
        }
        r->now += fit;
        left -= fit;
        scale_to(c, r->now, whole);
        share_out(c, r);
    }
}

static void rolling(struct compiler *c)
{
    static const Pb__RolloutWaves standard = PB__ROLLOUT_WAVES__INIT;
    const Pb__RolloutWaves *w = c->spec->waves != NULL ? c->spec->waves : &standard;
    const uint32_t all = all_of(c);
    const uint32_t unit = w->by_place ? c->each : 1;
    const uint32_t units = all / unit;
    const bool none = w->max_surge_percent == 0 && w->max_unavailable_percent == 0;
    const uint32_t surge = percent_of(none ? WAVE_SURGE_PERCENT : w->max_surge_percent, all);
    const uint32_t less = MIN(percent_of(w->max_unavailable_percent, all), all);
    struct rolling r = {.old = all, .most = all + surge, .least = all - less};
    uint32_t size = MIN(MAX(w->first, 1u), units);

    if (c->spec->n_steps > 0) {
        wrong(c, "rolling goes by `waves`, not by `steps`");
    }
    while (r.now < all && c->why == NULL) {
        wave(c, &r, size * unit, w->by_place);
        if (c->spec->group[0] != '\0') {
            add(c, ROLLOUT_STEP_BARRIER, "barrier");
        }
        if (r.now < all && w->hold_ms > 0) {
            timed(c, ROLLOUT_STEP_HOLD, "hold", w->hold_ms, "");
        }
        if (r.now < all && w->analyze_ms > 0) {
            timed(c, ROLLOUT_STEP_ANALYZE, "analyze", w->analyze_ms, "");
        }
        size = MAX(percent_of(w->size_percent != 0 ? w->size_percent : WAVE_SIZE_PERCENT, units),
                   1u);
    }
}

static void spec_check(struct compiler *c)
{
    const Pb__RolloutSpec *s = c->spec;
    struct metric_rule *rules;
    const char *why = NULL;
    size_t count;

    if (c->target->instance_driver == NULL) {
        wrong(c, "the target does not say how instances run");
    }
    if (router_is(c, "none") && s->strategy != ROLLOUT_ROLLING) {
        wrong(c, "the target has no router: only rolling can be done");
    }
    if (c->target->synthetic == NULL &&
        (s->on_thin == ROLLOUT_POLICY_SYNTHETIC || s->on_no_data == ROLLOUT_POLICY_SYNTHETIC)) {
        wrong(c, "the target has no `synthetic` load");
    }
    if (c->places > LIMIT_ROLLOUT_PLACES || c->each > LIMIT_ROLLOUT_INSTANCES) {
        wrong(c, arena_printf(c->a, "at most %u places with %u instances each",
                              LIMIT_ROLLOUT_PLACES, LIMIT_ROLLOUT_INSTANCES));
    }
    if (metric_rules(s, c->target, c->a, &rules, &count, &why) < 0) {
        wrong(c, why);
    }
}

static void compile(struct compiler *c, bool first)
{
    if (first) { /* there is nothing to go beside */
        scale_to(c, all_of(c), false);
    } else if (c->spec->strategy == ROLLOUT_ROLLING) {
        rolling(c);
    } else if (c->spec->strategy == ROLLOUT_BLUE_GREEN) {
        blue_green(c);
    } else {
        canary(c);
    }
    if (c->count == 0) {
        scale_to(c, all_of(c), false);
    }
}

int rollout_compile(const Pb__RolloutSpec *spec, const Pb__RolloutTarget *target, bool first,
                    struct arena *a, Pb__RolloutPlanRecord **ret, const char **ret_why)
{
    struct compiler c = {
        .spec = spec,
        .target = target,
        .a = a,
        .places = (uint32_t)MAX(target->n_places, 1u),
        .each = MAX(spec->instances != 0 ? spec->instances : target->instances, 1u),
        .steps = arena_array(a, LIMIT_ROLLOUT_PLAN_STEPS, sizeof(*c.steps)),
    };
    Pb__RolloutPlanRecord *plan;

    spec_check(&c);
    if (c.why == NULL) {
        compile(&c, first);
    }
    if (c.why != NULL) {
        *ret_why = c.why;
        return -E_INVALID;
    }
    plan = arena_alloc(a, sizeof(*plan));
    pb__rollout_plan_record__init(plan);
    plan->spec = (Pb__RolloutSpec *)spec;
    plan->target = (Pb__RolloutTarget *)target;
    plan->steps = c.steps;
    plan->n_steps = c.count;
    *ret = plan;
    return 0;
}
