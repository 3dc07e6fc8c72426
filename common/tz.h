/* Time zones: the bytes of a TZif file (RFC 8536), or none for UTC, to the offset of local time at
 * any instant, and the calendar without a zone. Pure: os_read_zone gets the bytes. Beyond the last
 * transition that a file lists, the rule in its footer counts.
 * Ownership: all in the arena. Threads: pure. */
#ifndef DAVIT_TZ_H
#define DAVIT_TZ_H

#include "common/arena.h"
#include "common/err.h"

/* When daylight saving begins or ends in any year, as a POSIX TZ text has it. */
struct tz_change {
    enum { TZ_JULIAN, TZ_DAY_OF_YEAR, TZ_WEEKDAY } kind;
    int32_t month; /* TZ_WEEKDAY */
    int32_t week;  /* 1 to 5; 5: the last */
    int32_t day;   /* of the week or of the year */
    int32_t time_s;
};

struct tz_rule {
    bool present;
    bool saves_daylight;
    int32_t offset_s;
    int32_t saving_offset_s;
    struct tz_change begin;
    struct tz_change end;
};

struct tz {
    const int64_t *times_s; /* of the transitions, ascending */
    const int32_t *offsets_s;
    size_t count;
    int32_t first_offset_s; /* before the first of them */
    struct tz_rule rule;    /* after the last */
};

void tz_utc(struct tz *ret);
/* 0, or -E_CORRUPT: that is no TZif file. */
int tz_parse(struct arena *arena, struct str bytes, struct tz *ret);

/* Seconds east of Greenwich at the instant, and the span around it in which that does not change:
 * [from, until). INT64_MIN, INT64_MAX: never. */
int32_t tz_offset(const struct tz *tz, int64_t at_s, int64_t *ret_from_s, int64_t *ret_until_s);

/* A name as GitLab lists it ("Berlin", "Eastern Time (US & Canada)") to that of the time zone
 * database; other names are theirs already and come back unchanged. */
struct str tz_name(struct str name);
/* Fit to be a file below the folder of zones; whether there is one is another question. */
bool tz_name_valid(struct str name);

/* The calendar: days since 1970-01-01. */
struct tz_date {
    int64_t year;
    uint32_t month; /* from 1 */
    uint32_t day;   /* from 1 */
};
int64_t tz_days(int64_t year, uint32_t month, uint32_t day);
struct tz_date tz_date(int64_t days);
uint32_t tz_month_length(int64_t year, uint32_t month);
uint32_t tz_weekday(int64_t days); /* 0: Sunday */

#endif
