#include "common/base.h"

#include "common/buf.h"
#include "common/regex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct regex *compiled(struct arena *arena, const char *pattern)
{
    struct regex *re;
    const char *reason;
    size_t at;
    assert_int_equal(regex_compile(arena, str_from(pattern), STR_NULL, &re, &reason, &at), 0);
    return re;
}

static void every_match_is_found_once(void **state)
{
    static const struct {
        const char *pattern;
        const char *text;
        const char *found; /* each match in brackets */
    } rows[] = {
        {"\\d+", "1 22 333", "[1][22][333]"},
        {"(a)(b)?", "ab a", "[b][]"},
        {"x(\\d)|y", "x1 y x2", "[1][][2]"},
        {"b*",
         "ab\xc3\xa4"
         "b",
         "[][b][][b][]"},
        {"^a", "aa", "[a]"},
        {"a", "", ""},
        {"$", "", "[]"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena arena;
        struct buf found = BUF_INIT;
        struct str match;
        size_t from = 0;
        arena_init(&arena, 0);
        struct regex *re = compiled(&arena, rows[i].pattern);
        while (regex_find(re, str_from(rows[i].text), from, &match, &from) == 0) {
            buf_addf(&found, "[" STR_FMT "]", STR_ARG(match));
        }
        assert_string_equal(buf_cstr(&found), rows[i].found);
        buf_release(&found);
        arena_release(&arena);
    }
}

static void a_search_that_takes_too_long_is_given_up(void **state)
{
    struct arena arena;
    struct str match;
    size_t from;
    bool found;
    struct str text = STR("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    (void)state;
    arena_init(&arena, 0);
    struct regex *re = compiled(&arena, "(a|aa)+[bc]");
    assert_int_equal(regex_find(re, text, 0, &match, &from), -E_LIMIT);
    assert_int_equal(regex_search(re, text, &found), -E_LIMIT);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_match_is_found_once),
        cmocka_unit_test(a_search_that_takes_too_long_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
