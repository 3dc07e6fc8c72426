#include "common/base.h"

#include "common/cron.h"
#include "common/limits.h"

#define DAY_S     86400
#define HORIZON_S (50ll * 366 * DAY_S)
#define NAMES_MAX 12

/* A field: which numbers it may hold, and words for some of them. */
struct field {
    int32_t min;
    int32_t max;
    int32_t top; /* of a bound; what is above max means what is above min: hour 24, weekday 7 */
    const char *const *names; /* by number from `min`; whole words or their first three letters */
    bool from_end;            /* negative numbers and L */
};

static const char *const month_names[NAMES_MAX] = {"january",   "february", "march",    "april",
                                                   "may",       "june",     "july",     "august",
                                                   "september", "october",  "november", "december"};
static const char *const weekday_names[NAMES_MAX] = {"sunday",   "monday", "tuesday", "wednesday",
                                                     "thursday", "friday", "saturday"};

static const struct field minute_field = {.max = 59, .top = 59};
static const struct field hour_field = {.max = 23, .top = 24};
static const struct field day_field = {.min = 1, .max = 31, .top = 31, .from_end = true};
static const struct field month_field = {.min = 1, .max = 12, .top = 12, .names = month_names};
static const struct field weekday_field = {.max = 6, .top = 7, .names = weekday_names};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool take(struct str *s, char c)
{
    if (s->n == 0 || s->p[0] != c) {
        return false;
    }
    *s = str_sub(*s, 1, s->n);
    return true;
}

/* Without regard to case. */
static bool take_word(struct str *s, struct str word)
{
    if (s->n < word.n) {
        return false;
    }
    for (size_t i = 0; i < word.n; i++) {
        if (lower(s->p[i]) != word.p[i]) {
            return false;
        }
    }
    *s = str_sub(*s, word.n, s->n);
    return true;
}

static bool take_digits(struct str *s, size_t most, int32_t *ret)
{
    int32_t v = 0;
    size_t n = 0;
    while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9') {
        if (n == most) {
            return false;
        }
        v = v * 10 + (s->p[n++] - '0');
    }
    *s = str_sub(*s, n, s->n);
    *ret = v;
    return n > 0;
}

/* A number or a name; negative ones count from the end, -1 is the last. */
static bool take_bound(struct str *s, const struct field *f, int32_t *ret)
{
    for (int32_t i = 0; f->names && i < NAMES_MAX && f->names[i]; i++) {
        if (take_word(s, str_from(f->names[i])) ||
            take_word(s, str_sub(str_from(f->names[i]), 0, 3))) {
            *ret = f->min + i;
            return true;
        }
    }
    if (f->from_end && (take_word(s, STR("last")) || take_word(s, STR("l")))) {
        *ret = -1;
        return true;
    }
    bool minus = f->from_end && take(s, '-');
    size_t most = f->top < 10 ? 1 : 2;
    if (!take_digits(s, most, ret) || *ret < f->min || *ret > f->top) {
        return false;
    }
    *ret = minus ? -*ret : *ret;
    return true;
}

/* An element such as "*", "5", "1-5", "fri-mon", "10-50/20", "/15". */
struct range {
    bool has_begin;
    bool has_end;
    int32_t begin;
    int32_t end;
    int32_t step; /* 0: none */
};

static bool take_range(struct str *s, const struct field *f, struct range *ret)
{
    *ret = (struct range){0};
    if (!take(s, '*') && (s->n == 0 || s->p[0] != '/')) {
        ret->has_begin = true;
        if (!take_bound(s, f, &ret->begin)) {
            return false;
        }
        if (take(s, '-')) {
            ret->has_end = true;
            if (!take_bound(s, f, &ret->end)) {
                return false;
            }
        }
    }
    return !take(s, '/') || (take_digits(s, 3, &ret->step) && ret->step > 0);
}

/* The set of a field: bits of numbers and of numbers from the end. */
struct set {
    uint64_t bits;
    uint32_t from_end;
    bool all;
};

static void set_add(struct set *set, const struct field *f, int32_t v)
{
    if (v < 0) {
        set->from_end |= 1u << -v;
    } else {
        set->bits |= 1ull << (v > f->max ? f->min : v);
    }
}

