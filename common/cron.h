/* Cron expressions as GitLab's scheduler reads them (its library is fugit): minute, hour, day of
 * the month, month, day of the week; names of months and weekdays, lists, ranges that may wrap
 * ("fri-mon"), steps, "L" and negative days from the end of the month, "mon#2" the second Monday,
 * "mon#-1" or "mon#L" the last, "mon%2" every second week (counted from the week of 2019-01-01,
 * which is the first), "mon%2+1" the others, "@daily" and its like. Day of the month and day of the
 * week are alternatives where both are restricted, and both must hold where one is followed by "&".
 * "@reboot", a field of seconds, and days that never come ("31 2") are refused.
 *
 * Times are those of a clock on the wall. When the clock is put forward, times that it skips do not
 * come on that day. When it is put back, a time that comes again right after itself counts once:
 * "30 2" comes once, "0,30 2" twice each, as in fugit.
 * Threads: pure. */
#ifndef DAVIT_CRON_H
#define DAVIT_CRON_H

#include "common/tz.h"

#define CRON_WEEKS 16 /* elements with a % in one expression */

struct cron_weeks {
    uint32_t weekday;
    uint32_t every;
    uint32_t offset;
};

struct cron {
    uint64_t minutes;   /* bit n: minute n */
    uint32_t hours;     /* bit n: hour n */
    uint32_t days;      /* bit n: day n of the month */
    uint32_t last_days; /* bit n: the n-th day from its end */
    uint32_t months;    /* bit n: month n */
    uint32_t weekdays;  /* bit n: each of weekday n, 0 is Sunday */
    uint32_t nth[7];    /* bit n: the n-th of that weekday in the month */
    uint32_t nth_last[7];
    struct cron_weeks weeks[CRON_WEEKS];
    size_t week_count;
    bool any_day; /* of the month: `*` */
    bool any_weekday;
    bool both;
};

/* 0, or -E_INVALID and why. */
int cron_parse(struct str text, struct cron *ret, const char **ret_why);

/* The first time after `after_s`, the last before `before_s`: seconds since 1970, UTC.
 * -E_NOT_FOUND: there is none within 50 years. */
int cron_next(const struct cron *c, const struct tz *tz, int64_t after_s, int64_t *ret_s);
int cron_previous(const struct cron *c, const struct tz *tz, int64_t before_s, int64_t *ret_s);
/* Is the minute that holds at_s one of its times. */
bool cron_matches(const struct cron *c, const struct tz *tz, int64_t at_s);

#endif
