/* When tokens were seen last: what is told to the store, and for how long it is remembered here. */
#include "common/base.h"

#include "broker/api/uses.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "common/crypto.h"
#include "common/limits.h"

static void note(struct uses *u, unsigned number, uint64_t now_ms)
{
    uint8_t hash[SHA256_BYTES];
    crypto_sha256(&number, sizeof(number), hash);
    uses_note(u, hash, now_ms);
}

static uint64_t last(struct uses *u, unsigned number)
{
    uint8_t hash[SHA256_BYTES];
    crypto_sha256(&number, sizeof(number), hash);
    return uses_last(u, hash);
}

static size_t take(struct uses *u)
{
    struct post *post = uses_take(u);
    if (!post) {
        return 0;
    }
    const size_t n = post_command(post)->tokens_used->n_uses;
    post_free(post);
    return n;
}

static void each_use_is_told_once(void **state)
{
    struct uses *u = uses_new();
    assert_int_equal(take(u), 0);
    note(u, 1, 1000);
    note(u, 2, 2000);
    note(u, 1, 3000);
    assert_int_equal(take(u), 2);
    assert_int_equal(last(u, 1), 3000);
    note(u, 2, 4000);
    assert_int_equal(take(u), 1);
    assert_int_equal(last(u, 2), 4000);
    assert_int_equal(take(u), 0);
    uses_free(u);
}

static void tokens_of_old_leave_room_for_new_ones(void **state)
{
    struct uses *u = uses_new();
    for (unsigned i = 0; i < LIMIT_TOKENS; i++) {
        note(u, i, 1000);
    }
    note(u, LIMIT_TOKENS, 1000);
    assert_int_equal(last(u, LIMIT_TOKENS), 0);
    assert_int_equal(take(u), LIMIT_TOKENS);
    note(u, 0, 2000);
    assert_int_equal(take(u), 1);
    note(u, LIMIT_TOKENS, 3000);
    assert_int_equal(last(u, LIMIT_TOKENS), 3000);
    assert_int_equal(last(u, 0), 2000);
    assert_int_equal(take(u), 1);
    uses_free(u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_use_is_told_once),
        cmocka_unit_test(tokens_of_old_leave_room_for_new_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
