/* The pure parts of the steps: what is read from a job's files and log. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/limits.h"
#include "worker/step/coverage.h"
#include "worker/step/dotenv.h"
#include "worker/step/slug.h"

static void dotenv_lines_become_variables(void **state)
{
    static const char text[] = "\xef\xbb\xbf"
                               "A=1\n"
                               "\n"
                               "# no variable=1\n"
                               "  B_2 =  two words \r\n"
                               "C=\"quoted\"\n"
                               "D=a=b#c\n"
                               "E=\n"
                               "F=$A\n"
                               "A=last";
    static const char *const expected[][2] = {
        {"A", "last"}, {"B_2", "two words"}, {"C", "\"quoted\""}, {"D", "a=b#c"},
        {"E", ""},     {"F", "$A"},
    };
    struct arena arena;
    struct vars vars;
    struct dotenv_mistake mistake;
    (void)state;
    arena_init(&arena, 0);
    vars_init(&vars, &arena);
    assert_int_equal(dotenv_parse(str_from(text), &vars, &mistake), 0);
    assert_int_equal(vars.count, ARRAY_LEN(expected));
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        const struct var *var = vars_get(&vars, str_from(expected[i][0]));
        assert_non_null(var);
        assert_true(var->raw);
        assert_true(str_eqz(var->value, expected[i][1]));
    }
    arena_release(&arena);
}

static void a_bad_dotenv_line_is_named(void **state)
{
    static const struct {
        const char *text;
        uint32_t line;
        const char *reason;
    } rows[] = {
        {"A=1\nno equals", 2, "NAME=VALUE"}, {"A='1\n2'\n", 2, "NAME=VALUE"},
        {"=1", 1, "name of a variable"},     {"export A=1", 1, "name of a variable"},
        {"1A=1", 1, "name of a variable"},   {"A=1\n\nB=\xff", 3, "UTF-8"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena arena;
        struct vars vars;
        struct dotenv_mistake mistake = {0};
        arena_init(&arena, 0);
        vars_init(&vars, &arena);
        assert_int_equal(dotenv_parse(str_from(rows[i].text), &vars, &mistake), -E_INVALID);
        assert_int_equal(mistake.line, rows[i].line);
        assert_non_null(strstr(mistake.reason, rows[i].reason));
        arena_release(&arena);
    }
}

static void dotenv_variables_are_counted_by_name(void **state)
{
    struct arena arena;
    struct vars vars;
    struct dotenv_mistake mistake = {0};
    struct buf text = BUF_INIT;
    (void)state;
    for (unsigned i = 0; i < LIMIT_DOTENV_VARIABLES; i++) {
        buf_addf(&text, "V%u=1\nV%u=2\n", i, i);
    }
    arena_init(&arena, 0);
    vars_init(&vars, &arena);
    assert_int_equal(dotenv_parse(buf_str(&text), &vars, &mistake), 0);
    assert_int_equal(dotenv_parse(STR("ONE_MORE=1"), &vars, &mistake), -E_INVALID);
    assert_non_null(strstr(mistake.reason, "too many"));
    buf_release(&text);
    arena_release(&arena);
}

static void control_sequences_are_taken_out(void **state)
{
    static const char *const rows[][2] = {
        {"plain", "plain"},
        {"\033[32;1mTotal\033[0;m 8\033[K7\033[0m", "Total 87"},
        {"\033]0;title\a1\033]8;;x\033\\2", "12"},
        {"a\033(Bc", "aBc"},
        {"a\033[12;", "a"},
        {"a\033", "a"},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = BUF_INIT;
        coverage_strip(str_from(rows[i][0]), &out);
        assert_string_equal(buf_cstr(&out), rows[i][1]);
        buf_release(&out);
    }
}

static void the_first_number_of_a_match_counts(void **state)
{
    static const struct {
        const char *text;
        bool found;
        uint32_t hundredths;
    } rows[] = {
        {"87", true, 8700},
        {"cov 087.5%", true, 8750},
        {"12.345 99", true, 1235},
        {"12.344", true, 1234},
        {"99.999", true, 10000},
        {"0.009", true, 1},
        {"7. 8", true, 700},
        {"no number", false, 0},
        {"", false, 0},
        {"-3", true, 300},
        {".5", true, 500},
        {"3.14.15", true, 314},
        {"99999999999999999999", true, 100000000},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint32_t hundredths = 0;
        assert_int_equal(coverage_number(str_from(rows[i].text), &hundredths), rows[i].found);
        assert_int_equal(hundredths, rows[i].hundredths);
    }
}

struct log_row {
    const char *pattern;
    const char *log;
    bool found;
    uint32_t hundredths;
};

/* The log comes in pieces of one size. */
static void search(const struct log_row *row, size_t piece_bytes)
{
    struct arena arena;
    struct regex *re;
    struct coverage c;
    struct str pattern = str_from(row->pattern);
    struct str flags = STR_NULL;
    struct str rest = str_from(row->log);
    const char *reason;
    size_t at;
    arena_init(&arena, 0);
    assert_true(regex_split_literal(pattern, &pattern, &flags));
    assert_int_equal(regex_compile(&arena, pattern, flags, &re, &reason, &at), 0);
    coverage_init(&c, re);
    while (rest.n > 0) {
        coverage_add(&c, str_sub(rest, 0, piece_bytes));
        rest = str_sub(rest, piece_bytes, rest.n);
    }
    coverage_end(&c);
    assert_int_equal(c.found, row->found);
    assert_int_equal(c.hundredths, row->hundredths);
    assert_false(c.unsure);
    coverage_release(&c);
    arena_release(&arena);
}

