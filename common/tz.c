#include "common/base.h"

#include "common/limits.h"
#include "common/tz.h"

#define DAY_S  86400
#define HEADER 44 /* bytes of a TZif header */

/* Days are counted in years that begin in March, so that the leap day is their last; 400 of them
 * have the same number of days, 146,097. */
int64_t tz_days(int64_t year, uint32_t month, uint32_t day)
{
    int64_t y = month > 2 ? year : year - 1;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

struct tz_date tz_date(int64_t days)
{
    int64_t shifted = days + 719468;
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t of_era = shifted - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    uint32_t shifted_month = (uint32_t)((5 * of_year + 2) / 153);
    uint32_t month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    return (struct tz_date){.year = year + era * 400 + (month <= 2),
                            .month = month,
                            .day = (uint32_t)(of_year - (153 * shifted_month + 2) / 5 + 1)};
}

uint32_t tz_month_length(int64_t year, uint32_t month)
{
    return (uint32_t)(month == 12 ? 31 : tz_days(year, month + 1, 1) - tz_days(year, month, 1));
}

uint32_t tz_weekday(int64_t days)
{
    return (uint32_t)(((days % 7) + 11) % 7); /* 1970-01-01 was a Thursday */
}

void tz_utc(struct tz *ret)
{
    *ret = (struct tz){.rule = {.present = true}};
}

/* The footer: "CET-1CEST,M3.5.0,M10.5.0/3". Each part takes what it reads off *s. */

static bool take(struct str *s, char c)
{
    if (s->n == 0 || s->p[0] != c) {
        return false;
    }
    *s = str_sub(*s, 1, s->n);
    return true;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool take_abbreviation(struct str *s)
{
    size_t n = 0;
    if (take(s, '<')) {
        ptrdiff_t end = str_chr(*s, '>');
        *s = end < 0 ? *s : str_sub(*s, (size_t)end + 1, s->n);
        return end > 0;
    }
    while (n < s->n && is_letter(s->p[n])) {
        n++;
    }
    *s = str_sub(*s, n, s->n);
    return n >= 3;
}

static bool take_number(struct str *s, int32_t max, int32_t *ret)
{
    int32_t v = 0;
    size_t n = 0;
    while (n < s->n && n < 4 && s->p[n] >= '0' && s->p[n] <= '9') {
        v = v * 10 + (s->p[n++] - '0');
    }
    *s = str_sub(*s, n, s->n);
    *ret = v;
    return n > 0 && v <= max;
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(struct str *s, int32_t *ret_s)
{
    bool minus = take(s, '-');
    int32_t hours = 0;
    int32_t minutes = 0;
    int32_t seconds = 0;
    if (!minus) {
        take(s, '+');
    }
    bool ok = take_number(s, 167, &hours) && (!take(s, ':') || take_number(s, 59, &minutes)) &&
              (!take(s, ':') || take_number(s, 59, &seconds));
    *ret_s = (minus ? -1 : 1) * (hours * 3600 + minutes * 60 + seconds);
    return ok;
}

static bool take_change(struct str *s, struct tz_change *ret)
{
    *ret = (struct tz_change){.kind = TZ_DAY_OF_YEAR, .time_s = 2 * 3600};
    bool ok;
    if (!take(s, ',')) {
        return false;
    }
    if (take(s, 'M')) {
        ret->kind = TZ_WEEKDAY;
        ok = take_number(s, 12, &ret->month) && ret->month > 0 && take(s, '.') &&
             take_number(s, 5, &ret->week) && ret->week > 0 && take(s, '.') &&
             take_number(s, 6, &ret->day);
    } else if (take(s, 'J')) {
        ret->kind = TZ_JULIAN;
        ok = take_number(s, 365, &ret->day) && ret->day > 0;
    } else {
        ok = take_number(s, 365, &ret->day);
    }
    return ok && (!take(s, '/') || take_time(s, &ret->time_s));
}

static bool read_rule(struct str s, struct tz_rule *ret)
{
    int32_t west_s = 0;
    *ret = (struct tz_rule){.present = true};
    if (!take_abbreviation(&s) || !take_time(&s, &west_s)) {
        return false;
    }
    ret->offset_s = -west_s;
    if (s.n == 0) {
        return true;
    }
    ret->saves_daylight = true;
    ret->saving_offset_s = ret->offset_s + 3600;
    if (!take_abbreviation(&s)) {
        return false;
    }
    if (s.n > 0 && s.p[0] != ',') {
        if (!take_time(&s, &west_s)) {
            return false;
        }
        ret->saving_offset_s = -west_s;
    }
    return take_change(&s, &ret->begin) && take_change(&s, &ret->end) && s.n == 0;
}

/* The body: big-endian numbers. */

static int64_t read_be(struct str bytes, size_t at, size_t size)
{
    uint64_t v = 0;
    for (size_t i = 0; i < size; i++) {
        v = v << 8 | (uint8_t)bytes.p[at + i];
    }
    return size == 4 ? (int32_t)(uint32_t)v : (int64_t)v;
}

/* Counts of a block, from its header. */
struct counts {
    size_t times;
    size_t types;
    size_t bytes; /* of the block behind the header */
};

static bool read_header(struct str bytes, size_t time_size, struct counts *ret)
{
    uint64_t n[6];
    if (bytes.n < HEADER || !str_starts(bytes, STR("TZif"))) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(n); i++) {
        n[i] = (uint32_t)read_be(bytes, 20 + 4 * i, 4);
        if (n[i] > LIMIT_TZ_BYTES) {
            return false;
        }
    }
    /* marks of UT, of standard time, leap seconds, times, types, letters of abbreviations */
    uint64_t all = n[0] + n[1] + n[2] * (time_size + 4) + n[3] * (time_size + 1) + n[4] * 6 + n[5];
    *ret = (struct counts){.times = n[3], .types = n[4], .bytes = all};
    return n[4] > 0 && all <= bytes.n - HEADER;
}

static bool read_block(struct arena *arena, struct str block, struct counts n, size_t time_size,
                       struct tz *ret)
{
    size_t indices = n.times * time_size;
    size_t types = indices + n.times;
    int64_t *times = arena_array(arena, n.times, sizeof(*times));
    int32_t *offsets = arena_array(arena, n.times, sizeof(*offsets));
    for (size_t i = 0; i < n.times; i++) {
        size_t type = (uint8_t)block.p[indices + i];
        times[i] = read_be(block, i * time_size, time_size);
        if (type >= n.types || (i > 0 && times[i] <= times[i - 1])) {
            return false;
        }
        offsets[i] = (int32_t)read_be(block, types + 6 * type, 4);
        if (offsets[i] < -2 * DAY_S || offsets[i] > 2 * DAY_S) {
            return false;
        }
    }
    *ret = (struct tz){.times_s = times,
                       .offsets_s = offsets,
                       .count = n.times,
                       .first_offset_s = (int32_t)read_be(block, types, 4)};
    return ret->first_offset_s >= -2 * DAY_S && ret->first_offset_s <= 2 * DAY_S;
}

int tz_parse(struct arena *arena, struct str bytes, struct tz *ret)
{
    struct counts n;
    size_t time_size = 4;
    if (bytes.n > LIMIT_TZ_BYTES || !read_header(bytes, time_size, &n)) {
        return -E_CORRUPT;
    }
    if (bytes.p[4] >= '2') { /* a second block follows, with times of 64 bits */
        bytes = str_sub(bytes, HEADER + n.bytes, bytes.n);
        time_size = 8;
        if (!read_header(bytes, time_size, &n)) {
            return -E_CORRUPT;
        }
    }
    struct tz tz;
    if (!read_block(arena, str_sub(bytes, HEADER, n.bytes), n, time_size, &tz)) {
        return -E_CORRUPT;
    }
    struct str footer = str_sub(bytes, HEADER + n.bytes, bytes.n);
    ptrdiff_t end = footer.n > 1 ? str_chr(str_sub(footer, 1, footer.n), '\n') : -1;
    if (time_size == 8 && footer.n > 0 && footer.p[0] == '\n' && end > 0 &&
        !read_rule(str_sub(footer, 1, (size_t)end), &tz.rule)) {
        return -E_CORRUPT;
    }
    *ret = tz;
    return 0;
}

/* The day of a change in a year, since 1970. */
static int64_t change_day(const struct tz_change *c, int64_t year)
{
    int64_t first = tz_days(year, 1, 1);
    if (c->kind == TZ_DAY_OF_YEAR) {
        return first + c->day;
    }
    if (c->kind == TZ_JULIAN) { /* there is no day for February 29 */
        bool leap = tz_month_length(year, 2) == 29;
        return first + c->day - 1 + (leap && c->day >= 60);
    }
    int64_t month = tz_days(year, (uint32_t)c->month, 1);
    int64_t day = (c->day + 7 - (int64_t)tz_weekday(month)) % 7 + 7 * (c->week - 1);
    return month + (day < tz_month_length(year, (uint32_t)c->month) ? day : day - 7);
}

static int32_t rule_offset(const struct tz_rule *rule, int64_t at_s, int64_t *from_s,
                           int64_t *until_s)
{
    *from_s = INT64_MIN;
    *until_s = INT64_MAX;
    if (!rule->saves_daylight) {
        return rule->offset_s;
    }
    int32_t offset_s = rule->offset_s;
    int64_t year = tz_date(at_s / DAY_S).year;
    for (int64_t y = year - 1; y <= year + 1; y++) {
        int64_t begin_s = change_day(&rule->begin, y) * DAY_S + rule->begin.time_s - rule->offset_s;
        int64_t end_s = change_day(&rule->end, y) * DAY_S + rule->end.time_s -
                        rule->saving_offset_s;
        const struct {
            int64_t at_s;
            int32_t offset_s;
        } changes[] = {{begin_s, rule->saving_offset_s}, {end_s, rule->offset_s}};
        for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
            if (changes[i].at_s <= at_s && changes[i].at_s >= *from_s) {
                *from_s = changes[i].at_s;
                offset_s = changes[i].offset_s;
            } else if (changes[i].at_s > at_s) {
                *until_s = MIN(*until_s, changes[i].at_s);
            }
        }
    }
    return offset_s;
}

int32_t tz_offset(const struct tz *tz, int64_t at_s, int64_t *ret_from_s, int64_t *ret_until_s)
{
    size_t low = 0; /* so many transitions are not after at_s */
    size_t high = tz->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tz->times_s[middle] <= at_s) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    int64_t last_s = low > 0 ? tz->times_s[low - 1] : INT64_MIN;
    if (low == tz->count && tz->rule.present) {
        int32_t offset_s = rule_offset(&tz->rule, at_s, ret_from_s, ret_until_s);
        *ret_from_s = MAX(*ret_from_s, last_s);
        return offset_s;
    }
    *ret_from_s = last_s;
    *ret_until_s = low < tz->count ? tz->times_s[low] : INT64_MAX;
    return low > 0 ? tz->offsets_s[low - 1] : tz->first_offset_s;
}

struct str tz_name(struct str name)
{
    static const struct {
        struct str theirs;
        struct str zone;
    } names[] = {
#define ZONE(theirs, zone) {{theirs, sizeof(theirs) - 1}, {zone, sizeof(zone) - 1}},
#include "common/tz_names.def"
#undef ZONE
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eq(names[i].theirs, name)) {
            return names[i].zone;
        }
    }
    return name;
}

bool tz_name_valid(struct str name)
{
    struct str rest = name;
    struct str part;
    if (name.n == 0 || name.n > LIMIT_NAME) {
        return false;
    }
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (!is_letter(c) && !(c >= '0' && c <= '9') && (c == '\0' || !strchr("+-_/", c))) {
            return false;
        }
    }
    while (str_split(&rest, '/', &part)) {
        if (part.n == 0) {
            return false;
        }
    }
    return true;
}
