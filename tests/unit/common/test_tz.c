#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/limits.h"
#include "common/os.h"
#include "common/tz.h"

struct fixture {
    struct arena arena;
    struct buf bytes;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    arena_init(&f->arena, 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_release(&f->arena);
    buf_release(&f->bytes);
    free(f);
    return 0;
}

static void add_be(struct buf *b, int64_t v, int size)
{
    for (int i = size - 1; i >= 0; i--) {
        buf_add_char(b, (char)(uint8_t)((uint64_t)v >> 8 * i));
    }
}

/* A file of version 2 with one transition, at 1,000 s to +1 h, and this footer. */
static struct str zone_bytes(struct fixture *f, const char *footer)
{
    struct buf *b = &f->bytes;
    buf_clear(b);
    for (int block = 0; block < 2; block++) {
        int time_size = block == 0 ? 4 : 8;
        buf_addz(b, "TZif2");
        for (int i = 0; i < 15; i++) {
            buf_add_char(b, '\0');
        }
        const int counts[] = {0, 0, 0, 1, 2, 4};
        for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
            add_be(b, counts[i], 4);
        }
        add_be(b, 1000, time_size);
        buf_add_char(b, 1); /* the type after it */
        const int offsets[] = {60, 3600};
        for (size_t i = 0; i < ARRAY_LEN(offsets); i++) {
            add_be(b, offsets[i], 4);
            add_be(b, 0, 2);
        }
        buf_addz(b, "LMT");
        buf_add_char(b, '\0');
    }
    buf_addf(b, "\n%s\n", footer);
    return buf_str(b);
}

static int32_t offset(const struct tz *tz, int64_t at_s)
{
    int64_t from_s;
    int64_t until_s;
    int32_t result = tz_offset(tz, at_s, &from_s, &until_s);
    assert_true(from_s <= at_s && at_s < until_s);
    return result;
}

static void the_calendar_goes_both_ways(void **state)
{
    (void)state;
    assert_int_equal(tz_days(1970, 1, 1), 0);
    assert_int_equal(tz_days(2000, 3, 1), 11017);
    assert_int_equal(tz_weekday(0), 4);
    assert_int_equal(tz_weekday(-5), 6);
    assert_int_equal(tz_month_length(2000, 2), 29);
    assert_int_equal(tz_month_length(2100, 2), 28);
    assert_int_equal(tz_month_length(2026, 12), 31);
    for (int64_t days = -800000; days < 800000; days += 13) {
        struct tz_date d = tz_date(days);
        assert_int_equal(tz_days(d.year, d.month, d.day), days);
        assert_true(d.day >= 1 && d.day <= tz_month_length(d.year, d.month));
    }
}

static void spans_begin_and_end_at_transitions(void **state)
{
    struct fixture *f = *state;
    struct tz tz;
    int64_t from_s;
    int64_t until_s;
    assert_int_equal(tz_parse(&f->arena, zone_bytes(f, "CET-1"), &tz), 0);
    assert_int_equal(tz_offset(&tz, 999, &from_s, &until_s), 60);
    assert_true(from_s == INT64_MIN && until_s == 1000);
    assert_int_equal(tz_offset(&tz, 1000, &from_s, &until_s), 3600);
    assert_true(from_s == 1000 && until_s == INT64_MAX);
    tz_utc(&tz);
    assert_int_equal(tz_offset(&tz, 1000, &from_s, &until_s), 0);
    assert_true(from_s == INT64_MIN && until_s == INT64_MAX);
}

static int64_t at(int64_t year, uint32_t month, uint32_t day, int64_t hour)
{
    return tz_days(year, month, day) * 86400 + hour * 3600;
}

