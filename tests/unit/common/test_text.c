#include "common/base.h"

#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_splitting_gives_empty_parts_too(void **state)
{
    struct str rest = STR("a,,b,");
    struct str part;
    const char *const parts[] = {"a", "", "b", ""};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        assert_true(str_split(&rest, ',', &part));
        assert_true(str_eqz(part, parts[i]));
    }
    assert_false(str_split(&rest, ',', &part));
}

static void test_views_never_leave_their_string(void **state)
{
    struct str s = STR("hello");
    assert_true(str_eqz(str_sub(s, 1, 3), "ell"));
    assert_true(str_eqz(str_sub(s, 9, 3), ""));
    assert_true(str_eqz(str_sub(s, 3, SIZE_MAX), "lo"));
    assert_true(str_eqz(str_trim(STR(" \t x y\r\n")), "x y"));
    assert_true(str_starts(s, STR("he")) && !str_starts(s, STR("hello!")));
    assert_true(str_ends(s, STR("lo")) && !str_ends(s, STR("l")));
    assert_int_equal(str_find(s, STR("l")), 2);
    assert_int_equal(str_find(s, STR("x")), -1);
    assert_int_equal(str_chr(STR_NULL, 'x'), -1);
    assert_true(str_eq(STR_NULL, STR("")));
    assert_true(str_cmp(STR("a"), STR("ab")) < 0 && str_cmp(STR("b"), STR("ab")) > 0);
}

static void test_numbers_are_whole_strings(void **state)
{
    const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "0x1", "18446744073709551616"};
    uint64_t u = 7;
    int64_t i = 7;
    for (size_t k = 0; k < ARRAY_LEN(bad); k++) {
        assert_int_equal(str_to_u64(str_from(bad[k]), &u), -E_INVALID);
    }
    assert_int_equal(u, 7);
    assert_int_equal(str_to_u64(STR("18446744073709551615"), &u), 0);
    char room[STR_U64_BYTES];
    assert_true(str_eqz(str_of_u64(u, room), "18446744073709551615"));
    assert_true(str_eqz(str_of_u64(0, room), "0"));
    assert_true(str_eqz(str_of_u64(1203, room), "1203"));
    assert_true(u == UINT64_MAX);
    assert_int_equal(str_to_i64(STR("-9223372036854775808"), &i), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(str_to_i64(STR("9223372036854775808"), &i), -E_INVALID);
    assert_int_equal(str_to_i64(STR("-"), &i), -E_INVALID);
}

static void test_utf8_is_well_formed_or_names_the_byte(void **state)
{
    static const struct {
        const char *text;
        int bad_at; /* -1: good */
    } rows[] = {
        {"", -1},
        {"plain", -1},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x9a\xa2", -1},
        {"\xf4\x8f\xbf\xbf", -1},
        {"a\x80", 1},
        {"a\xc0\x80", 1},        /* overlong */
        {"ab\xe0\x80\x80", 2},   /* overlong */
        {"\xed\xa0\x80", 0},     /* a surrogate */
        {"\xf4\x90\x80\x80", 0}, /* above U+10FFFF */
        {"x\xe2\x82", 1},        /* cut off */
        {"\xff", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        size_t at = 99;
        bool good = str_is_utf8(str_from(rows[i].text), &at);
        assert_int_equal(good, rows[i].bad_at < 0);
        assert_int_equal(at, good ? 99 : rows[i].bad_at);
    }
    assert_false(str_is_utf8(STR("a\0b"), NULL));
}

static void test_durations_as_gitlab_reads_them(void **state)
{
    static const struct {
        const char *text;
        uint64_t seconds;
    } rows[] = {
        {"3600", 3600},
        {"0", 0},
        {"1h 30m", 5400},
        {"1h30m", 5400},
        {"90 minutes", 5400},
        {"2 days 3h", 183600},
        {"1 week", 604800},
        {"3 mos 4 sec", 7776004},
        {"1 yr", 31557600},
        {"1.5 hours", 5400},
        {"2h and 10 min", 7800},
        {"1 hour, 5 seconds", 3605},
        {"1 Hour", 3600},
        {"10 sec", 10},
        {"1:30", 90},
        {"1:00:30", 3630},
        {"6 mos 1 day", 15638400},
    };
    const char *const bad[] = {"",
                               " ",
                               "never",
                               "h",
                               "1 fortnight",
                               "1 2",
                               "-1h",
                               "1:2:3:4",
                               "1:",
                               "99999999999999999999",
                               "1h x",
                               "1000000 years",
                               "1..5h",
                               "and"};
    uint64_t ms;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (str_to_duration_ms(str_from(rows[i].text), &ms) < 0 || ms != rows[i].seconds * 1000) {
            fail_msg("'%s'", rows[i].text);
        }
    }
    ms = 5;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (str_to_duration_ms(str_from(bad[i]), &ms) != -E_INVALID) {
            fail_msg("'%s'", bad[i]);
        }
    }
    assert_int_equal(ms, 5);
}

