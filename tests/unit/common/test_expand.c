#include "common/base.h"

#include "common/err.h"
#include "common/expand.h"
#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct fixture {
    struct arena arena;
    struct vars vars;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    arena_init(&f->arena, 0);
    vars_init(&f->vars, &f->arena);
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

static void set(struct fixture *f, const char *name, const char *value)
{
    vars_set(&f->vars, (struct var){.name = str_from(name), .value = str_from(value)});
}

static void assert_value(struct fixture *f, const char *name, const char *value)
{
    const struct var *var = vars_get(&f->vars, str_from(name));
    assert_non_null(var);
    assert_string_equal(var->value.p, value);
}

static void assert_expands(struct fixture *f, unsigned flags, const char *text, const char *result)
{
    struct buf out = BUF_INIT;
    assert_int_equal(vars_expand_with(&f->vars, str_from(text), flags, &out), 0);
    assert_string_equal(buf_cstr(&out), result);
    buf_release(&out);
}

static void test_a_later_value_wins_in_the_place_of_the_first(void **state)
{
    struct fixture *f = *state;
    set(f, "A", "1");
    set(f, "B", "2");
    set(f, "A", "3");
    assert_int_equal(f->vars.count, 2);
    assert_string_equal(f->vars.items[0].value.p, "3");
    assert_null(vars_get(&f->vars, STR("C")));
}

static void test_a_thousand_variables_are_found_again(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 1000; i++) {
        char *name = arena_printf(&f->arena, "NAME_%d", i);
        set(f, name, name);
    }
    assert_int_equal(f->vars.count, 1000);
    assert_value(f, "NAME_0", "NAME_0");
    assert_value(f, "NAME_999", "NAME_999");
}

static void test_only_references_are_replaced(void **state)
{
    struct fixture *f = *state;
    set(f, "A", "x");
    assert_expands(f, 0, "$A ${A} $A_ $Ab ${A}b ${}", "x x   xb ");
    assert_expands(f, 0, "$$A $1 $( $ ${A ${A:-y} %A%", "$A $1 $( $ ${A ${A:-y} %A%");
    assert_expands(f, 0, "$", "$");
    assert_expands(f, EXPAND_PERCENT, "%A%%A% %A %% %", "xx %A % %");
    assert_expands(f, EXPAND_KEEP_UNKNOWN, "$A$B${C}", "x$B${C}");
    assert_expands(f, EXPAND_KEEP_ESCAPES, "$$A$A", "$$Ax");
}

static void test_values_are_expanded_in_dependency_order(void **state)
{
    struct fixture *f = *state;
    set(f, "A", "a$B");
    set(f, "B", "b$C");
    set(f, "C", "c$$A");
    vars_set(&f->vars, (struct var){.name = STR("R"), .value = STR("$C"), .raw = true});
    set(f, "D", "$R");
    assert_int_equal(vars_expand_all(&f->vars), 0);
    assert_value(f, "A", "abc$A");
    assert_value(f, "B", "bc$A");
    assert_value(f, "R", "$C");
    assert_value(f, "D", "$C");
}

static void test_a_cycle_stays_as_it_is_written(void **state)
{
    struct fixture *f = *state;
    set(f, "PATH", "$PATH:/bin");
    set(f, "A", "1$B$X");
    set(f, "B", "2${A}");
    set(f, "X", "x");
    set(f, "C", "$A!");
    assert_int_equal(vars_expand_all(&f->vars), 0);
    assert_value(f, "PATH", "$PATH:/bin");
    assert_value(f, "A", "1$Bx");
    assert_value(f, "B", "2${A}");
    assert_value(f, "C", "1$Bx!");
}

static void test_values_that_explode_hit_the_limit(void **state)
{
    struct fixture *f = *state;
    set(f, "V0", "0123456789");
    for (int i = 1; i < 12; i++) {
        char *below = arena_printf(&f->arena, "$V%d", i - 1);
        set(f, arena_printf(&f->arena, "V%d", i),
            arena_printf(&f->arena, "%s%s%s%s%s%s%s%s", below, below, below, below, below, below,
                         below, below));
    }
    assert_int_equal(vars_expand_all(&f->vars), -E_LIMIT);
}

static void test_all_values_together_hit_the_limit(void **state)
{
    struct fixture *f = *state;
    char *long_text = arena_alloc(&f->arena, LIMIT_VARIABLE_VALUE);
    memset(long_text, 'x', LIMIT_VARIABLE_VALUE - 1);
    set(f, "LONG", long_text);
    for (unsigned i = 0; i < LIMIT_EXPANDED_TOTAL / LIMIT_VARIABLE_VALUE + 1; i++) {
        set(f, arena_printf(&f->arena, "V%u", i), "$LONG");
    }
    assert_int_equal(vars_expand_all(&f->vars), -E_LIMIT);
}