/* Counts from begin to end, from the last number on to the first; every step-th is in the set. */
static bool set_add_range(struct set *set, const struct field *f, struct range r)
{
    int32_t begin = r.has_begin ? r.begin : f->min;
    int32_t end = r.has_end ? r.end : f->max;
    int32_t step = MAX(r.step, 1);
    if (r.has_begin && !r.has_end && (r.step == 0 || f == &weekday_field)) {
        set_add(set, f, begin);
        return true;
    }
    if (end < 0 && begin > 0) {
        end = f->max;
    }
    if (begin == f->min && end == f->max && step == 1 && f != &weekday_field) {
        set->all = true;
        return true;
    }
    if ((begin < 0) != (end < 0)) {
        return false;
    }
    int32_t first = begin < 0 ? -f->max : f->min;
    int32_t last = begin < 0 ? -1 : f->max;
    end = end > last ? first + end - last - 1 : end; /* hour 24 is the hour 0 after it */
    bool around = begin > last || (r.has_end && r.end > last);
    int32_t v = begin > last ? first + begin - last - 1 : begin;
    for (int32_t i = 0; i <= last - first + 1; i++) {
        if (i % step == 0) {
            set_add(set, f, v);
        }
        if (v == end && !(around && i == 0)) {
            break;
        }
        v = v == last ? first : v + 1;
    }
    return true;
}

static bool take_blank(struct str *s)
{
    size_t n = 0;
    while (n < s->n && (s->p[n] == ' ' || s->p[n] == '\t')) {
        n++;
    }
    *s = str_sub(*s, n, s->n);
    return n > 0;
}

static void take_commas(struct str *s)
{
    while (take(s, ',')) {
    }
}

static bool ends_field(struct str s)
{
    return s.n == 0 || s.p[0] == ' ' || s.p[0] == '\t' || s.p[0] == '&';
}

/* One of the first four fields. */
static bool take_field(struct str *s, const struct field *f, struct set *ret)
{
    *ret = (struct set){0};
    take_commas(s);
    do {
        struct range r;
        if (!take_range(s, f, &r) || (!ends_field(*s) && s->p[0] != ',')) {
            return false;
        }
        if (!r.has_begin && r.step <= 1) {
            ret->all = true;
        } else if (!set_add_range(ret, f, r)) {
            return false;
        }
        take_commas(s);
    } while (!ends_field(*s));
    return true;
}

/* "#2", "#-1", "#L" behind a weekday. */
static bool take_nth(struct str *s, struct cron *c, uint32_t weekday)
{
    bool last = take_word(s, STR("last")) || take_word(s, STR("l"));
    bool minus = last || take(s, '-');
    int32_t n = 1;
    if (!last && (!take_digits(s, 1, &n) || n < 1 || n > 5)) {
        return false;
    }
    *(minus ? &c->nth_last[weekday] : &c->nth[weekday]) |= 1u << n;
    return true;
}

/* "%2", "%4+1" behind a weekday. */
static bool take_weeks(struct str *s, struct cron *c, uint32_t weekday)
{
    int32_t every = 0;
    int32_t offset = 0;
    if (c->week_count == CRON_WEEKS || !take_digits(s, 6, &every) || every == 0 ||
        (take(s, '+') && !take_digits(s, 6, &offset))) {
        return false;
    }
    c->weeks[c->week_count++] = (struct cron_weeks){
        .weekday = weekday, .every = (uint32_t)every, .offset = (uint32_t)offset};
    return true;
}

static bool take_weekday_element(struct str *s, struct cron *c, struct set *set)
{
    struct range r;
    if (!take_range(s, &weekday_field, &r)) {
        return false;
    }
    uint32_t weekday = (uint32_t)(r.begin % 7);
    bool single = r.has_begin && !r.has_end && r.step == 0;
    if (single && take(s, '#')) {
        c->any_weekday = false;
        return take_nth(s, c, weekday);
    }
    if (single && take(s, '%')) {
        c->any_weekday = false;
        return take_weeks(s, c, weekday);
    }
    if (r.has_begin || r.step > 0) {
        c->any_weekday = false;
        return set_add_range(set, &weekday_field, r);
    }
    return true;
}

/* A star beside others says nothing. */
static bool take_weekdays(struct str *s, struct cron *c)
{
    struct set set = {0};
    c->any_weekday = true;
    take_commas(s);
    do {
        if (!take_weekday_element(s, c, &set) || (!ends_field(*s) && s->p[0] != ',')) {
            return false;
        }
        take_commas(s);
    } while (!ends_field(*s));
    c->weekdays = (uint32_t)set.bits;
    return true;
}