static void times_are_read_as_they_are_written(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } rows[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01", 0},
        {"1970-01-01T01:00+01:00", 0},
        {"2000-02-29T12:34:56Z", 951827696000},
        {"2000-03-01", 951868800000},
        {"2026-02-03T04:05:06Z", 1770091506000},
        {"2026-02-03 04:05", 1770091500000},
        {"2026-02-03T04:05:06.789Z", 1770091506789},
        {"2026-02-03T04:05:06.7891234Z", 1770091506789},
        {"2026-02-03T04:05:06+02:00", 1770084306000},
        {"2026-02-02T22:35:06-05:30", 1770091506000},
        {"2100-03-01", 4107542400000},
        {"9999-12-31T23:59:59Z", 253402300799000},
    };
    static const char *const bad[] = {"",
                                      "now",
                                      "2026",
                                      "2026-2-3",
                                      "2026-02-30",
                                      "2100-02-29",
                                      "2026-13-01",
                                      "2026-00-01",
                                      "2026-01-00",
                                      "1969-12-31",
                                      "1970-01-01T00:00+01:00",
                                      "2026-02-03T24:00",
                                      "2026-02-03T04:60",
                                      "2026-02-03T04",
                                      "2026-02-03T04:05:",
                                      "2026-02-03T04:05:06.",
                                      "2026-02-03T04:05:06 Z",
                                      "2026-02-03T04:05Zulu",
                                      "2026-02-03T04:05+0200",
                                      "2026-02-03T04:05+15:00",
                                      "2026-02-03T",
                                      "2026-02-03x04:05"};
    char text[32];
    uint64_t ms;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (str_to_time_ms(str_from(rows[i].text), &ms) < 0 || ms != rows[i].ms) {
            fail_msg("'%s'", rows[i].text);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (str_to_time_ms(str_from(bad[i]), &ms) != -E_INVALID) {
            fail_msg("'%s'", bad[i]);
        }
    }
    for (uint64_t day = 0; day < 120000; day += 13) {
        assert_int_equal(
            str_to_time_ms(str_from(str_time(day * 86400000, text, sizeof(text))), &ms), 0);
        assert_int_equal(ms, day * 86400000);
    }
}

