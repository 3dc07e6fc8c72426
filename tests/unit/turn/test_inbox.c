#include "common/base.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/inbox.h"
#include "common/limits.h"
#include "common/os.h"

static uint64_t waits; /* how often the system was asked for a wait */

int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock,
                                  const struct timespec *at);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock,
                                  const struct timespec *at);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock,
                                  const struct timespec *at)
{
    waits++;
    return __real_pthread_cond_timedwait(cond, lock, at);
}

static void free_list(struct item *items)
{
    while (items != NULL) {
        struct item *next = items->next;
        free(items);
        items = next;
    }
}

static struct item *numbered(uint64_t n)
{
    struct item *item = item_new(ITEM_LOG);
    item->job_id = n;
    return item;
}

static void items_come_out_in_order_and_in_portions(void **state)
{
    struct inbox *in = inbox_new();
    bool resume;

    for (uint64_t i = 1; i <= 5; i++) {
        inbox_push_event(in, numbered(i));
    }
    struct item *first = inbox_take(in, 3, 0, &resume);
    assert_int_equal(first->job_id, 1);
    assert_int_equal(first->next->next->job_id, 3);
    assert_null(first->next->next->next);
    inbox_push_event(in, numbered(6));
    struct item *second = inbox_take(in, 100, 0, &resume);
    assert_int_equal(second->job_id, 4);
    assert_int_equal(second->next->next->job_id, 6);
    assert_false(resume);
    assert_int_equal(inbox_count(in), 0);
    assert_int_equal(inbox_pushed(in), 6);
    assert_int_equal(inbox_taken(in), 6);
    free_list(first);
    free_list(second);
    inbox_free(in);
}

static void an_empty_inbox_waits_for_the_deadline(void **state)
{
    struct inbox *in = inbox_new();
    uint64_t start_ms = os_monotonic_ms();
    bool resume;

    waits = 0;
    assert_null(inbox_take(in, 1, start_ms + 20, &resume));
    assert_true(os_monotonic_ms() >= start_ms + 19);
    assert_true(waits > 0);
    inbox_free(in);
}

static void no_deadline_is_no_wait(void **state)
{
    struct inbox *in = inbox_new();
    bool resume;

    waits = 0;
    assert_null(inbox_take(in, 1, 0, &resume));
    assert_int_equal(waits, 0);
    inbox_free(in);
}

static void a_full_inbox_refuses_posts_and_takes_events(void **state)
{
    struct inbox *in = inbox_new();
    struct item *post = item_new(ITEM_POST);
    bool resume;

    for (size_t i = 0; i < LIMIT_INBOX; i++) {
        assert_int_equal(inbox_push_post(in, item_new(ITEM_POST)), 0);
    }
    assert_int_equal(inbox_push_post(in, post), -E_BUSY);
    inbox_push_event(in, numbered(1));
    free_list(inbox_take(in, 2, 0, &resume));
    assert_int_equal(inbox_push_post(in, post), 0);
    free_list(inbox_take(in, LIMIT_INBOX + 1, 0, &resume));
    inbox_free(in);
}

static void a_post_above_the_bytes_is_refused(void **state)
{
    struct inbox *in = inbox_new();
    struct item *big = item_new(ITEM_POST);
    struct item *next = item_new(ITEM_POST);
    bool resume;

    big->bytes = LIMIT_INBOX_BYTES;
    assert_int_equal(inbox_push_post(in, big), 0);
    assert_int_equal(inbox_push_post(in, next), -E_BUSY);
    free_list(inbox_take(in, 1, 0, &resume));
    assert_int_equal(inbox_push_post(in, next), 0);
    free_list(inbox_take(in, 1, 0, &resume));
    inbox_free(in);
}

static void receiving_stops_at_the_bound_and_resumes_once_at_its_half(void **state)
{
    struct inbox *in = inbox_new();
    bool resume;

    for (size_t i = 1; i < LIMIT_INBOX; i++) {
        assert_true(inbox_push_message(in, item_new(ITEM_MESSAGE)));
    }
    assert_false(inbox_push_message(in, item_new(ITEM_MESSAGE)));
    free_list(inbox_take(in, LIMIT_INBOX / 2, 0, &resume));
    assert_false(resume);
    free_list(inbox_take(in, 1, 0, &resume));
    assert_true(resume);
    free_list(inbox_take(in, LIMIT_INBOX, 0, &resume));
    assert_false(resume);
    inbox_free(in);
}

static void a_stopped_inbox_refuses_posts_and_wakes_the_taker(void **state)
{
    struct inbox *in = inbox_new();
    struct item *post = item_new(ITEM_POST);
    bool resume;

    inbox_stop(in);
    assert_int_equal(inbox_push_post(in, post), -E_SHUTDOWN);
    assert_null(inbox_take(in, 1, UINT64_MAX / 2, &resume));
    assert_true(inbox_stopped(in));
    free(post);
    inbox_free(in);
}

#define PUSHERS 4
#define EACH    5000

static void *push_many(void *arg)
{
    for (uint64_t i = 0; i < EACH; i++) {
        inbox_push_event(arg, numbered(i));
    }
    return NULL;
}

static void nothing_is_lost_between_many_threads(void **state)
{
    struct inbox *in = inbox_new();
    pthread_t threads[PUSHERS];
    size_t got = 0;
    bool resume;

    for (size_t i = 0; i < PUSHERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, push_many, in), 0);
    }
    while (got < (size_t)PUSHERS * EACH) {
        struct item *items = inbox_take(in, 100, os_monotonic_ms() + 1000, &resume);
        assert_non_null(items);
        for (struct item *i = items; i != NULL; i = i->next) {
            got++;
        }
        free_list(items);
    }
    for (size_t i = 0; i < PUSHERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(inbox_taken(in), PUSHERS * EACH);
    inbox_free(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_out_in_order_and_in_portions),
        cmocka_unit_test(an_empty_inbox_waits_for_the_deadline),
        cmocka_unit_test(no_deadline_is_no_wait),
        cmocka_unit_test(a_full_inbox_refuses_posts_and_takes_events),
        cmocka_unit_test(a_post_above_the_bytes_is_refused),
        cmocka_unit_test(receiving_stops_at_the_bound_and_resumes_once_at_its_half),
        cmocka_unit_test(a_stopped_inbox_refuses_posts_and_wakes_the_taker),
        cmocka_unit_test(nothing_is_lost_between_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
