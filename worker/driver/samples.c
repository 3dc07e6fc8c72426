#include "common/base.h"

#include "worker/driver/samples.h"

void samples_begin(struct driver_call *call, Pb__MetricAnswer *answer, size_t max)
{
    pb__metric_answer__init(answer);
    answer->series = arena_array(call->arena, max + 1, sizeof(*answer->series));
}

Pb__MetricSeries *samples_add(struct driver_call *call, Pb__MetricAnswer *answer,
                              Pb__RolloutSlot slot, const char *instance)
{
    Pb__MetricSeries *s = arena_alloc(call->arena, sizeof(*s));

    pb__metric_series__init(s);
    s->slot = slot;
    s->instance = (char *)instance;
    answer->series[answer->n_series++] = s;
    return s;
}

void samples_set_buckets(struct driver_call *call, Pb__MetricSeries *series,
                         const struct exposition_bucket *buckets, size_t count)
{
    series->buckets = arena_array(call->arena, count + 1, sizeof(*series->buckets));
    for (size_t i = 0; i < count; i++) {
        Pb__MetricBucket *b = arena_alloc(call->arena, sizeof(*b));
        pb__metric_bucket__init(b);
        b->upto_micros = buckets[i].upto_micros;
        b->count = buckets[i].count;
        series->buckets[series->n_buckets++] = b;
    }
}
