/* Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats): the
 * series of a page that a selector names. Pure. */
#ifndef DAVIT_WORKER_DRIVER_EXPOSITION_H
#define DAVIT_WORKER_DRIVER_EXPOSITION_H

#include "common/arena.h"

#define SELECTOR_LABELS 8u

/* `name` or `name{label="value",other="5*"}`: a value that ends in a star stands for all that begin
 * so. */
struct selector {
    struct str name;
    struct {
        struct str label;
        struct str value;
        bool prefix;
    } labels[SELECTOR_LABELS];
    size_t count;
};
/* 0, or -E_INVALID. Points into text. */
int selector_parse(struct str text, struct selector *ret);

/* The sum of all series that the selector names; false: there is none. */
bool exposition_sum(struct str page, const struct selector *s, double *ret);

struct exposition_bucket {
    uint64_t upto_micros; /* UINT64_MAX: +Inf */
    double count;
};
/* Of the histogram s->name (whose series end in _bucket): the sums by bound, rising, in `a`; count,
 * 0: there is none. Bounds are seconds. */
size_t exposition_buckets(struct str page, const struct selector *s, struct arena *a,
                          struct exposition_bucket **ret);

/* A sample's value: a number as C writes it, +Inf, -Inf, NaN. */
bool exposition_number(struct str text, double *ret);

#endif
