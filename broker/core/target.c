#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/crypto.h"
#include "common/limits.h"

#include <stdlib.h>

/* Targets are what the configuration file declares: each start and reload says all of them. */

#define ZONE_BYTES (64u * KIB)

struct key target_key(const Pb__RolloutTarget *t)
{
    const size_t n = strnlen(t->name, LIMIT_NAME);
    struct key k = key_bytes(t->name, n);
    uint8_t hash[SHA256_BYTES];

    crypto_sha256(t->environment, strlen(t->environment), hash);
    key_add_bytes(&k, "", 1);
    key_add_bytes(&k, hash, sizeof(hash));
    return k;
}

const char *driver_wrong(const Pb__DriverConfig *d, bool must)
{
    if (d == NULL || d->driver[0] == '\0') {
        return must ? "no driver" : NULL;
    }
    if (!name_ok(d->driver) || strlen(d->driver) > LIMIT_NAME - sizeof("action/")) {
        return "bad name of a driver";
    }
    if (d->n_settings > LIMIT_DRIVER_SETTINGS) {
        return "too many settings of a driver";
    }
    for (size_t i = 0; i < d->n_settings; i++) {
        if (!name_ok(d->settings[i]->name) || d->settings[i]->value.len > LIMIT_VARIABLE_VALUE) {
            return "bad setting of a driver";
        }
    }
    return NULL;
}

static bool names_ok(char *const *names, size_t count, size_t limit)
{
    for (size_t i = 0; i < count; i++) {
        if (i >= limit || !name_ok(names[i])) {
            return false;
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(names[i], names[k]) == 0) {
                return false;
            }
        }
    }
    return true;
}

static const char *metrics_wrong(const Pb__RolloutTarget *t)
{
    const char *wrong = NULL;

    for (size_t i = 0; i < t->n_metrics && wrong == NULL; i++) {
        const Pb__TargetMetric *m = t->metrics[i];
        if (i >= LIMIT_ROLLOUT_METRICS || !name_ok(m->name) ||
            (unsigned)m->kind > TARGET_METRIC_VALUE) {
            return "too many metrics, or a bad one";
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(m->name, t->metrics[k]->name) == 0) {
                return "two metrics of one name";
            }
        }
        wrong = driver_wrong(m->driver, true);
    }
    return wrong;
}

static const char *windows_wrong(const Pb__RolloutTarget *t)
{
    for (size_t i = 0; i < t->n_freezes; i++) {
        const Pb__FreezeWindow *w = t->freezes[i];
        if (i >= LIMIT_FREEZES || !text_ok(w->name, LIMIT_NAME) || !text_ok(w->zone, LIMIT_NAME) ||
            !text_ok(w->cron, LIMIT_NAME) || w->zone_data.len > ZONE_BYTES ||
            (w->cron[0] != '\0') != (w->for_ms != 0) ||
            (w->cron[0] == '\0' && w->from_ms >= w->until_ms)) {
            return "too many freezes, or a bad one";
        }
    }
    return NULL;
}

static const char *drivers_wrong(const Pb__RolloutTarget *t)
{
    const char *wrong = driver_wrong(t->instance_driver, true);

    wrong = wrong != NULL ? wrong : driver_wrong(t->router_driver, false);
    wrong = wrong != NULL ? wrong : driver_wrong(t->synthetic, false);
    for (size_t i = 0; i < t->n_notify && wrong == NULL; i++) {
        wrong = i >= LIMIT_NOTIFY ? "too many notices" : driver_wrong(t->notify[i], true);
    }
    return wrong;
}

const char *target_wrong(const Pb__RolloutTarget *t)
{
    const char *wrong = drivers_wrong(t);

    if (!name_ok(t->environment) || !name_ok(t->name)) {
        return "bad name or environment";
    }
    if (!names_ok(t->projects, t->n_projects, LIMIT_TAGS) ||
        !names_ok(t->tags, t->n_tags, LIMIT_TAGS - 1) || !text_ok(t->pool, LIMIT_NAME) ||
        !names_ok(t->places, t->n_places, LIMIT_ROLLOUT_PLACES) ||
        !names_ok(t->gate, t->n_gate, LIMIT_TAGS)) {
        return "projects, pool, tags, places or gate: a bad name, one twice, or too many";
    }
    if (t->instances > LIMIT_ROLLOUT_INSTANCES || t->keep_snapshots > LIMIT_KEEP_SNAPSHOTS ||
        t->gate_approvals > LIMIT_ROLLOUT_APPROVALS || t->kill_ratio_millionths > 1000000 ||
        t->tick_ms > LIMIT_TIMEOUT_MS || t->drain_ms > LIMIT_TIMEOUT_MS ||
        t->settle_ms > LIMIT_TIMEOUT_MS) {
        return "a number that is too large";
    }
    wrong = wrong != NULL ? wrong : metrics_wrong(t);
    wrong = wrong != NULL ? wrong : windows_wrong(t);
    return wrong != NULL                                           ? wrong
           : pb__rollout_target__get_packed_size(t) > LIMIT_TARGET ? "too long"
                                                                   : NULL;
}

