#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/cron.h"
#include "common/os.h"

struct fixture {
    struct arena arena;
    struct tz utc;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    arena_init(&f->arena, 0);
    tz_utc(&f->utc);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_release(&f->arena);
    free(f);
    return 0;
}

/* "2026-03-29 01:30" of a calendar without zones, in seconds. */
static int64_t seconds(const char *text)
{
    int64_t year;
    unsigned month;
    unsigned day;
    unsigned hour;
    unsigned minute;
    assert_int_equal(sscanf(text, "%" SCNd64 "-%u-%u %u:%u", &year, &month, &day, &hour, &minute),
                     5);
    return tz_days(year, month, day) * 86400 + hour * 3600 + minute * 60;
}

static const char *text_of(struct fixture *f, int64_t s)
{
    struct tz_date d = tz_date(s / 86400 - (s % 86400 < 0));
    int64_t of_day = ((s % 86400) + 86400) % 86400;
    return arena_printf(&f->arena, "%04" PRId64 "-%02u-%02u %02d:%02d", d.year, d.month, d.day,
                        (int)(of_day / 3600), (int)(of_day % 3600 / 60));
}

static struct cron parse(const char *text)
{
    struct cron c;
    const char *why = "";
    if (cron_parse(str_from(text), &c, &why) < 0) {
        fail_msg("`%s`: %s", text, why);
    }
    return c;
}

static void assert_next(struct fixture *f, const struct tz *tz, const char *cron, const char *after,
                        const char *wanted)
{
    struct cron c = parse(cron);
    int64_t s = 0;
    assert_int_equal(cron_next(&c, tz, seconds(after), &s), 0);
    assert_string_equal(text_of(f, s), wanted);
}

static void assert_previous(struct fixture *f, const struct tz *tz, const char *cron,
                            const char *before, const char *wanted)
{
    struct cron c = parse(cron);
    int64_t s = 0;
    assert_int_equal(cron_previous(&c, tz, seconds(before), &s), 0);
    assert_string_equal(text_of(f, s), wanted);
}

/* False, and the test goes on without it, where the machine has no database of time zones. */
static bool load_zone(struct fixture *f, const char *name, struct tz *ret)
{
    struct buf bytes = BUF_INIT;
    bool there = os_read_zone(str_from(name), &bytes) == 0;
    if (there) {
        assert_int_equal(tz_parse(&f->arena, arena_str(&f->arena, buf_str(&bytes)), ret), 0);
    } else {
        print_message("no zone %s: skipped\n", name);
    }
    buf_release(&bytes);
    return there;
}

static void fields_are_lists_ranges_and_steps(void **state)
{
    (void)state;
    struct cron c = parse("0,5,50-10/5,*/30 22-24 5/10 oct-feb fri-mon");
    assert_int_equal(c.minutes,
                     1ull << 0 | 1ull << 5 | 1ull << 10 | 1ull << 30 | 1ull << 50 | 1ull << 55);
    assert_int_equal(c.hours, 1u << 22 | 1u << 23 | 1u << 0);
    assert_int_equal(c.days, 1u << 5 | 1u << 15 | 1u << 25);
    assert_int_equal(c.months, 1u << 10 | 1u << 11 | 1u << 12 | 1u << 1 | 1u << 2);
    assert_int_equal(c.weekdays, 1u << 5 | 1u << 6 | 1u << 0 | 1u << 1);
    assert_false(c.any_day);
    assert_false(c.any_weekday);
    c = parse("* * * * *");
    assert_true(c.any_day && c.any_weekday);
    c = parse("* * L,-7 * sun#2,7#-1,Monday#L,tue%2");
    assert_int_equal(c.last_days, 1u << 1 | 1u << 7);
    assert_int_equal(c.nth[0], 1u << 2);
    assert_int_equal(c.nth_last[0], 1u << 1);
    assert_int_equal(c.nth_last[1], 1u << 1);
    assert_int_equal(c.week_count, 1);
    c = parse("0 0 -3-L * *");
    assert_int_equal(c.last_days, 1u << 1 | 1u << 2 | 1u << 3);
    c = parse("@weekly");
    assert_int_equal(c.weekdays, 1u << 0);
    c = parse(" 0\t0-24  * * * ");
    assert_int_equal(c.hours, (1u << 24) - 1);
}