/* Months and days that have each other: false where there are none. */
static bool drop_days_that_never_come(struct cron *c)
{
    static const uint32_t lengths[] = {0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    uint32_t months = 0;
    uint32_t days = 0;
    if (c->any_day) {
        return true;
    }
    for (uint32_t m = 1; m <= 12; m++) {
        uint32_t there = (uint32_t)((2ull << lengths[m]) - 1) & c->days;
        if ((c->months & 1u << m) && (there != 0 || c->last_days != 0)) {
            months |= 1u << m;
            days |= there;
        }
    }
    c->months = months;
    c->days = days;
    return months != 0;
}

static struct str expand_alias(struct str text)
{
    static const struct {
        struct str alias;
        struct str cron;
    } aliases[] = {
        {{"@yearly", 7}, {"0 0 1 1 *", 9}},  {{"@annually", 9}, {"0 0 1 1 *", 9}},
        {{"@monthly", 8}, {"0 0 1 * *", 9}}, {{"@weekly", 7}, {"0 0 * * 0", 9}},
        {{"@daily", 6}, {"0 0 * * *", 9}},   {{"@midnight", 9}, {"0 0 * * *", 9}},
        {{"@noon", 5}, {"0 12 * * *", 10}},  {{"@hourly", 7}, {"0 * * * *", 9}},
    };
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++) {
        if (str_eq(aliases[i].alias, text)) {
            return aliases[i].cron;
        }
    }
    return text;
}

static const char *read_fields(struct str s, struct cron *c)
{
    struct set minutes;
    struct set hours;
    struct set days;
    struct set months;
    if (!take_field(&s, &minute_field, &minutes) || !take_blank(&s)) {
        return "the minute must be from 0 to 59, `*`, a list, a range or a step";
    }
    if (!take_field(&s, &hour_field, &hours) || !take_blank(&s)) {
        return "the hour must be from 0 to 24, `*`, a list, a range or a step";
    }
    if (!take_field(&s, &day_field, &days)) {
        return "the day of the month must be from 1 to 31, from the end (-1, L), `*`, a list, a "
               "range or a step";
    }
    c->both = take(&s, '&');
    if (!take_blank(&s) || !take_field(&s, &month_field, &months) || !take_blank(&s)) {
        return "the month must be from 1 to 12, a name, `*`, a list, a range or a step";
    }
    if (!take_weekdays(&s, c)) {
        return "the day of the week must be from 0 to 7, a name, `*`, a list, a range, a step, "
               "mon#2 or mon%2";
    }
    c->both |= take(&s, '&');
    if (s.n > 0) {
        return "there must be five fields: minute, hour, day of the month, month, day of the week";
    }
    c->minutes = minutes.all ? UINT64_MAX : minutes.bits;
    c->hours = hours.all ? UINT32_MAX : (uint32_t)hours.bits;
    c->any_day = days.all;
    c->days = (uint32_t)days.bits;
    c->last_days = days.from_end;
    c->months = months.all ? UINT32_MAX : (uint32_t)months.bits;
    return drop_days_that_never_come(c) ? NULL : "there is no such day in such a month";
}

int cron_parse(struct str text, struct cron *ret, const char **ret_why)
{
    struct cron c = {0};
    if (text.n > LIMIT_CRON_BYTES) {
        *ret_why = "it is too long";
        return -E_INVALID;
    }
    const char *why = read_fields(expand_alias(str_trim(text)), &c);
    if (why) {
        *ret_why = why;
        return -E_INVALID;
    }
    *ret = c;
    return 0;
}

static int64_t floor_days(int64_t s)
{
    return s / DAY_S - (s % DAY_S < 0);
}

static bool weekday_matches(const struct cron *c, int64_t days, struct tz_date d)
{
    static const int64_t first_week = 17897; /* 2019-01-01 */
    uint32_t weekday = tz_weekday(days);
    uint32_t left = tz_month_length(d.year, d.month) - d.day;
    if ((c->weekdays & 1u << weekday) || (c->nth[weekday] & 1u << ((d.day - 1) / 7 + 1)) ||
        (c->nth_last[weekday] & 1u << (left / 7 + 1))) {
        return true;
    }
    int64_t since = days - first_week;
    int64_t week = since / 7 - (since % 7 < 0) + 1;
    for (size_t i = 0; i < c->week_count; i++) {
        int64_t every = c->weeks[i].every;
        if (c->weeks[i].weekday == weekday &&
            ((week - c->weeks[i].offset) % every + every) % every == 0) {
            return true;
        }
    }
    return false;
}

static bool day_matches(const struct cron *c, int64_t days, struct tz_date d)
{
    if (!(c->months & 1u << d.month)) {
        return false;
    }
    uint32_t left = tz_month_length(d.year, d.month) - d.day;
    bool day = c->any_day || (c->days & 1u << d.day) || (c->last_days & 1u << (left + 1));
    bool weekday = c->any_weekday || weekday_matches(c, days, d);
    bool either = !c->any_day && !c->any_weekday && !c->both;
    return either ? day || weekday : day && weekday;
}

/* The first minute of the day that is not before `from`, in seconds of the day; -1: none. */
static int64_t first_minute(const struct cron *c, int64_t from_s)
{
    for (int64_t hour = from_s / 3600; hour < 24; hour++) {
        int64_t minute = hour == from_s / 3600 ? from_s % 3600 / 60 : 0;
        for (; (c->hours & 1u << hour) && minute < 60; minute++) {
            if (c->minutes & 1ull << minute) {
                return hour * 3600 + minute * 60;
            }
        }
    }
    return -1;
}

