#include "common/base.h"

#include "common/buf.h"
#include "common/glob.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct row {
    const char *pattern;
    const char *path;
    bool ruby;
    bool star;
};

static const struct row rows[] = {
    {"a", "a", true, true},
    {"a", "b", false, false},
    {"*.c", "x.c", true, true},
    {"*.c", "d/x.c", false, false},
    {"*", ".hidden", true, true},
    {"a*b*c", "aXbXbXc", true, true},
    {"a*b*c", "aXbXbX", false, false},
    {"?.c", "\xc3\xa4.c", true, true},
    {"??.c", "\xc3\xa4.c", false, false},
    {"[a-c]", "b", true, true},
    {"[a-c]", "d", false, false},
    {"[!a-c]", "d", true, true},
    {"[^a-c]", "b", false, false},
    {"[\xc3\xa4-\xc3\xb6]", "\xc3\xa5", true, true},
    {"[a", "a", false, false},
    {"[\\]]", "]", true, true},
    {"[a-]", "-", true, true},
    {"a?b", "a/b", false, false},
    {"a[/]b", "a/b", false, false},
    {"\\*", "*", true, true},
    {"\\*", "x", false, false},
    {"**/x", "x", true, true},
    {"**/x", "a/b/x", true, true},
    {"**/x", "a/b/xx", false, false},
    {"a/**/x", "a/x", true, true},
    {"a/**/x", "a/b/c/x", true, true},
    {"a/**/x", "b/a/x", false, false},
    {"a/**/b/**/c", "a/1/b/2/3/c", true, true},
    {"a/**/b/**/c", "a/1/2/3/c", false, false},
    {"**/**/x", "a/x", true, true},
    {"a/**", "a/b", true, true},
    {"a/**", "a/b/c", false, true},
    {"a/**", "a", false, true},
    {"**", "a/b", false, true},
    {"a**/x", "ab/x", true, true},
    {"a**/x", "ab/c/x", false, false},
    {"{a,b}.c", "b.c", true, true},
    {"{a,b}.c", "c.c", false, false},
    {"{a,{b,c}/**}/x", "c/d/e/x", true, true},
    {"{,a}b", "b", true, true},
    {"\\{a\\}", "{a}", true, true},
    {"{a", "{a", true, true},
    {"{src/*,docs}/x", "src/a/x", true, true},
    {"a/", "a", false, false},
    {"", "", true, true},
    {"", "a", false, false},
    {"a", "", false, false},
};

static void test_patterns_in_both_dialects(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct str pattern = str_from(rows[i].pattern);
        struct str path = str_from(rows[i].path);
        if (glob_match(GLOB_RUBY, pattern, path) != rows[i].ruby ||
            glob_match(GLOB_STAR, pattern, path) != rows[i].star) {
            fail_msg("pattern '%s', path '%s'", rows[i].pattern, rows[i].path);
        }
    }
}

static void test_hostile_patterns_end_soon(void **state)
{
    struct buf pattern = BUF_INIT;
    struct buf path = BUF_INIT;
    for (int i = 0; i < 500; i++) {
        buf_addz(&pattern, "*a");
        buf_addz(&path, "aaaaaaaa");
    }
    buf_add_char(&pattern, 'b');
    assert_false(glob_match(GLOB_RUBY, buf_str(&pattern), buf_str(&path)));
    buf_clear(&pattern);
    for (int i = 0; i < 60; i++) {
        buf_addz(&pattern, "{a,b}");
    }
    assert_false(glob_match(GLOB_RUBY, buf_str(&pattern), buf_str(&path)));
    buf_addz(&pattern, "{a,b}{a,b}{a,b}{a,b}{a,b}"); /* more than LIMIT_GLOB_BRACES */
    assert_false(glob_match(GLOB_RUBY, buf_str(&pattern), buf_str(&path)));
    buf_clear(&pattern);
    for (int i = 0; i < 2000; i++) {
        buf_add_char(&pattern, '{');
    }
    for (int i = 0; i < 2000; i++) {
        buf_add_char(&pattern, '}');
    }
    assert_false(glob_match(GLOB_RUBY, buf_str(&pattern), STR("a")));
    buf_clear(&pattern);
    for (int i = 0; i < 600; i++) {
        buf_addz(&pattern, "**/a/");
    }
    assert_false(glob_match(GLOB_STAR, buf_str(&pattern), buf_str(&path)));
    buf_release(&pattern);
    buf_release(&path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns_in_both_dialects),
        cmocka_unit_test(test_hostile_patterns_end_soon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
