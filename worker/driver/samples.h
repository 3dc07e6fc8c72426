/* Metric answers while they are made. */
#ifndef DAVIT_WORKER_DRIVER_SAMPLES_H
#define DAVIT_WORKER_DRIVER_SAMPLES_H

#include "worker/driver/driver.h"
#include "worker/driver/exposition.h"

/* One more series; never more than `max` were promised at the beginning. */
Pb__MetricSeries *samples_add(struct driver_call *call, Pb__MetricAnswer *answer,
                              Pb__RolloutSlot slot, const char *instance);
void samples_begin(struct driver_call *call, Pb__MetricAnswer *answer, size_t max);
void samples_set_buckets(struct driver_call *call, Pb__MetricSeries *series,
                         const struct exposition_bucket *buckets, size_t count);

#endif
