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
    assert_int_equal(
        PARSE(&c, NEEDED, "--cpu=1500m", "--memory", "2Gi", "--disk", "10G", "--cache-size", "2G"),
        0);
    assert_int_equal(c.cache_bytes, 2000000000);
    assert_int_equal(c.cpu_millis, 1500);
    assert_int_equal(c.memory_bytes, 2ull << 30);
    assert_int_equal(c.disk_bytes, 10000000000ull);
    worker_config_release(&c);
    assert_refused("--cpu", "0");
    assert_refused("--cpu", "many");
    assert_refused("--memory", "2 pounds");
    assert_refused("--disk", "0");
    assert_refused("--cache-size", "0");
}

static void containers_have_options_of_their_own(void **state)
{
    (void)state;
    struct worker_config c;
    assert_int_equal(PARSE(&c, NEEDED, "--executors", "docker,shell", "--docker-pull",
                           "never,always", "--docker-allow-image", "a/{b,c}:*",
                           "--docker-allow-image", "d", "--docker-volume", "/x:/y:ro",
                           "--docker-memory", "1Gi", "--docker-cpu", "2", "--docker-privileged"),
                     0);
    assert_int_equal(c.docker.pull.count, 2);
    assert_string_equal(c.docker.allow_pull.names[1], "always");
    assert_string_equal(c.docker.allow_images.names[0], "a/{b,c}:*");
    assert_int_equal(c.docker.allow_images.count, 2);
    assert_string_equal(c.docker.socket, "/var/run/docker.sock");
    assert_int_equal(c.docker.memory_bytes, 1ull << 30);
    assert_int_equal(c.docker.cpu_millis, 2000);
    assert_true(c.docker.privileged && c.sandbox.network);
    assert_string_equal(worker_config_choose(&c, "", true), "docker");
    assert_string_equal(worker_config_choose(&c, "", false), "shell"); /* no image of its own */
    assert_string_equal(worker_config_choose(&c, "shell", true), "shell");
    worker_config_release(&c);
    assert_int_equal(PARSE(&c, NEEDED, "--executors=docker", "--docker-image=debian:12",
                           "--sandbox-no-network", "--sandbox-read", "/usr"),
                     0);
    assert_string_equal(worker_config_choose(&c, "", false), "docker");
    assert_string_equal(c.docker.pull.names[0], "always");
    assert_false(c.docker.privileged || c.sandbox.network);
    worker_config_release(&c);
    assert_refused("--executors", "docker"); /* for nobody without an image */
    assert_refused("--docker-pull", "sometimes");
    assert_refused("--docker-image", "a b");
    assert_refused("--docker-volume", "/only");
    assert_refused("--docker-volume", "/a:relative");
    assert_refused("--docker-volume", "/a:/b:rx");
    assert_refused("--docker-socket", "relative");
    assert_refused("--docker-auth", "relative");
    assert_refused("--sandbox-read", "/nowhere/at/all");
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
        cmocka_unit_test(containers_have_options_of_their_own),
        cmocka_unit_test(help_needs_nothing_else),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
