#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "worker/config.h"

#define NEEDED "--broker", "tcp://127.0.0.1:7070", "--token-file", "t", "--state", "s"

static int parse(struct worker_config *c, const char *const *args, size_t count)
{
    struct buf why = BUF_INIT;
    int r = worker_config_parse(c, (int)count, (char **)(uintptr_t)args, &why);
    assert_true(r == 0 || why.n > 0);
    buf_release(&why);
    return r;
}

#define PARSE(c, ...)                         \
    parse((c), (const char *[]){__VA_ARGS__}, \
          sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

static void assert_refused(const char *option, const char *value)
{
    struct worker_config c;
    assert_int_equal(PARSE(&c, NEEDED, option, value), -E_USAGE);
    worker_config_release(&c);
}

static void what_is_not_said_has_a_default(void **state)
{
    (void)state;
    struct worker_config c;
    assert_int_equal(PARSE(&c, NEEDED), 0);
    assert_int_equal(c.slots, 1);
    assert_true(c.run_untagged);
    assert_true(strlen(c.name) > 0);
    assert_int_equal(c.executors.count, 1);
    assert_string_equal(c.executors.names[0], "shell");
    assert_int_equal(c.tags.count, 0);
    worker_config_release(&c);
}

static void values_come_after_a_blank_or_an_equals_sign(void **state)
{
    (void)state;
    struct worker_config c;
    assert_int_equal(
        PARSE(&c, NEEDED, "--slots=4", "--tags", "a, b,c", "--no-untagged", "--name=x=y"), 0);
    assert_int_equal(c.slots, 4);
    assert_int_equal(c.tags.count, 3);
    assert_string_equal(c.tags.names[1], "b");
    assert_string_equal(c.name, "x=y");
    assert_false(c.run_untagged);
    worker_config_release(&c);
}

static void resources_are_said_with_units(void **state)
{
    (void)state;
    struct worker_config c;
    assert_int_equal(PARSE(&c, NEEDED, "--cpu=1500m", "--memory", "2Gi", "--disk", "10G"), 0);
    assert_int_equal(c.cpu_millis, 1500);
    assert_int_equal(c.memory_bytes, 2ull << 30);
    assert_int_equal(c.disk_bytes, 10000000000ull);
    worker_config_release(&c);
    assert_refused("--cpu", "0");
    assert_refused("--cpu", "many");
    assert_refused("--memory", "2 pounds");
    assert_refused("--disk", "0");
}

static void help_needs_nothing_else(void **state)
{
    (void)state;
    struct worker_config c;
    assert_int_equal(PARSE(&c, "--help"), 0);
    assert_true(c.help);
    worker_config_release(&c);
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct worker_config c;
    assert_int_equal(PARSE(&c, "--state", "s"), -E_USAGE);
    worker_config_release(&c);
    assert_int_equal(PARSE(&c, NEEDED, "--slots"), -E_USAGE);
    worker_config_release(&c);
    assert_refused("--slots", "0");
    assert_refused("--slots", "1025");
    assert_refused("--slots", "many");
    assert_refused("--tags", "a,,b");
    assert_refused("--tags", "\xff");
    assert_refused("--name", "");
    assert_refused("--executors", "shell,teleport");
    assert_refused("--log-level", "loud");
    assert_refused("--no-untagged=yes", "--help");
    assert_refused("--color", "yes");
    assert_refused("--broker", "http://127.0.0.1:7070");
    assert_refused("--broker", "tcp://127.0.0.1");
    assert_refused("--broker", "nonsense");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_said_has_a_default),
        cmocka_unit_test(resources_are_said_with_units),
        cmocka_unit_test(values_come_after_a_blank_or_an_equals_sign),
        cmocka_unit_test(help_needs_nothing_else),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
