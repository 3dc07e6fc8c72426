#include "common/base.h"

#include "pipeline/block.h"
#include "tests/unit/pipeline/fixture.h"

static void blocks_are_hidden_and_come_back(void **state)
{
    static const char *const texts[] = {
        "a: [$[[ inputs.a ]], $[[inputs.b | truncate(1,2)]]]\n",
        "$[[ inputs.list[0] ]]$[[ inputs.list[1]]]]\n",
        "ü $[[ inputs.ü | split('#: ') ]] ü",
        "$[[ {}[]()*&!|>'\"%@`,:#?\\-+=~^<>;/ ]]",
        "no $[[ end\n]] of it, $[ no",
        "$[[]]",
        "",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct str text = str_from(texts[i]);
        struct str hidden = block_protect(&f->arena, text);
        struct str rest = text;
        struct str before;
        struct str inside;
        while (block_next(&rest, &before, &inside)) {
            assert_true(str_find(hidden, STR("$[[")) < 0 || i == 4);
        }
        assert_true(str_is_utf8(hidden, NULL));
        assert_true(str_eq(block_restore(&f->arena, hidden), text));
    }
}

static void a_text_with_the_private_characters_stays_as_it_is(void **state)
{
    struct fixture *f = *state;
    struct str text = STR("\xF3\xB0\x81\x9B $[[ inputs.a ]]");
    assert_ptr_equal(block_protect(&f->arena, text).p, text.p);
}

static void columns_behind_a_block_stay(void **state)
{
    const struct node *root = fixture_read(*state, "a: [$[[ inputs.a ]], b, \"$[[ x ]]\"]\n");
    const struct node *list = node_get(root, "a");
    assert_int_equal(list->count, 3);
    assert_true(str_eqz(list->items[0]->text, "$[[ inputs.a ]]"));
    assert_int_equal(list->items[0]->length, 15);
    assert_int_equal(list->items[1]->column, 22);
    assert_true(list->items[0]->plain && !list->items[2]->plain);
    assert_true(list->has_block && root->has_block && !list->items[1]->has_block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(blocks_are_hidden_and_come_back),
        TEST(a_text_with_the_private_characters_stays_as_it_is),
        TEST(columns_behind_a_block_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
