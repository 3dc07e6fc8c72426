#include "common/base.h"

#include "common/err.h"
#include "common/str.h"

#include <time.h>

const char *str_time(uint64_t realtime_ms, char *ret_text, size_t n)
{
    time_t seconds = (time_t)(realtime_ms / 1000);
    struct tm tm;
    check(n >= 32);
    if (gmtime_r(&seconds, &tm) == NULL || tm.tm_year > 9999 - 1900) {
        memcpy(ret_text, "9999-12-31T23:59:59Z", sizeof("9999-12-31T23:59:59Z"));
    } else {
        check(strftime(ret_text, n, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0);
    }
    return ret_text;
}

/* Exactly `digits` digits from the beginning of *s, and `end` behind them unless that is 0. */
static bool take_number(struct str *s, size_t digits, char end, uint64_t *ret)
{
    size_t n = digits + (end != 0);
    if (s->n < n || str_to_u64(str_sub(*s, 0, digits), ret) < 0 ||
        (end != 0 && s->p[digits] != end)) {
        return false;
    }
    *s = str_sub(*s, n, s->n);
    return true;
}

static bool is_leap(uint64_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Days from 1970 to the first of a month. */
static uint64_t days_before(uint64_t year, uint64_t month)
{
    static const uint16_t days[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    uint64_t last = year - 1;
    return (year - 1970) * 365 + (last / 4 - last / 100 + last / 400) - (1969 / 4 - 19 + 4) +
           days[month - 1] + (month > 2 && is_leap(year));
}

static bool take_date(struct str *s, uint64_t *ret_days)
{
    uint64_t year, month, day;
    if (!take_number(s, 4, '-', &year) || !take_number(s, 2, '-', &month) ||
        !take_number(s, 2, 0, &day) || year < 1970 || month < 1 || month > 12 || day < 1) {
        return false;
    }
    *ret_days = days_before(year, month) + day - 1;
    return *ret_days < (month == 12 ? days_before(year + 1, 1) : days_before(year, month + 1));
}

static bool take_clock(struct str *s, uint64_t *ret_ms)
{
    uint64_t hour, minute;
    uint64_t second = 0;
    uint64_t digit;
    if (!take_number(s, 2, ':', &hour) || !take_number(s, 2, 0, &minute)) {
        return false;
    }
    if (str_starts(*s, STR(":"))) {
        *s = str_sub(*s, 1, s->n);
        if (!take_number(s, 2, 0, &second)) {
            return false;
        }
    }
    *ret_ms = (hour * 3600 + minute * 60 + second) * 1000;
    if (str_starts(*s, STR("."))) {
        uint64_t place = 100;
        *s = str_sub(*s, 1, s->n);
        if (!take_number(s, 1, 0, &digit)) {
            return false;
        }
        do {
            *ret_ms += digit * place;
            place /= 10;
        } while (take_number(s, 1, 0, &digit));
    }
    return hour < 24 && minute < 60 && second < 60;
}

/* "", "Z", "+02:00": how far ahead of UTC. */
static bool take_zone(struct str *s, int64_t *ret_ms)
{
    uint64_t hours, minutes;
    *ret_ms = 0;
    if (s->n == 0 || str_eq(*s, STR("Z"))) {
        return true;
    }
    bool behind = s->p[0] == '-';
    if (!behind && s->p[0] != '+') {
        return false;
    }
    *s = str_sub(*s, 1, s->n);
    if (!take_number(s, 2, ':', &hours) || !take_number(s, 2, 0, &minutes) || s->n > 0 ||
        hours > 14 || minutes > 59) {
        return false;
    }
    *ret_ms = (int64_t)(hours * 60 + minutes) * 60000 * (behind ? -1 : 1);
    return true;
}

int str_to_time_ms(struct str s, uint64_t *ret_realtime_ms)
{
    uint64_t days;
    uint64_t clock_ms = 0;
    int64_t zone_ms = 0;
    if (!take_date(&s, &days)) {
        return -E_INVALID;
    }
    if (s.n > 0) {
        bool parted = s.p[0] == 'T' || s.p[0] == ' ';
        s = str_sub(s, 1, s.n);
        if (!parted || !take_clock(&s, &clock_ms) || !take_zone(&s, &zone_ms)) {
            return -E_INVALID;
        }
    }
    int64_t ms = (int64_t)(days * 24 * 3600 * 1000 + clock_ms) - zone_ms;
    if (ms < 0) {
        return -E_INVALID;
    }
    *ret_realtime_ms = (uint64_t)ms;
    return 0;
}