static void a_layer_sees_what_is_below_with_its_own_values(void **state)
{
    struct fixture *f = *state;
    struct vars middle;
    struct vars top;
    set(f, "A", "a$B");
    set(f, "B", "below");
    set(f, "C", "$D");
    vars_layer(&middle, &f->arena, &f->vars, 0);
    vars_set_ref(&middle, (struct var){.name = STR("D"), .value = STR("$A, $B")});
    vars_layer(&top, &f->arena, &middle, 0);
    vars_set_ref(&top, (struct var){.name = STR("B"), .value = STR("top")});
    assert_string_equal(vars_get(&middle, STR("C"))->value.p, "abelow, below");
    assert_string_equal(vars_get(&top, STR("C"))->value.p, "atop, top");
    assert_string_equal(vars_get(&top, STR("A"))->value.p, "atop");
    assert_value(f, "C", "$D");
    assert_null(vars_get(&top, STR("E")));
    assert_null(vars_get_own(&top, STR("A")));
    assert_non_null(vars_get_own(&middle, STR("D")));
    assert_false(vars_failed(&top));
}

/* Whatever is asked for first, cycles and all. */
static void a_layer_gives_what_expanding_all_gives(void **state)
{
    static const struct var set_of[] = {
        {{"A", 1}, {"1$B$X", 5}, false, false, false},
        {{"B", 1}, {"2${A}", 5}, false, false, false},
        {{"X", 1}, {"$Y$$", 4}, false, false, false},
        {{"Y", 1}, {"y", 1}, false, false, false},
        {{"C", 1}, {"$A!$C", 5}, false, false, false},
        {{"D", 1}, {"$C$X$R", 6}, false, false, false},
        {{"R", 1}, {"$D", 2}, true, false, false},
        {{"E", 1}, {"$D$E", 4}, false, false, false},
    };
    struct fixture *f = *state;
    struct vars raw;
    vars_init(&raw, &f->arena);
    for (size_t i = 0; i < ARRAY_LEN(set_of); i++) {
        vars_set(&f->vars, set_of[i]);
        vars_set_ref(&raw, set_of[i]);
    }
    assert_int_equal(vars_expand_all(&f->vars), 0);
    for (size_t first = 0; first < ARRAY_LEN(set_of); first++) {
        struct vars layer;
        vars_layer(&layer, &f->arena, &raw, 0);
        for (size_t i = 0; i < ARRAY_LEN(set_of); i++) {
            const struct var *var = &f->vars.items[(first + i) % ARRAY_LEN(set_of)];
            assert_true(str_eq(vars_get(&layer, var->name)->value, var->value));
        }
    }
}

static void a_layer_stops_at_the_limit(void **state)
{
    struct fixture *f = *state;
    struct vars layer;
    set(f, "V0", "0123456789");
    for (int i = 1; i < 40; i++) {
        set(f, arena_printf(&f->arena, "V%d", i),
            arena_printf(&f->arena, "$V%d$V%d", i - 1, i - 1));
    }
    vars_layer(&layer, &f->arena, &f->vars, 0);
    assert_string_equal(vars_get(&layer, STR("V1"))->value.p, "01234567890123456789");
    assert_false(vars_failed(&layer));
    assert_non_null(vars_get(&layer, STR("V39")));
    assert_true(vars_failed(&layer));
    assert_string_equal(vars_get(&layer, STR("V38"))->value.p, "$V37$V37");
}

static void test_names(void **state)
{
    assert_true(var_name_valid(STR("_a1")));
    assert_false(var_name_valid(STR("1a")));
    assert_false(var_name_valid(STR("a-b")));
    assert_false(var_name_valid(STR("")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_later_value_wins_in_the_place_of_the_first),
        TEST(test_a_thousand_variables_are_found_again),
        TEST(test_only_references_are_replaced),
        TEST(test_values_are_expanded_in_dependency_order),
        TEST(test_a_cycle_stays_as_it_is_written),
        TEST(test_values_that_explode_hit_the_limit),
        TEST(test_all_values_together_hit_the_limit),
        TEST(a_layer_sees_what_is_below_with_its_own_values),
        TEST(a_layer_gives_what_expanding_all_gives),
        TEST(a_layer_stops_at_the_limit),
        TEST(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