/* The last one that is not after `until`. */
static int64_t last_minute(const struct cron *c, int64_t until_s)
{
    for (int64_t hour = until_s / 3600; hour >= 0; hour--) {
        int64_t minute = hour == until_s / 3600 ? until_s % 3600 / 60 : 59;
        for (; (c->hours & 1u << hour) && minute >= 0; minute--) {
            if (c->minutes & 1ull << minute) {
                return hour * 3600 + minute * 60;
            }
        }
    }
    return -1;
}

/* Local times, as if the clock were never moved; from_s is included, limit_s is not. */
static bool next_local(const struct cron *c, int64_t from_s, int64_t limit_s, int64_t *ret_s)
{
    int64_t days = floor_days(from_s + 59);
    int64_t second = from_s + 59 - days * DAY_S;
    while (days * DAY_S < limit_s) {
        struct tz_date d = tz_date(days);
        if (!(c->months & 1u << d.month)) {
            days += tz_month_length(d.year, d.month) - d.day + 1;
        } else {
            int64_t minute = day_matches(c, days, d) ? first_minute(c, second) : -1;
            if (minute >= 0) {
                *ret_s = days * DAY_S + minute;
                return *ret_s < limit_s;
            }
            days++;
        }
        second = 0;
    }
    return false;
}

/* until_s and limit_s are both included. */
static bool previous_local(const struct cron *c, int64_t until_s, int64_t limit_s, int64_t *ret_s)
{
    int64_t days = floor_days(until_s);
    int64_t second = until_s - days * DAY_S;
    while ((days + 1) * DAY_S > limit_s) {
        struct tz_date d = tz_date(days);
        if (!(c->months & 1u << d.month)) {
            days -= d.day;
        } else {
            int64_t minute = day_matches(c, days, d) ? last_minute(c, second) : -1;
            if (minute >= 0) {
                *ret_s = days * DAY_S + minute;
                return *ret_s >= limit_s;
            }
            days--;
        }
        second = DAY_S - 1;
    }
    return false;
}

static bool in_range(int64_t at_s)
{
    return at_s > -LIMIT_CRON_TIME_S && at_s < LIMIT_CRON_TIME_S;
}

/* Walks from one span of equal offset to the next. */
int cron_next(const struct cron *c, const struct tz *tz, int64_t after_s, int64_t *ret_s)
{
    int64_t from_s;
    int64_t until_s;
    if (!in_range(after_s)) {
        return -E_NOT_FOUND;
    }
    int64_t horizon_s = after_s + HORIZON_S;
    int64_t wall_s = after_s + tz_offset(tz, after_s, &from_s, &until_s);
    for (int64_t at_s = after_s + 1; at_s < horizon_s;) {
        int32_t offset_s = tz_offset(tz, at_s, &from_s, &until_s);
        int64_t limit_s = MIN(until_s, horizon_s);
        int64_t local_s;
        if (!next_local(c, at_s + offset_s, limit_s + offset_s, &local_s)) {
            at_s = limit_s;
        } else if (local_s == wall_s) { /* the clock was put back: this has just been */
            at_s = local_s - offset_s + 1;
        } else {
            *ret_s = local_s - offset_s;
            return 0;
        }
    }
    return -E_NOT_FOUND;
}

int cron_previous(const struct cron *c, const struct tz *tz, int64_t before_s, int64_t *ret_s)
{
    if (!in_range(before_s)) {
        return -E_NOT_FOUND;
    }
    int64_t horizon_s = before_s - HORIZON_S;
    for (int64_t at_s = before_s - 1; at_s > horizon_s;) {
        int64_t from_s;
        int64_t until_s;
        int32_t offset_s = tz_offset(tz, at_s, &from_s, &until_s);
        int64_t limit_s = MAX(from_s, horizon_s);
        int64_t local_s;
        if (previous_local(c, at_s + offset_s, limit_s + offset_s, &local_s)) {
            *ret_s = local_s - offset_s;
            return 0;
        }
        at_s = limit_s - 1;
    }
    return -E_NOT_FOUND;
}

bool cron_matches(const struct cron *c, const struct tz *tz, int64_t at_s)
{
    int64_t from_s;
    int64_t until_s;
    if (!in_range(at_s)) {
        return false;
    }
    int64_t local_s = at_s + tz_offset(tz, at_s, &from_s, &until_s);
    int64_t days = floor_days(local_s);
    int64_t second = local_s - days * DAY_S;
    return (c->hours & 1u << second / 3600) && (c->minutes & 1ull << second % 3600 / 60) &&
           day_matches(c, days, tz_date(days));
}