static void the_last_match_of_the_last_line_that_has_one_counts(void **state)
{
    static const struct log_row rows[] = {
        {"/\\d+%/", "10%\nno\n20%\nno\n", true, 2000},
        {"/\\d+%/", "10% 20% 30%", true, 3000},
        {"/TOTAL.*? (\\d+\\.\\d+)%/", "TOTAL 12 3 87.25%\r\n", true, 8725},
        {"/(\\d+) of (\\d+)/", "3 of 40\n", true, 4000},
        {"/Total: .*/", "Total: 5% (of 9)\nTotal: none\n", true, 500},
        {"/^Lines: \\d+\\.\\d+/", "\033[1mLines: 93.5\033[0m\nxLines: 1.0\n", true, 9350},
        {"/cover(age)?: (\\d+)/i", "COVERAGE: 7\n", true, 700},
        {"/\\d+%/", "nothing\n", false, 0},
        {"/\\d*/", "ab12\xc3\xa4", false, 0},
        {"/\\d*$/", "5\nab12", false, 0},
    };
    static const size_t pieces[] = {1, 3, 1000};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
            search(&rows[i], pieces[k]);
        }
    }
}

static void a_line_without_an_end_takes_bounded_memory(void **state)
{
    struct buf log = BUF_INIT;
    (void)state;
    for (unsigned i = 0; i < 3 * LIMIT_COVERAGE_LINE; i++) {
        buf_add_char(&log, '.');
    }
    buf_addz(&log, "cov 42%");
    search(&(struct log_row){"/cov \\d+%/", buf_cstr(&log), true, 4200}, 100000);
    buf_release(&log);
}

static void a_pages_prefix_is_fit_for_an_address(void **state)
{
    static const char *const rows[][2] = {
        {"", ""},
        {"Feature/New_Thing", "feature-new-thing"},
        {"--.v1.2.-", "v1.2"},
        {"\xc3\xa4", ""},
        {"0123456789012345678901234567890123456789012345678901234567890123456789",
         "012345678901234567890123456789012345678901234567890123456789012"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = BUF_INIT;
        slug_pages_prefix(str_from(rows[i][0]), &out);
        assert_string_equal(buf_cstr(&out), rows[i][1]);
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dotenv_lines_become_variables),
        cmocka_unit_test(a_bad_dotenv_line_is_named),
        cmocka_unit_test(dotenv_variables_are_counted_by_name),
        cmocka_unit_test(control_sequences_are_taken_out),
        cmocka_unit_test(the_first_number_of_a_match_counts),
        cmocka_unit_test(the_last_match_of_the_last_line_that_has_one_counts),
        cmocka_unit_test(a_line_without_an_end_takes_bounded_memory),
        cmocka_unit_test(a_pages_prefix_is_fit_for_an_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