static void what_the_scheduler_refuses_is_refused(void **state)
{
    static const char *const texts[] = {"",
                                        "*",
                                        "* * * *",
                                        "* * * * * *",
                                        "60 * * * *",
                                        "* 25 * * *",
                                        "* * 0 * *",
                                        "* * 32 * *",
                                        "* * * 13 *",
                                        "* * * 0 *",
                                        "* * * * 8",
                                        "*/0 * * * *",
                                        "a * * * *",
                                        "1- * * * *",
                                        "-1 * * * *",
                                        "* * 5--3x * *",
                                        "* * -3-5 * *",
                                        "* * L/2 * *",
                                        "0 0 31 2 *",
                                        "0 0 30 feb *",
                                        "* * * * 1#6",
                                        "* * * * 1#0",
                                        "* * * * 1%0",
                                        "@reboot",
                                        "@Daily",
                                        "001 * * * *",
                                        "* * * * *x",
                                        "1 2 3 4 5 UTC",
                                        "0 0 31 4,6 *",
                                        "* * * foo *",
                                        "*1 * * * *",
                                        "1** * * * *",
                                        "1/x * * * *",
                                        "mon * * * *",
                                        "* * * * 1-5#2"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct cron c;
        const char *why = NULL;
        if (cron_parse(str_from(texts[i]), &c, &why) == 0) {
            fail_msg("`%s` was taken", texts[i]);
        }
        assert_non_null(why);
    }
}

