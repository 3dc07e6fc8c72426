#include "common/base.h"

#include <stdio.h>

#include "tests/unit/pipeline/fixture.h"

static void nodes_know_where_they_stand(void **state)
{
    const struct node *root = fixture_read(*state, "a: 1\nüb:\n  - x\n  - \"y\"\n");
    const struct node *list = node_get(root, "üb");
    assert_int_equal(root->pairs[1].key->line, 2);
    assert_int_equal(root->pairs[1].key->column, 1);
    assert_int_equal(root->pairs[1].key->length, 2); /* characters, not bytes */
    assert_int_equal(list->items[1]->line, 4);
    assert_int_equal(list->items[1]->column, 5);
    assert_int_equal(list->items[1]->length, 3);
    assert_string_equal(list->items[1]->file, "test.yml");
}

static void an_alias_is_the_same_node(void **state)
{
    const struct node *root = fixture_read(*state, "a: &x [1, 2]\nb: *x\n");
    assert_ptr_equal(node_get(root, "a"), node_get(root, "b"));
}

static void a_repeated_anchor_means_its_latest_node(void **state)
{
    const struct node *root = fixture_read(*state, "a: &x 1\nb: &x 2\nc: *x\n");
    assert_int_equal(node_get(root, "c")->integer, 2);
}

static void merge_keys_apply_where_they_stand(void **state)
{
    const struct node *root = fixture_read(*state, "x: &x {a: 1, b: 1, c: 1}\n"
                                                   "y: {a: 2, <<: *x, b: 2, d: 2}\n");
    const struct node *y = node_get(root, "y");
    assert_int_equal(node_get(y, "a")->integer, 1);
    assert_int_equal(node_get(y, "b")->integer, 2);
    assert_int_equal(node_get(y, "c")->integer, 1);
    assert_null(node_get(y, "<<"));
    assert_int_equal(y->count, 4);
}

static void of_a_merged_list_the_first_wins(void **state)
{
    const struct node *root = fixture_read(*state, "x: &x {a: 1}\ny: &y {a: 2, b: 2}\n"
                                                   "z: {<<: [*x, *y]}\n");
    const struct node *z = node_get(root, "z");
    assert_int_equal(node_get(z, "a")->integer, 1);
    assert_int_equal(node_get(z, "b")->integer, 2);
}

static void a_merge_of_something_else_is_a_plain_key(void **state)
{
    const struct node *root = fixture_read(*state, "l: &l [{a: 1}]\nx: {<<: text}\ny: {<<: *l}\n");
    assert_non_null(node_get(node_get(root, "x"), "<<"));
    assert_non_null(node_get(node_get(root, "y"), "<<"));
}

static void the_last_of_equal_keys_wins_with_a_warning(void **state)
{
    struct fixture *f = *state;
    const struct node *root = fixture_read(f, "a: 1\nb: 2\na: 3\n");
    assert_int_equal(node_get(root, "a")->integer, 3);
    assert_int_equal(root->count, 2);
    assert_int_equal(f->diags.warnings, 1);
    assert_int_equal(f->diags.errors, 0);
}

static void large_mappings_find_every_key(void **state)
{
    struct fixture *f = *state;
    struct buf text = BUF_INIT;
    for (int i = 0; i < 3000; i++) {
        buf_addf(&text, "key%d: %d\n", i, i);
    }
    const struct node *root = fixture_read(f, buf_cstr(&text));
    for (int i = 0; i < 3000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "key%d", i);
        assert_int_equal(node_get(root, name)->integer, i);
    }
    assert_null(node_get(root, "key3000"));
    buf_release(&text);
}

static void the_header_is_told_from_the_body(void **state)
{
    struct fixture *f = *state;
    struct yaml_file file = {0};
    assert_int_equal(yaml_read(&f->arena, "a", STR("spec:\n---\na: 1\n"), &f->diags, &file), 0);
    assert_non_null(file.header);
    assert_int_equal(node_get(file.body, "a")->integer, 1);
}

static void a_byte_order_mark_is_no_part_of_the_text(void **state)
{
    const struct node *root = fixture_read(*state, "\xef\xbb\xbf"
                                                   "a: 1\n");
    assert_non_null(node_get(root, "a"));
}

static void bad_utf8_is_found_in_its_line(void **state)
{
    struct fixture *f = *state;
    struct yaml_file file = {0};
    assert_true(yaml_read(&f->arena, "a", STR("a: 1\nb: \xc3\x28\n"), &f->diags, &file) < 0);
    assert_string_equal(f->diags.items[0].code, "yaml-utf8");
    assert_int_equal(f->diags.items[0].line, 2);
    assert_int_equal(f->diags.items[0].column, 4);
}

static void control_characters_are_found_in_their_line(void **state)
{
    struct fixture *f = *state;
    struct yaml_file file = {0};
    assert_true(yaml_read(&f->arena, "a", STR("a: 1\nb: \x01\n"), &f->diags, &file) < 0);
    assert_string_equal(f->diags.items[0].code, "yaml-character");
    assert_int_equal(f->diags.items[0].line, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nodes_know_where_they_stand),
        TEST(an_alias_is_the_same_node),
        TEST(a_repeated_anchor_means_its_latest_node),
        TEST(merge_keys_apply_where_they_stand),
        TEST(of_a_merged_list_the_first_wins),
        TEST(a_merge_of_something_else_is_a_plain_key),
        TEST(the_last_of_equal_keys_wins_with_a_warning),
        TEST(large_mappings_find_every_key),
        TEST(the_header_is_told_from_the_body),
        TEST(a_byte_order_mark_is_no_part_of_the_text),
        TEST(bad_utf8_is_found_in_its_line),
        TEST(control_characters_are_found_in_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
