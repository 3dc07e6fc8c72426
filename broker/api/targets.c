#include "common/base.h"

#include "broker/api/targets.h"

#include "broker/core/query.h"
#include "broker/core/rollout.h"
#include "broker/rollout/steps.h"

/* Whoever could do a thing for the target. */
struct wanted {
    struct tx *tx;
    struct fleet *fleet;
    const Pb__RolloutTarget *target;
    const char *project;
    struct arena *arena;
};

static bool is_open_to(struct wanted *w, const Pb__WorkerRecord *worker,
                       const Pb__ClassRecord *class)
{
    const Pb__PoolRecord *pool = pool_get(w->tx, worker->pool);
    const enum pool_bar bar = pool_bar(pool, worker->pool, class, w->project);
    /* Whether the ref is protected shows when it begins. */
    return !worker->revoked && worker_serves(worker, class) &&
           (bar == POOL_BAR_NONE || bar == POOL_BAR_PROTECTED);
}

/* Some worker that is connected has the driver, the target's tags and that of the place. */
static bool is_there(struct wanted *w, const char *driver, const char *place)
{
    Pb__ClassRecord class = PB__CLASS_RECORD__INIT;
    struct fleet_worker live;
    struct cursor cur;
    bool found = false;
    class.executor = arena_printf(w->arena, "action/%s", driver);
    class.pool = w->target->pool;
    class.tags = arena_array(w->arena, w->target->n_tags + 1, sizeof(*class.tags));
    for (size_t i = 0; i < w->target->n_tags; i++) {
        class.tags[class.n_tags++] = w->target->tags[i];
    }
    if (place) {
        class.tags[class.n_tags++] = (char *)place;
    }
    for (tx_seek(&cur, w->tx, T_WORKER, STR_NULL, NULL); cur.valid && !found; tx_next(&cur)) {
        const Pb__WorkerRecord *worker = worker_get(w->tx, key_read_u64(cur.key, 0));
        found = worker && is_open_to(w, worker, &class) &&
                fleet_worker_state(w->fleet, worker->id, &live) && live.online;
    }
    cursor_end(&cur);
    return found;
}

static const char *nobody(struct wanted *w, const char *driver, const char *place)
{
    return arena_printf(
        w->arena,
        "no worker that is connected has the driver `%.60s` of target %.100s%s%.100s"
        "%s%.100s: it waits until one comes",
        driver, w->target->name, w->target->pool[0] != '\0' ? " in pool " : "", w->target->pool,
        place ? " with the tag " : "", place ? place : "");
}

/* NULL: whatever it needs is there now. */
static const char *workers_missing(struct wanted *w)
{
    const Pb__RolloutTarget *t = w->target;
    const char *run = t->instance_driver ? t->instance_driver->driver : "";
    const char *router = t->router_driver ? t->router_driver->driver : "none";
    for (size_t i = 0; i < MAX(t->n_places, 1u); i++) {
        const char *place = t->n_places > 0 ? t->places[i] : NULL;
        if (!is_there(w, run, place)) {
            return nobody(w, run, place);
        }
    }
    if (strcmp(router, "none") != 0 && !is_there(w, router, NULL)) {
        return nobody(w, router, NULL);
    }
    for (size_t i = 0; i < t->n_metrics; i++) {
        const char *metric = t->metrics[i]->driver ? t->metrics[i]->driver->driver : "";
        if (metric[0] != '\0' && !is_there(w, metric, NULL)) {
            return nobody(w, metric, NULL);
        }
    }
    return NULL;
}

static void ask(struct wanted *w, const char *environment, const Pb__RolloutSpec *spec,
                const char **ret_error, const char **ret_warning)
{
    Pb__RolloutPlanRecord *plan;
    bool others;
    w->target = target_find(w->tx, environment, spec->target, w->project, &others);
    if (!w->target) {
        *ret_error = arena_printf(w->arena,
                                  others
                                      ? "target %.100s of environment %.100s is for other projects"
                                      : "no target %.100s is declared for environment %.100s",
                                  spec->target, environment);
    } else if (rollout_compile(spec, w->target, false, w->arena, &plan, ret_error) == 0) {
        *ret_warning = workers_missing(w);
    }
}

void targets_ask(void *ctx, const char *environment, const Pb__RolloutSpec *spec,
                 struct arena *arena, const char **ret_error, const char **ret_warning)
{
    const struct targets *t = ctx;
    struct wanted w = {.fleet = t->api->config.fleet, .project = t->project, .arena = arena};
    const char *error = NULL;
    const char *warning = NULL;
    if (!t->project || api_read(t->api, &w.tx) < 0) {
        return; /* it is asked again when it begins */
    }
    ask(&w, environment, spec, &error, &warning);
    *ret_error = error ? arena_strdup(arena, str_from(error)) : NULL;
    *ret_warning = warning ? arena_strdup(arena, str_from(warning)) : NULL;
    tx_abort(w.tx);
}
