#include "common/base.h"

#include <stdlib.h>

#include "tests/unit/pipeline/fixture.h"

int fixture_set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    arena_init(&f->arena, 0);
    diags_init(&f->diags);
    *state = f;
    return 0;
}

int fixture_tear_down(void **state)
{
    struct fixture *f = *state;
    arena_release(&f->arena);
    diags_release(&f->diags);
    free(f);
    return 0;
}

const struct node *fixture_read(struct fixture *f, const char *text)
{
    struct yaml_file file = {0};
    assert_int_equal(yaml_read(&f->arena, "test.yml", str_from(text), &f->diags, &file), 0);
    assert_non_null(file.body);
    return file.body;
}

const char *fixture_first_error(const struct fixture *f)
{
    for (size_t i = 0; i < f->diags.count; i++) {
        if (f->diags.items[i].level == DIAG_ERROR) {
            return f->diags.items[i].code;
        }
    }
    return "";
}

Pb__Plan *fixture_compile(struct fixture *f, struct str text)
{
    struct pipeline_input in = {.file = "test.yml", .text = text, .ref = "main", .origin = "push"};
    Pb__Plan *plan = NULL;
    int r = pipeline_compile(&f->arena, &in, &f->diags, &plan);
    assert_true((r == 0) == (plan != NULL));
    assert_true(plan || f->diags.errors > 0);
    return plan;
}