static void amounts_are_read_with_their_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } cpus[] = {{"500m", 500}, {"2", 2000},   {"1.5", 1500},    {"0.25", 250},
                {"0", 0},      {"0.0005", 0}, {"1.9999", 1999}, {"4294967295m", UINT32_MAX}},
      sizes[] = {{"0", 0},
                 {"1000", 1000},
                 {"1000B", 1000},
                 {"2G", 2000000000},
                 {"2GB", 2000000000},
                 {"512Mi", 512u << 20},
                 {"1Ti", 1ull << 40},
                 {"1.5Gi", 3ull << 29},
                 {"0.5k", 500},
                 {"3K", 3000},
                 {"1ki", 1024},
                 {"9223372036854775807", INT64_MAX}};
    static const char *const bad[] = {"",
                                      "-1",
                                      "1.",
                                      ".5",
                                      "x",
                                      "1x",
                                      "1 G",
                                      "m",
                                      "Gi",
                                      "1..5",
                                      "1Gib",
                                      "1Bi",
                                      "1e3",
                                      "99999999999999999999",
                                      "1.0000000000",
                                      "9000000Ti"};
    uint32_t millis;
    uint64_t bytes;
    for (size_t i = 0; i < ARRAY_LEN(cpus); i++) {
        if (str_to_cpu_millis(str_from(cpus[i].text), &millis) < 0 || millis != cpus[i].value) {
            fail_msg("'%s'", cpus[i].text);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        if (str_to_size(str_from(sizes[i].text), &bytes) < 0 || bytes != sizes[i].value) {
            fail_msg("'%s'", sizes[i].text);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (str_to_cpu_millis(str_from(bad[i]), &millis) != -E_INVALID ||
            str_to_size(str_from(bad[i]), &bytes) != -E_INVALID) {
            fail_msg("'%s'", bad[i]);
        }
    }
    assert_int_equal(str_to_cpu_millis(STR_NULL, &millis), -E_INVALID);
    assert_int_equal(str_to_cpu_millis(STR("4294968"), &millis), -E_INVALID);
    assert_int_equal(str_to_cpu_millis(STR("4294967296m"), &millis), -E_INVALID);
}

static void test_distances(void **state)
{
    assert_int_equal(str_distance(STR("script"), STR("scirpt"), 3), 1);
    assert_int_equal(str_distance(STR("kitten"), STR("sitting"), 5), 3);
    assert_int_equal(str_distance(STR(""), STR("abc"), 5), 3);
    assert_int_equal(str_distance(STR("same"), STR("same"), 0), 0);
    assert_int_equal(str_distance(STR("kitten"), STR("sitting"), 2), 3);
}

/* What collides under one seed does not under another. */
static void hashes_depend_on_every_byte_and_on_the_seed(void **state)
{
    char text[40];
    unsigned same = 0;
    memset(text, 'x', sizeof(text));
    uint32_t first = str_hash(str_of(text, sizeof(text)), 1);
    assert_int_equal(str_hash(str_of(text, sizeof(text)), 1), first);
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = 'y';
        same += str_hash(str_of(text, sizeof(text)), 1) == first;
        same += str_hash(str_of(text, i), 1) == str_hash(str_of(text, i), 2);
        text[i] = 'x';
    }
    assert_int_equal(same, 0);
}

static void test_hex_both_ways(void **state)
{
    const uint8_t bytes[] = {0x00, 0x7f, 0xff};
    uint8_t back[3] = {1, 1, 1};
    char hex[7];
    str_to_hex(bytes, 3, hex);
    assert_string_equal(hex, "007fff");
    assert_int_equal(str_from_hex(STR("007ffg"), back, 3), -E_INVALID);
    assert_int_equal(str_from_hex(STR("007ff"), back, 3), -E_INVALID);
    assert_int_equal(back[0], 1);
    assert_int_equal(str_from_hex(STR("007fFF"), back, 3), 0);
    assert_memory_equal(back, bytes, 3);
}

static void test_a_buffer_grows_and_is_always_a_c_string(void **state)
{
    struct buf b = BUF_INIT;
    assert_string_equal(buf_cstr(&b), "");
    for (int i = 0; i < 1000; i++) {
        buf_addf(&b, "%d,", i % 10);
    }
    assert_int_equal(b.n, 2000);
    assert_int_equal(strlen(b.p), 2000);
    buf_drop_front(&b, 1996);
    assert_string_equal(b.p, "8,9,");
    memcpy(buf_space(&b, 2), "xy", 2);
    buf_advance(&b, 2);
    buf_truncate(&b, 5);
    char *taken = buf_take(&b);
    assert_string_equal(taken, "8,9,x");
    assert_int_equal(b.n, 0);
    free(taken);
}

static void test_a_buffer_past_its_limit_stays_as_it_was(void **state)
{
    struct buf b;
    buf_init(&b, 4);
    buf_addz(&b, "abc");
    buf_addf(&b, "%s", "de");
    assert_false(buf_ok(&b));
    buf_add_char(&b, 'x'); /* would fit, but the failure is sticky */
    assert_string_equal(b.p, "abc");
    assert_null(buf_space(&b, 1));
    buf_clear(&b);
    buf_addz(&b, "1234");
    assert_true(buf_ok(&b));
    buf_release(&b);
}

