#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/bus.h"

struct note {
    enum bus_topic topic;
    uint64_t key;
    unsigned calls;
};

static void take_note(void *ctx, enum bus_topic topic, uint64_t key)
{
    struct note *note = ctx;
    note->topic = topic;
    note->key = key;
    note->calls++;
}

static void every_subscriber_hears_of_a_topic(void **state)
{
    struct bus *b = bus_new();
    struct note one = {.calls = 0};
    struct note two = {.calls = 0};
    uint64_t first = bus_subscribe(b, take_note, &one);
    uint64_t second = bus_subscribe(b, take_note, &two);

    assert_int_not_equal(first, second);
    bus_publish(b, BUS_LOG, 42);
    assert_int_equal(one.calls, 1);
    assert_int_equal(two.calls, 1);
    assert_int_equal(one.topic, BUS_LOG);
    assert_int_equal(two.key, 42);
    bus_unsubscribe(b, first);
    bus_unsubscribe(b, second);
    bus_free(b);
}

static void who_left_hears_nothing(void **state)
{
    struct bus *b = bus_new();
    struct note one = {.calls = 0};
    struct note two = {.calls = 0};
    uint64_t first = bus_subscribe(b, take_note, &one);
    uint64_t second = bus_subscribe(b, take_note, &two);

    bus_unsubscribe(b, first);
    bus_unsubscribe(b, first); /* once more does no harm */
    bus_publish(b, BUS_EVENTS, 7);
    assert_int_equal(one.calls, 0);
    assert_int_equal(two.calls, 1);
    bus_unsubscribe(b, second);
    bus_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_subscriber_hears_of_a_topic),
        cmocka_unit_test(who_left_hears_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
