/* A store in a folder of its own, and values to put into it. cmocka's setup and teardown; a test's
 * *state is its struct fixture. */
#ifndef DAVIT_TEST_STORE_FIXTURE_H
#define DAVIT_TEST_STORE_FIXTURE_H

#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/store/tx.h"
#include "common/limits.h"
#include "common/os.h"

struct fixture {
    char dir[64];
    uint64_t map_bytes;
    struct store *s; /* NULL while closed */
};

int setup_folder(void **state); /* a folder, no store yet */
int setup(void **state);        /* an open store */
int teardown(void **state);

void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);

struct tx *begin(struct fixture *f, bool write);
void commit(struct tx *tx);
void assert_sound(struct fixture *f); /* store_check finds nothing */

/* n bytes that differ from place to place and from seed to seed. */
struct str make_value(struct arena *a, size_t n, uint32_t seed);
void put_value(struct tx *tx, uint64_t id, size_t n, uint32_t seed); /* into T_JOB */
void assert_value(struct tx *tx, uint64_t id, size_t n, uint32_t seed);

#define TEST(name)        cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_CLOSED(name) cmocka_unit_test_setup_teardown(name, setup_folder, teardown)

#endif