static void test_an_arena_gives_zeroed_aligned_memory(void **state)
{
    struct arena a;
    arena_init(&a, 0);
    for (size_t n = 0; n < 40000; n = n * 3 + 1) {
        char *p = arena_alloc(&a, n);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(p[i], 0);
        }
        memset(p, 'x', n);
    }
    assert_string_equal(arena_strdup(&a, STR("abc")), "abc");
    assert_string_equal(arena_printf(&a, "%d-%s", 7, "z"), "7-z");
    arena_release(&a);
    assert_null(a.head);
}

static void an_arena_that_was_cleared_gives_zeroed_memory_again(void **state)
{
    struct arena a;
    arena_init(&a, 0);
    arena_clear(&a);
    for (int round = 0; round < 3; round++) {
        for (size_t n = 1; n < 100000; n *= 3) {
            uint8_t *p = arena_alloc(&a, n);
            assert_int_equal(p[0], 0);
            assert_int_equal(p[n - 1], 0);
            memset(p, 'x', n);
        }
        arena_clear(&a);
        assert_int_equal(a.used, 0);
    }
    arena_release(&a);
}

static void test_a_capped_arena_remembers_that_it_was_exceeded(void **state)
{
    struct arena a;
    arena_init(&a, 100);
    assert_non_null(arena_try(&a, 64));
    assert_false(a.exceeded);
    assert_null(arena_try(&a, 64));
    assert_true(a.exceeded);
    assert_null(arena_try(&a, SIZE_MAX));
    arena_release(&a);
    assert_int_equal(a.limit, 100);
}

static void test_every_error_has_its_row(void **state)
{
    assert_string_equal(err_code(0), "ok");
    assert_int_equal(err_http_status(0), 200);
    assert_int_equal(err_exit_code(0), 0);
    for (int i = 1; i < E_COUNT; i++) {
        assert_true(err_http_status(-i) >= 400 && err_exit_code(-i) > 0);
        assert_true(err_text(-i)[0] != '\0');
        assert_int_equal(err_from_code(err_code(-i)), -i);
    }
    assert_int_equal(err_from_code("no such code"), -E_INTERNAL);
    assert_string_equal(err_code(-E_COUNT), "internal");
    assert_string_equal(err_code(5), "internal");
}

static void a_pattern_is_a_project_or_a_group(void **state)
{
    static const char *const GOOD[] = {"a", "g/p", "g/*", "g/sub group/*", "gr\xc3\xbc/*"};
    static const char *const BAD[] = {"",      "*",    "/*",   "g//p",   "g//*",
                                      "g/*/p", "g/p*", "**/*", "g/../*", "g\n/*"};

    for (size_t i = 0; i < ARRAY_LEN(GOOD); i++) {
        assert_true(str_is_project_pattern(str_from(GOOD[i])));
    }
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        assert_false(str_is_project_pattern(str_from(BAD[i])));
    }
}

static void a_project_name_is_fit_to_be_a_folder(void **state)
{
    static const char *const BAD[] = {"", ".", "..", "../x", "a/../b", "/a", "a//b", "a/"};

    assert_true(str_is_project_name(STR("group/sub group/name")));
    assert_true(str_is_project_name(STR("a..b")));
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        assert_false(str_is_project_name(str_from(BAD[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splitting_gives_empty_parts_too),
        cmocka_unit_test(test_views_never_leave_their_string),
        cmocka_unit_test(test_numbers_are_whole_strings),
        cmocka_unit_test(test_utf8_is_well_formed_or_names_the_byte),
        cmocka_unit_test(test_durations_as_gitlab_reads_them),
        cmocka_unit_test(times_are_read_as_they_are_written),
        cmocka_unit_test(amounts_are_read_with_their_units),
        cmocka_unit_test(test_distances),
        cmocka_unit_test(hashes_depend_on_every_byte_and_on_the_seed),
        cmocka_unit_test(test_hex_both_ways),
        cmocka_unit_test(test_a_buffer_grows_and_is_always_a_c_string),
        cmocka_unit_test(test_a_buffer_past_its_limit_stays_as_it_was),
        cmocka_unit_test(test_an_arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(an_arena_that_was_cleared_gives_zeroed_memory_again),
        cmocka_unit_test(test_a_capped_arena_remembers_that_it_was_exceeded),
        cmocka_unit_test(test_every_error_has_its_row),
        cmocka_unit_test(a_project_name_is_fit_to_be_a_folder),
        cmocka_unit_test(a_pattern_is_a_project_or_a_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
