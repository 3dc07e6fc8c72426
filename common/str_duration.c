/* Durations as GitLab's chronic_duration reads them: numbers with units in any order, "and" and
 * commas between, a number alone is seconds, and clock forms such as 1:30:00. */
#include "common/base.h"

#include "common/err.h"
#include "common/str.h"

#define SECOND_MS  1000ull
#define MINUTE_MS  (60 * SECOND_MS)
#define HOUR_MS    (60 * MINUTE_MS)
#define DAY_MS     (24 * HOUR_MS)
#define LONGEST_MS (1000 * 366 * DAY_MS)

struct duration_unit {
    const char *names; /* separated by blanks */
    uint64_t ms;
};

static const struct duration_unit units[] = {
    {"s sec secs second seconds", SECOND_MS},
    {"m min mins minute minutes", MINUTE_MS},
    {"h hr hrs hour hours", HOUR_MS},
    {"d dy day days", DAY_MS},
    {"w wk wks week weeks", 7 * DAY_MS},
    {"mo mos month months", 30 * DAY_MS},
    {"y yr yrs year years", 365 * DAY_MS + 6 * HOUR_MS},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static struct str take_while(struct str *rest, bool (*wanted)(char))
{
    size_t n = 0;
    while (n < rest->n && wanted(rest->p[n])) {
        n++;
    }
    struct str part = str_sub(*rest, 0, n);
    *rest = str_sub(*rest, n, rest->n);
    return part;
}

static bool same_word(struct str word, struct str name)
{
    if (word.n != name.n) {
        return false;
    }
    for (size_t i = 0; i < word.n; i++) {
        if ((word.p[i] | 0x20) != name.p[i]) {
            return false;
        }
    }
    return true;
}

/* 0: no such unit. */
static uint64_t unit_ms(struct str word)
{
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        struct str rest = str_from(units[i].names);
        struct str name;
        while (str_split(&rest, ' ', &name)) {
            if (same_word(word, name)) {
                return units[i].ms;
            }
        }
    }
    return 0;
}

static void skip_fillers(struct str *rest)
{
    for (;;) {
        *rest = str_trim(*rest);
        if (rest->n > 0 && rest->p[0] == ',') {
            *rest = str_sub(*rest, 1, rest->n);
        } else if (rest->n > 3 && same_word(str_sub(*rest, 0, 3), STR("and")) &&
                   !is_letter(rest->p[3])) {
            *rest = str_sub(*rest, 3, rest->n);
        } else {
            return;
        }
    }
}

/* "1.5h": one number, its unit behind it. */
static int take_term(struct str *rest, uint64_t *ret_ms)
{
    struct str whole = take_while(rest, is_digit);
    struct str fraction = STR_NULL;
    if (rest->n > 0 && rest->p[0] == '.') {
        *rest = str_sub(*rest, 1, rest->n);
        fraction = take_while(rest, is_digit);
    }
    *rest = str_trim(*rest);
    struct str word = take_while(rest, is_letter);
    uint64_t unit = word.n > 0 ? unit_ms(word) : SECOND_MS;
    uint64_t count;
    if (unit == 0 || str_to_u64(whole, &count) < 0 || count > LONGEST_MS / unit ||
        (word.n == 0 && rest->n > 0)) {
        return -E_INVALID;
    }
    uint64_t ms = count * unit;
    uint64_t place = unit;
    for (size_t i = 0; i < fraction.n; i++) {
        place /= 10;
        ms += place * (uint64_t)(fraction.p[i] - '0');
    }
    *ret_ms = ms;
    return 0;
}

/* "MM:SS" or "HH:MM:SS". */
static int clock_ms(struct str s, uint64_t *ret_ms)
{
    uint64_t seconds = 0;
    struct str part;
    for (unsigned count = 0; str_split(&s, ':', &part); count++) {
        uint64_t value;
        if (count == 3 || part.n > 6 || str_to_u64(part, &value) < 0) {
            return -E_INVALID;
        }
        seconds = seconds * 60 + value;
    }
    *ret_ms = seconds * SECOND_MS;
    return 0;
}

int str_to_duration_ms(struct str s, uint64_t *ret_ms)
{
    uint64_t sum = 0;
    s = str_trim(s);
    if (s.n == 0) {
        return -E_INVALID;
    }
    if (str_chr(s, ':') >= 0) {
        return clock_ms(s, ret_ms);
    }
    for (skip_fillers(&s); s.n > 0; skip_fillers(&s)) {
        uint64_t ms;
        int r = take_term(&s, &ms);
        if (r < 0) {
            return r;
        }
        sum += ms;
        if (sum > LONGEST_MS) {
            return -E_INVALID;
        }
    }
    *ret_ms = sum;
    return 0;
}