static void the_next_time_follows_the_calendar(void **state)
{
    static const struct {
        const char *cron;
        const char *after;
        const char *next;
    } cases[] = {
        {"* * * * *", "2026-02-28 23:59", "2026-03-01 00:00"},
        {"0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"},
        {"0 0 29 2 *", "2096-03-01 00:00", "2104-02-29 00:00"},
        {"30 4 L * *", "2026-02-01 00:00", "2026-02-28 04:30"},
        {"0 0 -2 * *", "2024-02-01 00:00", "2024-02-28 00:00"},
        {"0 12 * * mon#2", "2026-03-01 00:00", "2026-03-09 12:00"},
        {"0 12 * * fri#L", "2026-03-01 00:00", "2026-03-27 12:00"},
        {"0 12 * * tue%2", "2019-01-01 00:00", "2019-01-08 12:00"},
        {"0 12 * * tue%2+1", "2018-12-31 00:00", "2019-01-01 12:00"},
        {"0 0 13 * fri", "2026-02-14 00:00", "2026-02-20 00:00"},
        {"0 0 13 * fri&", "2026-02-14 00:00", "2026-03-13 00:00"},
        {"0 0 13& * fri", "2026-02-14 00:00", "2026-03-13 00:00"},
        {"0 0 1 1 *", "1969-06-01 00:00", "1970-01-01 00:00"},
        {"59 23 31 12 *", "1899-12-31 23:59", "1900-12-31 23:59"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_next(f, &f->utc, cases[i].cron, cases[i].after, cases[i].next);
        assert_previous(f, &f->utc, "* * * * *", cases[i].next,
                        text_of(f, seconds(cases[i].next) - 60));
    }
    assert_previous(f, &f->utc, "0 0 29 2 *", "2026-01-01 00:00", "2024-02-29 00:00");
    assert_previous(f, &f->utc, "15 3 * * mon", "2026-03-09 03:15", "2026-03-02 03:15");
}

static void a_day_that_never_comes_ends_the_search(void **state)
{
    struct fixture *f = *state;
    struct cron c = parse("0 0 -31 2 *");
    int64_t s;
    assert_int_equal(cron_next(&c, &f->utc, 0, &s), -E_NOT_FOUND);
    assert_int_equal(cron_previous(&c, &f->utc, 0, &s), -E_NOT_FOUND);
    assert_int_equal(cron_next(&c, &f->utc, INT64_MAX, &s), -E_NOT_FOUND);
    assert_int_equal(cron_previous(&c, &f->utc, INT64_MIN, &s), -E_NOT_FOUND);
}

/* In UTC: Berlin goes from +1 to +2 at 2026-03-29 01:00, back at 2026-10-25 01:00. */
static void berlin_skips_an_hour_and_has_one_twice(void **state)
{
    struct fixture *f = *state;
    struct tz tz;
    if (!load_zone(f, "Europe/Berlin", &tz)) {
        return;
    }
    assert_next(f, &tz, "30 2 * * *", "2026-03-28 00:00", "2026-03-28 01:30");
    assert_next(f, &tz, "30 2 * * *", "2026-03-28 01:30", "2026-03-30 00:30");
    assert_next(f, &tz, "0 3 * * *", "2026-03-28 12:00", "2026-03-29 01:00");
    assert_next(f, &tz, "0 * * * *", "2026-03-29 00:00", "2026-03-29 01:00");
    assert_next(f, &tz, "30 2 * * *", "2026-10-24 12:00", "2026-10-25 00:30");
    assert_next(f, &tz, "30 2 * * *", "2026-10-25 00:30", "2026-10-26 01:30");
    assert_next(f, &tz, "0,30 2 * * *", "2026-10-25 00:30", "2026-10-25 01:00");
    assert_next(f, &tz, "0,30 2 * * *", "2026-10-25 01:00", "2026-10-25 01:30");
    assert_previous(f, &tz, "30 2 * * *", "2026-03-30 00:30", "2026-03-28 01:30");
    assert_previous(f, &tz, "30 2 * * *", "2026-10-26 00:00", "2026-10-25 01:30");
    assert_next(f, &tz, "30 2 * * *", "2096-03-24 12:00", "2096-03-26 00:30");
}

/* From -5 to -4 at 2026-03-08 07:00 UTC, back at 2026-11-01 06:00 UTC. */
static void new_york_skips_an_hour_and_has_one_twice(void **state)
{
    struct fixture *f = *state;
    struct tz tz;
    if (!load_zone(f, "America/New_York", &tz)) {
        return;
    }
    assert_next(f, &tz, "30 2 * * *", "2026-03-07 08:00", "2026-03-09 06:30");
    assert_next(f, &tz, "0 0 * * *", "2026-03-08 05:00", "2026-03-09 04:00");
    assert_next(f, &tz, "30 1 * * *", "2026-11-01 00:00", "2026-11-01 05:30");
    assert_next(f, &tz, "30 1 * * *", "2026-11-01 05:30", "2026-11-02 06:30");
    assert_previous(f, &tz, "30 1 * * *", "2026-11-02 06:30", "2026-11-01 06:30");
    assert_next(f, &tz, "0 0 1 1 *", "2059-06-01 00:00", "2060-01-01 05:00");
}

static int64_t wall(const struct tz *tz, int64_t s)
{
    int64_t from_s;
    int64_t until_s;
    return s + tz_offset(tz, s, &from_s, &until_s);
}

/* Whatever comes out of next is what next gives again for what comes before it. */
static void next_of_the_previous_time_is_the_time(void **state)
{
    static const char *const crons[] = {
        "*/7 * * * *",         "30 2 * * *",   "0 * * * *",     "15,45 1-3 * * *",      "0 0 L * *",
        "5 4 * * sun#1,wed%3", "59 23 29 2 *", "0 12 1-7 * 1&", "*/20 0-24/5 */9 * 3-5"};
    static const char *const zones[] = {"Europe/Berlin",       "America/New_York",
                                        "Australia/Lord_Howe", "Asia/Kathmandu",
                                        "Africa/Casablanca",   "Pacific/Apia"};
    struct fixture *f = *state;
    uint32_t x = 2463534242u; /* xorshift, the same times every run */
    for (size_t z = 0; z < ARRAY_LEN(zones); z++) {
        struct tz tz;
        for (size_t i = 0; load_zone(f, zones[z], &tz) && i < ARRAY_LEN(crons); i++) {
            struct cron c = parse(crons[i]);
            for (int k = 0; k < 40; k++) {
                int64_t time_s = 0;
                int64_t before_s = 0;
                int64_t again_s = 0;
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                int64_t start_s = (int64_t)x * 2 - 4000000000;
                assert_int_equal(cron_next(&c, &tz, start_s, &time_s), 0);
                assert_true(time_s > start_s && cron_matches(&c, &tz, time_s));
                assert_int_equal(cron_previous(&c, &tz, time_s, &before_s), 0);
                assert_true(before_s < time_s && cron_matches(&c, &tz, before_s));
                if (wall(&tz, before_s) == wall(&tz, time_s)) {
                    continue; /* the clock was put back: the second of two equal times */
                }
                assert_int_equal(cron_next(&c, &tz, before_s, &again_s), 0);
                assert_int_equal(again_s, time_s);
            }
        }
    }
}

/* The fast search against one that looks at every minute. */
static void every_minute_that_matches_is_found(void **state)
{
    struct fixture *f = *state;
    struct tz tz;
    struct cron c = parse("*/40 1-3,23 L,25,29 * sun");
    if (!load_zone(f, "Europe/Berlin", &tz)) {
        return;
    }
    int64_t at_s = seconds("2026-03-20 00:00");
    for (int64_t s = at_s + 60; s < seconds("2026-04-10 00:00"); s += 60) {
        if (cron_matches(&c, &tz, s)) {
            int64_t next_s = 0;
            assert_int_equal(cron_next(&c, &tz, at_s, &next_s), 0);
            assert_int_equal(next_s, s);
            at_s = s;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(fields_are_lists_ranges_and_steps),
        TEST(what_the_scheduler_refuses_is_refused),
        TEST(the_next_time_follows_the_calendar),
        TEST(a_day_that_never_comes_ends_the_search),
        TEST(berlin_skips_an_hour_and_has_one_twice),
        TEST(new_york_skips_an_hour_and_has_one_twice),
        TEST(next_of_the_previous_time_is_the_time),
        TEST(every_minute_that_matches_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