static void the_footer_rules_the_future(void **state)
{
    struct fixture *f = *state;
    struct tz tz;
    assert_int_equal(tz_parse(&f->arena, zone_bytes(f, "CET-1CEST,M3.5.0,M10.5.0/3"), &tz), 0);
    assert_int_equal(offset(&tz, at(2050, 3, 27, 1) - 1), 3600);
    assert_int_equal(offset(&tz, at(2050, 3, 27, 1)), 7200);
    assert_int_equal(offset(&tz, at(2050, 10, 30, 1) - 1), 7200);
    assert_int_equal(offset(&tz, at(2050, 10, 30, 1)), 3600);
    /* South of the equator it begins late in the year. */
    assert_int_equal(
        tz_parse(&f->arena, zone_bytes(f, "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"), &tz), 0);
    assert_int_equal(offset(&tz, at(2050, 1, 1, 0)), 11 * 3600);
    assert_int_equal(offset(&tz, at(2050, 7, 1, 0)), 10 * 3600 + 1800);
    assert_int_equal(offset(&tz, at(2050, 12, 1, 0)), 11 * 3600);
    /* Days of the year, with and without a leap day; times before and after the day. */
    assert_int_equal(tz_parse(&f->arena, zone_bytes(f, "AAA0BBB,J60/-1,365/25"), &tz), 0);
    assert_int_equal(offset(&tz, at(2048, 2, 29, 23) - 1), 0);
    assert_int_equal(offset(&tz, at(2048, 2, 29, 23)), 3600);
    assert_int_equal(offset(&tz, at(2049, 1, 1, 0) - 1), 3600);
    assert_int_equal(offset(&tz, at(2049, 1, 1, 0)), 0);
}

static void bytes_that_are_no_zone_are_refused(void **state)
{
    static const char *const footers[] = {"X",
                                          "CET",
                                          "CET-1CEST",
                                          "CET-1CEST,M3.5.0",
                                          "CET-1x",
                                          "CET-999",
                                          "CET-1CEST,M13.5.0,M10.5.0",
                                          "<CET",
                                          "CET-1CEST,M3.5.0,M10.5.0/3x",
                                          "C-1CEST,1,2",
                                          "CET-1CEST,J0,2",
                                          "CET-1CEST,1,366"};
    struct fixture *f = *state;
    struct tz tz;
    for (size_t i = 0; i < ARRAY_LEN(footers); i++) {
        assert_int_equal(tz_parse(&f->arena, zone_bytes(f, footers[i]), &tz), -E_CORRUPT);
    }
    struct str whole = zone_bytes(f, "CET-1");
    struct buf copy = BUF_INIT;
    buf_add_str(&copy, whole);
    for (size_t n = 0; n + 7 < copy.n; n++) { /* up to the footer, without which it is good */
        assert_int_equal(tz_parse(&f->arena, str_sub(buf_str(&copy), 0, n), &tz), -E_CORRUPT);
    }
    buf_release(&copy);
}

static void names_are_gitlabs_or_the_databases(void **state)
{
    (void)state;
    assert_true(str_eqz(tz_name(STR("Berlin")), "Europe/Berlin"));
    assert_true(str_eqz(tz_name(STR("Eastern Time (US & Canada)")), "America/New_York"));
    assert_true(str_eqz(tz_name(STR("US/Pacific")), "US/Pacific"));
    assert_true(tz_name_valid(STR("Etc/GMT+12")));
    assert_true(tz_name_valid(STR("America/Argentina/Buenos_Aires")));
    assert_false(tz_name_valid(STR("")));
    assert_false(tz_name_valid(STR("../passwd")));
    assert_false(tz_name_valid(STR("/etc/passwd")));
    assert_false(tz_name_valid(STR("a//b")));
    assert_false(tz_name_valid(STR("a\0b")));
}

static void zones_are_read_from_the_database(void **state)
{
    struct fixture *f = *state;
    struct tz tz;
    assert_int_equal(os_read_zone(STR("Invalid-zone"), &f->bytes), -E_NOT_FOUND);
    assert_int_equal(os_read_zone(STR("../zoneinfo/UTC"), &f->bytes), -E_INVALID);
    if (os_read_zone(STR("Europe/Berlin"), &f->bytes) < 0) {
        skip();
    }
    assert_int_equal(tz_parse(&f->arena, buf_str(&f->bytes), &tz), 0);
    assert_int_equal(offset(&tz, at(2026, 7, 1, 0)), 7200);
    assert_int_equal(offset(&tz, at(2126, 7, 1, 0)), 7200);
    assert_int_equal(offset(&tz, at(1990, 1, 1, 0)), 3600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(the_calendar_goes_both_ways),        TEST(spans_begin_and_end_at_transitions),
        TEST(the_footer_rules_the_future),        TEST(bytes_that_are_no_zone_are_refused),
        TEST(names_are_gitlabs_or_the_databases), TEST(zones_are_read_from_the_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
