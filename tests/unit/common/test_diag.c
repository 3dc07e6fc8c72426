#include "common/base.h"

#include "common/diag.h"
#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct str text_of(void *ctx, const char *file)
{
    return strcmp(file, "ci.yml") == 0 ? str_from(ctx) : STR_NULL;
}

static void assert_rendered(struct diag_at at, const char *hint, const char *text,
                            const char *expected)
{
    struct diags d;
    struct buf out = BUF_INIT;
    diags_init(&d);
    diag_add(&d, DIAG_ERROR, "unknown-keyword", at, hint, "unknown keyword `%s`", "scirpt");
    diag_render(&d.items[0], text_of, (void *)text, false, &out);
    assert_string_equal(out.p, expected);
    buf_release(&out);
    diags_release(&d);
}

static void test_the_place_is_underlined(void **state)
{
    assert_rendered((struct diag_at){"ci.yml", 2, 3, 6}, "did you mean `script`?",
                    "build:\n  scirpt: x\n",
                    "ci.yml:2:3: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "      scirpt: x\n"
                    "      ^^^^^^\n"
                    "hint: did you mean `script`?\n");
}

static void test_columns_count_characters_and_keep_tabs(void **state)
{
    assert_rendered((struct diag_at){"ci.yml", 1, 4, 0}, NULL, "\t\xc3\xa4 x\r\n",
                    "ci.yml:1:4: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "    \t\xc3\xa4 x\n"
                    "    \t  ^\n");
}

static void test_a_place_outside_of_the_text_is_still_named(void **state)
{
    assert_rendered((struct diag_at){"ci.yml", 9, 1, 1}, NULL, "x\n",
                    "ci.yml:9:1: error: unknown keyword `scirpt` [unknown-keyword]\n");
    assert_rendered((struct diag_at){"", 0, 0, 0}, NULL, "x\n",
                    "error: unknown keyword `scirpt` [unknown-keyword]\n");
    assert_rendered((struct diag_at){"ci.yml", 1, 1, 4000000000u}, NULL, "xy\n",
                    "ci.yml:1:1: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "    xy\n"
                    "    ^^\n");
}

static void test_control_characters_do_not_reach_the_terminal(void **state)
{
    assert_rendered((struct diag_at){"ci.yml", 1, 1, 1}, NULL, "\033[2Jx\n",
                    "ci.yml:1:1: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "    ?[2Jx\n"
                    "    ^\n");
}

static void test_many_are_counted_but_not_kept(void **state)
{
    struct diags d;
    diags_init(&d);
    for (unsigned i = 0; i < LIMIT_DIAGS + 10; i++) {
        diag_add(&d, DIAG_ERROR, "x", (struct diag_at){.file = "f"}, NULL, "number %u", i);
    }
    diag_add(&d, DIAG_WARNING, "x", (struct diag_at){0}, NULL, "one more");
    assert_int_equal(d.count, LIMIT_DIAGS);
    assert_int_equal(d.errors, LIMIT_DIAGS + 10);
    assert_int_equal(d.warnings, 1);
    assert_string_equal(d.items[99].message, "number 99");
    diags_release(&d);
}

static void test_the_nearest_name_is_near(void **state)
{
    const char *const names[] = {"before_script", "script", "scripts", "stage"};
    assert_string_equal(diag_nearest(STR("scirpt"), names, 4), "script");
    assert_string_equal(diag_nearest(STR("scriptss"), names, 4), "scripts");
    assert_string_equal(diag_nearest(STR("befor_script"), names, 4), "before_script");
    assert_null(diag_nearest(STR("image"), names, 4));
    assert_null(diag_nearest(STR("x"), names, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_place_is_underlined),
        cmocka_unit_test(test_columns_count_characters_and_keep_tabs),
        cmocka_unit_test(test_a_place_outside_of_the_text_is_still_named),
        cmocka_unit_test(test_control_characters_do_not_reach_the_terminal),
        cmocka_unit_test(test_many_are_counted_but_not_kept),
        cmocka_unit_test(test_the_nearest_name_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
