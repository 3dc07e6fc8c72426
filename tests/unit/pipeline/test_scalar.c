/* Plain scalars as Psych 5 resolves them. */
#include "common/base.h"

#include "tests/unit/pipeline/fixture.h"

static struct node resolve(const char *text)
{
    struct node n = {.text = str_from(text)};
    scalar_resolve(&n);
    return n;
}

static void assert_all(const char *const *texts, size_t count, enum scalar_type type)
{
    for (size_t i = 0; i < count; i++) {
        struct node n = resolve(texts[i]);
        if (n.type != type) {
            fail_msg("`%s` became type %d, not %d", texts[i], n.type, type);
        }
    }
}

static void words_of_yaml_are_booleans_in_three_cases_only(void **state)
{
    static const char *const bools[] = {"true", "True", "TRUE", "no", "No", "OFF", "on", "Yes"};
    static const char *const texts[] = {"tRuE", "y", "n", "Y", "oN", "truely"};
    assert_all(bools, ARRAY_LEN(bools), SCALAR_BOOL);
    assert_all(texts, ARRAY_LEN(texts), SCALAR_STRING);
    assert_true(resolve("on").truth);
    assert_false(resolve("Off").truth);
    assert_true(resolve("yes").surprising);
    assert_false(resolve("true").surprising);
}

static void nothing_and_its_words_are_null(void **state)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    assert_all(nulls, ARRAY_LEN(nulls), SCALAR_NULL);
    assert_int_equal(resolve("nUll").type, SCALAR_STRING);
}

static void numbers_have_all_the_forms_of_yaml_1_1(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
        bool surprising;
    } cases[] = {
        {"0", 0, false},        {"42", 42, false},    {"-7", -7, false},
        {"+7", 7, false},       {"010", 8, true},     {"0777", 511, true},
        {"0x1f", 31, true},     {"0b101", 5, true},   {"1_000", 1000, true},
        {"1,000", 1000, true},  {"1:30", 5400, true}, {"1:30:15", 5415, true},
        {"-1:30", -5400, true}, {"0x1,f", 31, true},  {"01,0", 8, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct node n = resolve(cases[i].text);
        assert_int_equal(n.type, SCALAR_INT);
        assert_int_equal(n.integer, cases[i].value);
        assert_int_equal(n.surprising, cases[i].surprising);
    }
}

static void what_only_looks_like_a_number_is_a_text(void **state)
{
    static const char *const texts[] = {"0o10",
                                        "08",
                                        "1e3",
                                        "1:",
                                        "1:99",
                                        "1:2:3:4",
                                        ".",
                                        "-",
                                        "1__",
                                        "1.2.3",
                                        "v1",
                                        "1-2",
                                        "99999999999999999999"};
    assert_all(texts, ARRAY_LEN(texts), SCALAR_STRING);
}

static void floats_have_a_point(void **state)
{
    static const char *const floats[] = {"3.10",   "1.",    ".5",     "-.inf",    ".nan",
                                         "1.5e+3", "1_0.5", "1:30.5", "-1:30:15."};
    assert_all(floats, ARRAY_LEN(floats), SCALAR_FLOAT);
}

static void dates_are_told_from_texts_that_begin_like_one(void **state)
{
    assert_true(scalar_is_date(STR("2026-02-03")));
    assert_true(scalar_is_date(STR("2026-2-3")));
    assert_true(scalar_is_date(STR("2026-02-03 04:05:06")));
    assert_true(scalar_is_date(STR("2026-02-03T04:05:06Z")));
    assert_true(scalar_is_date(STR("2026-02-03 4:05:06.25 +01:00")));
    assert_false(scalar_is_date(STR("2026-13-03")));
    assert_false(scalar_is_date(STR("2026-02-33")));
    assert_false(scalar_is_date(STR("2026-02-03 04:05:06 is when it began")));
    assert_false(scalar_is_date(STR("2026-02-03-04")));
    assert_false(scalar_is_date(STR("2026-02")));
    assert_false(scalar_is_date(STR("20260203")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_yaml_are_booleans_in_three_cases_only),
        cmocka_unit_test(nothing_and_its_words_are_null),
        cmocka_unit_test(numbers_have_all_the_forms_of_yaml_1_1),
        cmocka_unit_test(what_only_looks_like_a_number_is_a_text),
        cmocka_unit_test(floats_have_a_point),
        cmocka_unit_test(dates_are_told_from_texts_that_begin_like_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
