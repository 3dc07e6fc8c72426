/* A compilation in a test: storage, input, diagnostics. */
#ifndef DAVIT_TEST_PIPELINE_FIXTURE_H
#define DAVIT_TEST_PIPELINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "pipeline/compile.h"
#include "pipeline/yaml.h"

struct fixture {
    struct arena arena;
    struct diags diags;
};

int fixture_set_up(void **state);
int fixture_tear_down(void **state);

/* The file's tree; a failed test where it cannot be read. */
const struct node *fixture_read(struct fixture *f, const char *text);
/* The code of the first error, "" for none. */
const char *fixture_first_error(const struct fixture *f);
/* Compiles the text for a push to the branch main; NULL: errors. */
Pb__Plan *fixture_compile(struct fixture *f, struct str text);

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

#endif
