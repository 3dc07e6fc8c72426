#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/limits.h"
#include "worker/engine/image_name.h"

static void assert_str(struct str s, const char *expected)
{
    char *text = str_dup(s);
    assert_string_equal(text, expected);
    free(text);
}

static void the_parts_of_a_name_are_told_apart(void **state)
{
    static const struct {
        const char *text, *registry, *path, *tag, *digest;
    } rows[] = {
        {"debian", "docker.io", "debian", "latest", ""},
        {"library/debian:12", "docker.io", "library/debian", "12", ""},
        {"gcr.io/a/b", "gcr.io", "gcr.io/a/b", "latest", ""},
        {"host:5000/a", "host:5000", "host:5000/a", "latest", ""},
        {"localhost/a:x", "localhost", "localhost/a", "x", ""},
        {"host:5000/a:1@sha256:abc", "host:5000", "host:5000/a", "1", "sha256:abc"},
        {"a@sha256:0f", "docker.io", "a", "", "sha256:0f"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct image_name name;
        assert_int_equal(image_name_parse(str_from(rows[i].text), &name), 0);
        assert_str(name.registry, rows[i].registry);
        assert_str(name.path, rows[i].path);
        assert_str(name.tag, rows[i].tag);
        assert_str(name.digest, rows[i].digest);
    }
}

static void what_would_mean_something_in_a_path_is_refused(void **state)
{
    static const char *const bad[] = {"",        "/a",    "a/",       "a//b", "../a",  "a/../b",
                                      "a b",     "a?b",   "a:b c",    "a:",   "a@",    "a@sha256",
                                      "a@x:%2f", "-a",    "a#b",      "a\nb", "a:b:c", "h:x/a/..",
                                      "a&tag=b", "A\x80", "a:b/c:d e"};
    struct image_name name;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (image_name_parse(str_from(bad[i]), &name) != -E_INVALID) {
            fail_msg("`%s` was taken", bad[i]);
        }
    }
    char *big = xmalloc(LIMIT_IMAGE_NAME + 1);
    memset(big, 'a', LIMIT_IMAGE_NAME + 1);
    assert_int_equal(image_name_parse(str_of(big, LIMIT_IMAGE_NAME + 1), &name), -E_INVALID);
    assert_int_equal(image_name_parse(str_of(big, LIMIT_IMAGE_NAME), &name), 0);
    free(big);
}

static void a_service_is_known_by_its_path_without_the_port(void **state)
{
    static const struct {
        const char *text, *first, *second;
    } rows[] = {
        {"postgres:16", "postgres", NULL},
        {"tutum/wordpress:latest", "tutum__wordpress", "tutum-wordpress"},
        {"host.example:5000/a/b:1", "host.example__a__b", "host.example-a-b"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena arena;
        struct image_name name;
        const char *hosts[IMAGE_HOSTS_MAX];
        arena_init(&arena, 0);
        assert_int_equal(image_name_parse(str_from(rows[i].text), &name), 0);
        assert_int_equal(image_name_hosts(&name, &arena, hosts), rows[i].second != NULL ? 2 : 1);
        assert_string_equal(hosts[0], rows[i].first);
        if (rows[i].second != NULL) {
            assert_string_equal(hosts[1], rows[i].second);
        }
        arena_release(&arena);
    }
}

static void patterns_allow_images(void **state)
{
    char first[] = "ruby:*", second[] = "host:5000/**";
    char *const patterns[] = {first, second};
    (void)state;
    assert_true(image_name_allowed(STR("anything"), NULL, 0));
    assert_true(image_name_allowed(STR("ruby:3"), patterns, 2));
    assert_false(image_name_allowed(STR("ruby"), patterns, 2));
    assert_false(image_name_allowed(STR("evil/ruby:3"), patterns, 2));
    assert_true(image_name_allowed(STR("host:5000/a/b:1"), patterns, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts_of_a_name_are_told_apart),
        cmocka_unit_test(what_would_mean_something_in_a_path_is_refused),
        cmocka_unit_test(a_service_is_known_by_its_path_without_the_port),
        cmocka_unit_test(patterns_allow_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
