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
    assert_rendered((struct diag_at){.file = "ci.yml", .line = 2, .column = 3, .length = 6},
                    "did you mean `script`?", "build:\n  scirpt: x\n",
                    "ci.yml:2:3: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "      scirpt: x\n"
                    "      ^^^^^^\n"
                    "hint: did you mean `script`?\n");
}

static void test_columns_count_characters(void **state)
{
    assert_rendered((struct diag_at){.file = "ci.yml", .line = 1, .column = 4}, NULL,
                    "\t\xc3\xa4 x\r\n",
                    "ci.yml:1:4: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "            \xc3\xa4 x\n"
                    "              ^\n");
    assert_rendered((struct diag_at){.file = "ci.yml", .line = 1, .column = 2, .length = 2}, NULL,
                    "ab\tc\n",
                    "ci.yml:1:2: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "    ab      c\n"
                    "     ^^^^^^^\n");
}

static void test_wide_characters_are_underlined_as_wide_as_they_are(void **state)
{
    assert_rendered((struct diag_at){.file = "ci.yml", .line = 1, .column = 3, .length = 2}, NULL,
                    "\xe4\xb8\xad:\xe6\x96\x87\xf0\x9f\x9a\x80 x\n",
                    "ci.yml:1:3: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "    \xe4\xb8\xad:\xe6\x96\x87\xf0\x9f\x9a\x80 x\n"
                    "       ^^^^\n");
    /* a, combining diaeresis: two characters in one place */
    assert_rendered((struct diag_at){.file = "ci.yml", .line = 1, .column = 4, .length = 1}, NULL,
                    "a\xcc\x88 x\n",
                    "ci.yml:1:4: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "    a\xcc\x88 x\n"
                    "      ^\n");
}

static void test_a_text_of_several_lines_is_underlined_in_each(void **state)
{
    static const char text[] = "a:\n  - b\n\n  - c: d\n  - e\n  - f\n";
    struct diag_at at = {.file = "ci.yml", .line = 2, .column = 3, .end_line = 4, .end_column = 6};
    assert_rendered(at, NULL, text,
                    "ci.yml:2:3: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "      - b\n"
                    "      ^^^\n"
                    "      - c: d\n"
                    "      ^^^\n");
    at.end_line = 6;
    at.end_column = UINT32_MAX;
    assert_rendered(at, NULL, text,
                    "ci.yml:2:3: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "      - b\n"
                    "      ^^^\n"
                    "      - c: d\n"
                    "      ^^^^^^\n"
                    "      - e\n"
                    "      ^^^\n"
                    "    ...\n");
}

static void test_of_a_long_line_the_part_that_matters_is_shown(void **state)
{
    struct buf line = BUF_INIT;
    struct buf out = BUF_INIT;
    struct diags d;
    for (int i = 0; i < 1000; i++) {
        buf_addz(&line, i == 500 ? "wrong" : "right");
    }
    diags_init(&d);
    diag_add(&d, DIAG_ERROR, "x",
             (struct diag_at){.file = "ci.yml", .line = 1, .column = 2501, .length = 5}, NULL,
             "no");
    diag_render(&d.items[0], text_of, line.p, false, &out);
    assert_true(out.n < 400);
    assert_non_null(strstr(out.p, "    ...rightright"));
    struct str rest = buf_str(&out);
    struct str lines[3];
    for (size_t i = 0; i < 3; i++) {
        assert_true(str_split(&rest, '\n', &lines[i]));
    }
    assert_int_equal(str_find(lines[1], STR("wrong")), str_find(lines[2], STR("^^^^^")));
    buf_release(&line);
    buf_release(&out);
    diags_release(&d);
}

static void test_notes_tell_the_way_and_are_bounded(void **state)
{
    struct buf out = BUF_INIT;
    struct diags d;
    diags_init(&d);
    diag_add(&d, DIAG_ERROR, "x", (struct diag_at){.file = "a.yml", .line = 1, .column = 1}, "h",
             "no");
    for (unsigned i = 0; i < 2 * LIMIT_DIAG_NOTES; i++) {
        diag_note(&d, &d.items[0], (struct diag_at){.file = "b.yml", .line = i, .column = 2},
                  "step %u", i);
    }
    assert_int_equal(d.items[0].note_count, LIMIT_DIAG_NOTES);
    diag_render(&d.items[0], NULL, NULL, false, &out);
    assert_true(str_starts(buf_str(&out), STR("a.yml:1:1: error: no [x]\nhint: h\n"
                                              "note: step 0: b.yml\n"
                                              "note: step 1: b.yml:1:2\n")));
    buf_release(&out);
    diags_release(&d);
}

static void test_a_place_outside_of_the_text_is_still_named(void **state)
{
    assert_rendered((struct diag_at){.file = "ci.yml", .line = 9, .column = 1, .length = 1}, NULL,
                    "x\n", "ci.yml:9:1: error: unknown keyword `scirpt` [unknown-keyword]\n");
    assert_rendered((struct diag_at){.file = ""}, NULL, "x\n",
                    "error: unknown keyword `scirpt` [unknown-keyword]\n");
    assert_rendered(
        (struct diag_at){.file = "ci.yml", .line = 1, .column = 1, .length = 4000000000u}, NULL,
        "xy\n",
        "ci.yml:1:1: error: unknown keyword `scirpt` [unknown-keyword]\n"
        "    xy\n"
        "    ^^\n");
}

static void test_control_characters_do_not_reach_the_terminal(void **state)
{
    assert_rendered((struct diag_at){.file = "ci.yml", .line = 1, .column = 1, .length = 1}, NULL,
                    "\033[2Jx\n",
                    "ci.yml:1:1: error: unknown keyword `scirpt` [unknown-keyword]\n"
                    "    ?[2Jx\n"
                    "    ^\n");
}

static void test_all_text_is_utf8(void **state)
{
    struct diags d;
    diags_init(&d);
    diag_add(&d, DIAG_ERROR, "x", (struct diag_at){.file = "\xff.yml"}, "\xc3",
             "a\xc3\xa4\xe4\xb8");
    assert_string_equal(d.items[0].message, "a\xc3\xa4??");
    assert_string_equal(d.items[0].file, "?.yml");
    assert_string_equal(d.items[0].hint, "?");
    diags_release(&d);
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
    assert_string_equal(diag_nearest(STR("bef"), names, 4), "before_script");
    assert_null(diag_nearest(STR("be"), names, 4));
    assert_null(diag_nearest(STR("image"), names, 4));
    assert_null(diag_nearest(STR("x"), names, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_place_is_underlined),
        cmocka_unit_test(test_columns_count_characters),
        cmocka_unit_test(test_wide_characters_are_underlined_as_wide_as_they_are),
        cmocka_unit_test(test_a_text_of_several_lines_is_underlined_in_each),
        cmocka_unit_test(test_of_a_long_line_the_part_that_matters_is_shown),
        cmocka_unit_test(test_notes_tell_the_way_and_are_bounded),
        cmocka_unit_test(test_a_place_outside_of_the_text_is_still_named),
        cmocka_unit_test(test_control_characters_do_not_reach_the_terminal),
        cmocka_unit_test(test_all_text_is_utf8),
        cmocka_unit_test(test_many_are_counted_but_not_kept),
        cmocka_unit_test(test_the_nearest_name_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