static int by_key(const void *a, const void *b)
{
    const struct key x = target_key(*(Pb__RolloutTarget *const *)a);
    const struct key y = target_key(*(Pb__RolloutTarget *const *)b);
    const int r = memcmp(x.p, y.p, MIN(x.n, y.n));

    return r != 0 ? r : (x.n > y.n) - (x.n < y.n);
}

int targets_check(struct core *c, Pb__RolloutTarget *const *targets, size_t count)
{
    Pb__RolloutTarget **sorted = arena_array(c->arena, count + 1, sizeof(*sorted));

    if (count > LIMIT_TARGETS) {
        return reject(c, -E_LIMIT, "more than %u targets", LIMIT_TARGETS);
    }
    for (size_t i = 0; i < count; i++) {
        const char *wrong = target_wrong(targets[i]);
        if (wrong != NULL) {
            return reject(c, -E_INVALID, "target %.60s: %s", targets[i]->name, wrong);
        }
        sorted[i] = targets[i];
    }
    if (count > 1) {
        qsort(sorted, count, sizeof(Pb__RolloutTarget *), by_key);
    }
    for (size_t i = 1; i < count; i++) {
        if (by_key(&sorted[i - 1], &sorted[i]) == 0) {
            return reject(c, -E_INVALID, "target %.60s of %.60s is declared twice", sorted[i]->name,
                          sorted[i]->environment);
        }
    }
    return 0;
}

static bool is_among(struct str key, Pb__RolloutTarget *const *targets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct key k = target_key(targets[i]);
        if (str_eq(key, key_str(&k))) {
            return true;
        }
    }
    return false;
}

/* Rollouts that live have their own copy. */
static void forget_others(struct core *c, Pb__RolloutTarget *const *targets, size_t count)
{
    struct key *gone = arena_array(c->arena, tx_count(c->tx, T_TARGET) + 1, sizeof(*gone));
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, c->tx, T_TARGET, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        if (!is_among(cur.key, targets, count)) {
            gone[n++] = key_bytes(cur.key.p, cur.key.n);
        }
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n; i++) {
        tx_del(c->tx, T_TARGET, &gone[i]);
    }
}

void targets_declare(struct core *c, Pb__RolloutTarget *const *targets, size_t count)
{
    forget_others(c, targets, count);
    for (size_t i = 0; i < count; i++) {
        const struct key k = target_key(targets[i]);
        const Pb__RolloutTarget *old = (const Pb__RolloutTarget *)tx_get_msg(
            c->tx, T_TARGET, &k, &pb__rollout_target__descriptor);
        if (old == NULL || !pb_same(&old->base, &targets[i]->base)) {
            tx_put_msg(c->tx, T_TARGET, &k, &targets[i]->base);
        }
    }
}

static bool is_for(const Pb__RolloutTarget *t, const char *project)
{
    for (size_t i = 0; i < t->n_projects; i++) {
        if (project_matches(str_from(t->projects[i]), project)) {
            return true;
        }
    }
    return t->n_projects == 0;
}

const Pb__RolloutTarget *target_find(struct tx *tx, const char *environment, const char *name,
                                     const char *project, bool *ret_others)
{
    struct key prefix = key_bytes(name, strnlen(name, LIMIT_NAME));
    const Pb__RolloutTarget *best = NULL;
    size_t best_fit = 0;
    struct cursor cur;

    *ret_others = false;
    key_add_bytes(&prefix, "", 1);
    for (tx_seek(&cur, tx, T_TARGET, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        const struct key k = key_bytes(cur.key.p, cur.key.n);
        const Pb__RolloutTarget *t = (const Pb__RolloutTarget *)tx_get_msg(
            tx, T_TARGET, &k, &pb__rollout_target__descriptor);
        const size_t how = t != NULL ? scope_fit(t->environment, str_from(environment)) : 0;
        if (how > 0 && !is_for(t, project)) {
            *ret_others = true;
        } else if (how > best_fit) {
            best = t;
            best_fit = how;
        }
    }
    cursor_end(&cur);
    *ret_others = *ret_others && best == NULL;
    return best;
}
