#include "common/base.h"

#include "tests/unit/pipeline/fixture.h"

static bool holds(struct fixture *f, const char *text)
{
    struct vars vars;
    struct expr *e = NULL;
    struct expr_error error = {0};
    struct expr_value v;
    vars_init(&vars, &f->arena);
    vars_set(&vars, (struct var){.name = STR("A"), .value = STR("a")});
    vars_set(&vars, (struct var){.name = STR("EMPTY"), .value = STR("")});
    vars_set(&vars, (struct var){.name = STR("BLANK"), .value = STR(" ")});
    vars_set(&vars, (struct var){.name = STR("PATTERN"), .value = STR("/^A/i")});
    vars_set(&vars, (struct var){.name = STR("LINES"), .value = STR("one\ntwo\n")});
    if (expr_parse(&f->arena, str_from(text), &e, &error) < 0) {
        fail_msg("`%s`: %s", text, error.message);
    }
    assert_int_equal(expr_evaluate(e, &vars, &v), 0);
    return expr_holds(v);
}

static size_t wrong_at(struct fixture *f, const char *text)
{
    struct expr *e = NULL;
    struct expr_error error = {0};
    assert_int_equal(expr_parse(&f->arena, str_from(text), &e, &error), -E_INVALID);
    assert_non_null(error.message);
    return error.at;
}

static void and_binds_stronger_than_or(void **state)
{
    assert_true(holds(*state, "$A == 'a' || $A == 'b' && $A == 'c'"));
    assert_false(holds(*state, "($A == 'a' || $A == 'b') && $A == 'c'"));
}

static void an_empty_or_blank_result_does_not_hold(void **state)
{
    assert_true(holds(*state, "$A"));
    assert_false(holds(*state, "$EMPTY"));
    assert_false(holds(*state, "$BLANK"));
    assert_false(holds(*state, "$UNKNOWN"));
    assert_false(holds(*state, "null"));
}

static void an_unknown_variable_is_null_and_not_empty(void **state)
{
    assert_true(holds(*state, "$UNKNOWN == null"));
    assert_false(holds(*state, "$UNKNOWN == ''"));
    assert_true(holds(*state, "$EMPTY != null"));
}

static void a_variable_may_hold_the_pattern(void **state)
{
    assert_true(holds(*state, "$A =~ $PATTERN"));
    assert_false(holds(*state, "'b' =~ $PATTERN"));
    assert_false(holds(*state, "$A =~ $UNKNOWN"));
    assert_true(holds(*state, "$A !~ $UNKNOWN"));
}

static void a_dollar_matches_at_the_very_end_only(void **state)
{
    assert_false(holds(*state, "$LINES =~ /two$/"));
    assert_true(holds(*state, "$LINES =~ /one$/m"));
}

static void mistakes_are_found_where_they_are(void **state)
{
    assert_int_equal(wrong_at(*state, "$A = 'a'"), 3);
    assert_int_equal(wrong_at(*state, "$A == 'a"), 6);
    assert_int_equal(wrong_at(*state, "$A $B"), 3);
    assert_int_equal(wrong_at(*state, "($A"), 0);
    assert_int_equal(wrong_at(*state, "$A)"), 2);
    assert_int_equal(wrong_at(*state, "$A =~ /a(/"), 9);
    assert_int_equal(wrong_at(*state, "&& $A"), 0);
    assert_int_equal(wrong_at(*state, "$A &&"), 5);
    assert_int_equal(wrong_at(*state, ""), 0);
    assert_int_equal(wrong_at(*state, "$"), 0);
}

static void what_re2_has_not_is_refused(void **state)
{
    static const char *const patterns[] = {"(?=a)",  "(?!a)",       "(?<=a)", "(?<!a)", "(a)\\1",
                                           "(?>a)",  "a++",         "a*+",    "(?R)",   "(?1)",
                                           "\\Ga",   "(?P=a)",      "(?#a)",  "(?|a)",  "(*ACCEPT)",
                                           "\\k<a>", "(?<a>b)(?&a)"};
    static const char *const fine[] = {"(?i)a",     "(?P<x>a)", "(?<x>a)",      "(?:a)", "[\\]+*+]",
                                       "\\Qa++\\E", "a+?",      "[[:alpha:]]+", "\\pL",  "\\bx\\b",
                                       "a{2,3}",    "\\.",      "[]a++]"};
    struct fixture *f = *state;
    struct regex *re;
    const char *reason;
    size_t at;
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        if (regex_compile(&f->arena, str_from(patterns[i]), STR(""), &re, &reason, &at) == 0) {
            fail_msg("%s was taken", patterns[i]);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(fine); i++) {
        if (regex_compile(&f->arena, str_from(fine[i]), STR(""), &re, &reason, &at) < 0) {
            fail_msg("%s was refused: %s", fine[i], reason);
        }
    }
}

static void a_search_that_takes_too_long_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct regex *re;
    const char *reason;
    size_t at;
    bool found;
    assert_int_equal(regex_compile(&f->arena, STR("^(a|aa|a*)*$"), STR(""), &re, &reason, &at), 0);
    assert_int_equal(
        regex_search(re, STR("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"), &found),
        -E_LIMIT);
}

static void a_long_expression_needs_no_deep_stack(void **state)
{
    struct fixture *f = *state;
    struct buf text = BUF_INIT;
    for (int i = 0; i < 1500; i++) {
        buf_addz(&text, "(($A &&");
    }
    buf_addz(&text, "$A");
    for (int i = 0; i < 3000; i++) {
        buf_addz(&text, ")");
    }
    assert_true(holds(f, buf_cstr(&text)));
    buf_clear(&text);
    for (unsigned i = 0; i <= LIMIT_EXPRESSION; i++) {
        buf_addz(&text, "(");
    }
    assert_int_equal(wrong_at(f, buf_cstr(&text)), LIMIT_EXPRESSION);
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(and_binds_stronger_than_or),
        TEST(an_empty_or_blank_result_does_not_hold),
        TEST(an_unknown_variable_is_null_and_not_empty),
        TEST(a_variable_may_hold_the_pattern),
        TEST(a_dollar_matches_at_the_very_end_only),
        TEST(mistakes_are_found_where_they_are),
        TEST(what_re2_has_not_is_refused),
        TEST(a_search_that_takes_too_long_is_given_up),
        TEST(a_long_expression_needs_no_deep_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
