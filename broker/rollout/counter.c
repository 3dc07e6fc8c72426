#include "common/base.h"

#include <math.h>
#include <stdlib.h>

#include "broker/rollout/counter.h"
#include "common/err.h"
#include "common/limits.h"

struct fresh {
    const struct reading *reading;
    uint64_t key;
};

static uint64_t key_of(const struct reading *r)
{
    const struct str name = str_from(r->instance);
    const uint64_t seed = (uint64_t)r->slot << 1;

    return (uint64_t)str_hash(name, seed) << 32 | str_hash(name, seed | 1);
}

static int by_key(const void *a, const void *b)
{
    const struct fresh *one = a, *other = b;

    return (one->key > other->key) - (one->key < other->key);
}

static bool is_count(double v)
{
    return v >= 0 && v <= SEQUENTIAL_COUNT_MAX; /* false for what is no number */
}

/* The readings by key, each of them once. */
static int sort(const struct reading *readings, size_t n, struct arena *a, struct fresh **ret,
                const char **ret_why)
{
    struct fresh *fresh = arena_array(a, n + 1, sizeof(*fresh));

    if (n > LIMIT_METRIC_SERIES) {
        *ret_why = arena_printf(a, "%zu counters, at most %u: sum them where they come from", n,
                                LIMIT_METRIC_SERIES);
        return -E_LIMIT;
    }
    for (size_t i = 0; i < n; i++) {
        if (!is_count(readings[i].total) || !is_count(readings[i].bad)) {
            *ret_why = arena_printf(a, "a counter of '%s' is %g of %g: no count",
                                    readings[i].instance, readings[i].bad, readings[i].total);
            return -E_INVALID;
        }
        fresh[i] = (struct fresh){&readings[i], key_of(&readings[i])};
    }
    qsort(fresh, n, sizeof(*fresh), by_key);
    for (size_t i = 1; i < n; i++) {
        if (fresh[i].key == fresh[i - 1].key) {
            *ret_why = arena_printf(a, "'%s' has two counters: sum them where they come from",
                                    fresh[i].reading->instance);
            return -E_INVALID;
        }
    }
    *ret = fresh;
    return 0;
}

static double sum(double a, double b)
{
    return fmin(a + b, SEQUENTIAL_COUNT_MAX);
}

/* What `now` shows more than `old` did. */
static void count(const struct counter *old, const struct counter *now, bool canary,
                  struct tally *t)
{
    const bool anew = now->total < old->total;
    const double total = anew ? now->total : now->total - old->total;
    const double bad = fmin(anew ? now->bad : now->bad - old->bad, total);

    if (!anew && now->bad < old->bad) {
        return;
    }
    if (canary) {
        t->canary = sum(t->canary, total);
        t->canary_bad = sum(t->canary_bad, bad);
    } else {
        t->stable = sum(t->stable, total);
        t->stable_bad = sum(t->stable_bad, bad);
    }
}

static void merge(const struct counters *before, const struct fresh *fresh, size_t n,
                  Pb__RolloutSlot canary, struct counters *out, struct tally *t)
{
    size_t at = 0, missing = 0;

    for (size_t i = 0; i < n || at < before->n;) {
        const struct counter *old = at < before->n ? &before->of[at] : NULL;
        struct counter now;

        if (i == n || (old != NULL && old->key < fresh[i].key)) {
            at++;
            if (old->missed < COUNTER_MISSED && n + missing < LIMIT_METRIC_SERIES) {
                missing++;
                out->of[out->n] = *old;
                out->of[out->n++].missed++;
            }
            continue;
        }
        now = (struct counter){fresh[i].key, floor(fresh[i].reading->total), 0, 0};
        now.bad = fmin(floor(fresh[i].reading->bad), now.total);
        if (old != NULL && old->key == now.key) {
            count(old, &now, fresh[i].reading->slot == canary, t);
            at++;
        }
        out->of[out->n++] = now;
        i++;
    }
}

int counters_take(const struct counters *before, uint64_t taken_ms, const struct reading *readings,
                  size_t n, Pb__RolloutSlot canary, struct arena *a, struct counters *ret,
                  struct tally *ret_since, const char **ret_why)
{
    struct counters from = *before, out = {.taken_ms = taken_ms};
    struct fresh *fresh = NULL;
    struct tally t = {0};
    int r;

    if (taken_ms == 0) {
        *ret_why = "the sample does not say when it was taken";
        return -E_INVALID;
    }
    r = sort(readings, n, a, &fresh, ret_why);
    if (r < 0) {
        return r;
    }
    if (taken_ms <= before->taken_ms) {
        if (before->taken_ms - taken_ms <= COUNTER_CLOCK_MS) {
            *ret = *before;
            *ret_since = t;
            return 0;
        }
        from.n = 0;
    }
    out.of = arena_array(a, from.n + n + 1, sizeof(*out.of));
    merge(&from, fresh, n, canary, &out, &t);
    *ret = out;
    *ret_since = t;
    return 0;
}
