/* What jobs may upload. */
#include "common/base.h"

#include "broker/api/quota.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void a_job_and_its_pipeline_have_a_share_each(void **state)
{
    struct quota *q = quota_new(100, 150);

    assert_int_equal(quota_take(q, 11, 10, 60), 0);
    assert_int_equal(quota_take(q, 11, 10, 41), -E_LIMIT);
    assert_int_equal(quota_take(q, 11, 10, 40), 0);
    assert_int_equal(quota_take(q, 12, 10, 51), -E_LIMIT);
    assert_int_equal(quota_take(q, 12, 10, 50), 0);
    assert_int_equal(quota_take(q, 21, 20, 100), 0); /* another pipeline */
    assert_int_equal(quota_take(q, 21, 20, UINT64_MAX), -E_LIMIT);
    quota_free(q);
}

static void what_was_broken_off_may_be_sent_again(void **state)
{
    struct quota *q = quota_new(100, 100);

    assert_int_equal(quota_take(q, 11, 10, 100), 0);
    quota_give_back(q, 11, 10, 70);
    assert_int_equal(quota_take(q, 11, 10, 71), -E_LIMIT);
    assert_int_equal(quota_take(q, 12, 10, 70), 0);
    quota_give_back(q, 12, 10, 200); /* more than it has */
    assert_int_equal(quota_take(q, 12, 10, 100), 0);
    quota_free(q);
}

static void those_who_uploaded_long_ago_are_forgotten(void **state)
{
    struct quota *q = quota_new(100, 100);

    assert_int_equal(quota_take(q, 2, 1, 100), 0);
    assert_int_equal(quota_take(q, 4, 3, 100), 0);
    for (uint64_t id = 5; id < 2 * QUOTA_JOBS + 4; id += 2) {
        assert_int_equal(quota_take(q, id + 1, id, 1), 0);
        assert_int_equal(quota_take(q, 4, 3, 1), -E_LIMIT); /* which is in use all the time */
    }
    assert_int_equal(quota_take(q, 2, 1, 100), 0);
    quota_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_and_its_pipeline_have_a_share_each),
        cmocka_unit_test(what_was_broken_off_may_be_sent_again),
        cmocka_unit_test(those_who_uploaded_long_ago_are_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
