/* Test cases of GitLab itself, where they are: the folder that DAVIT_CORPORA names, else
 * ../shared/corpora beside the repository. Skipped where there is none. */
#include "common/base.h"

#include "common/expand.h"
#include "common/glob.h"
#include "common/os.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define EXIT_SKIPPED 77

/* Heap. */
static char *tables_folder(void)
{
    const char *corpora = getenv("DAVIT_CORPORA");
    return os_path_join(corpora != NULL ? corpora : DAVIT_SOURCE_ROOT "/../shared/corpora",
                        "tables");
}

static json_t *table_load(const char *name)
{
    json_error_t error;
    char *folder = tables_folder();
    char *path = os_path_join(folder, name);
    json_t *table = json_load_file(path, 0, &error);
    free(path);
    free(folder);
    assert_non_null(table);
    return table;
}

static void check_expansion(json_t *row)
{
    struct arena arena;
    struct vars vars;
    size_t i;
    json_t *item;
    unsigned flags = EXPAND_PERCENT;
    arena_init(&arena, 0);
    vars_init(&vars, &arena);
    json_array_foreach(json_object_get(row, "variables"), i, item)
    {
        vars_set(&vars, (struct var){
                            .name = str_from(json_string_value(json_object_get(item, "key"))),
                            .value = str_from(json_string_value(json_object_get(item, "value"))),
                            .file = json_is_true(json_object_get(item, "file")),
                        });
    }
    if (strcmp(json_string_value(json_object_get(row, "fn")), "expand_existing") == 0) {
        flags |= EXPAND_KEEP_UNKNOWN;
    }
    if (json_is_false(json_object_get(row, "expand_file_refs"))) {
        flags |= EXPAND_KEEP_FILE;
    }
    struct buf out = BUF_INIT;
    assert_int_equal(vars_expand_with(&vars,
                                      str_from(json_string_value(json_object_get(row, "value"))),
                                      flags, &out),
                     0);
    assert_string_equal(buf_cstr(&out), json_string_value(json_object_get(row, "result")));
    buf_release(&out);
    arena_release(&arena);
}

static void test_expansion_as_gitlab(void **state)
{
    json_t *table = table_load("expand_variables.json");
    size_t i;
    json_t *row;
    json_array_foreach(table, i, row)
    {
        check_expansion(row);
    }
    print_message("%zu rows\n", json_array_size(table));
    assert_true(json_array_size(table) > 0);
    json_decref(table);
}

/* Expands the pattern as the compiler does: what is not known stays. */
static bool matches_any(struct vars *vars, const char *pattern, json_t *changed)
{
    struct buf expanded = BUF_INIT;
    bool matched = false;
    size_t i;
    json_t *path;
    assert_int_equal(
        vars_expand_with(vars, str_from(pattern), EXPAND_PERCENT | EXPAND_KEEP_UNKNOWN, &expanded),
        0);
    json_array_foreach(changed, i, path)
    {
        matched |= glob_match(GLOB_RUBY, buf_str(&expanded), str_from(json_string_value(path)));
    }
    buf_release(&expanded);
    return matched;
}

static void check_changes(json_t *row)
{
    struct arena arena;
    struct vars vars;
    const char *name;
    json_t *value;
    size_t i;
    bool satisfied = false;
    arena_init(&arena, 0);
    vars_init(&vars, &arena);
    json_object_foreach(json_object_get(row, "vars"), name, value)
    {
        vars_set(&vars,
                 (struct var){.name = str_from(name), .value = str_from(json_string_value(value))});
    }
    assert_int_equal(vars_expand_all(&vars), 0);
    json_array_foreach(json_object_get(row, "paths"), i, value)
    {
        satisfied |= matches_any(&vars, json_string_value(value), json_object_get(row, "changed"));
    }
    assert_int_equal(satisfied, json_is_true(json_object_get(row, "satisfied")));
    arena_release(&arena);
}

static void test_changes_as_gitlab(void **state)
{
    json_t *table = table_load("rules_changes.json");
    size_t checked = 0;
    size_t i;
    json_t *row;
    json_array_foreach(table, i, row)
    {
        /* The rows of compare_to are about which files have changed, not about patterns. */
        if (json_object_get(row, "changed") != NULL) {
            check_changes(row);
            checked++;
        }
    }
    print_message("%zu of %zu rows are about patterns\n", checked, json_array_size(table));
    assert_true(checked > 0);
    json_decref(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expansion_as_gitlab),
        cmocka_unit_test(test_changes_as_gitlab),
    };
    char *folder = tables_folder();
    bool there = os_exists(folder);
    if (!there) {
        printf("no %s: skipped\n", folder);
    }
    free(folder);
    return there ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}
