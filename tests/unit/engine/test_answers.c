#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/limits.h"
#include "worker/engine/answers.h"

static int setup(void **state)
{
    static struct arena arena;
    arena_init(&arena, 0);
    *state = &arena;
    return 0;
}

static int teardown(void **state)
{
    arena_release(*state);
    return 0;
}

static void the_versions_of_the_api_are_read(void **state)
{
    unsigned newest, oldest;
    (void)state;
    assert_int_equal(answer_version(STR("{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}"),
                                    &newest, &oldest),
                     0);
    assert_int_equal(newest, 41);
    assert_int_equal(oldest, 12);
    assert_int_equal(answer_version(STR("{\"ApiVersion\":\"1.41\"}"), &newest, &oldest), 0);
    assert_int_equal(oldest, 41);
    static const char *const bad[] = {"",
                                      "{}",
                                      "<html>",
                                      "{\"ApiVersion\":\"2.0\"}",
                                      "{\"ApiVersion\":1.41}",
                                      "{\"ApiVersion\":\"1.\"}",
                                      "{\"ApiVersion\":\"1.3\",\"MinAPIVersion\":\"1.4\"}",
                                      "{\"ApiVersion\":\"1.99999999999\"}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(answer_version(str_from(bad[i]), &newest, &oldest), -E_PROTOCOL);
    }
}

static void an_error_is_one_line_whatever_it_is(void **state)
{
    static const char *const rows[][2] = {
        {"{\"message\":\"no such\\nimage\"}", "no such image"},
        {"{\"cause\":\"podman's\"}", "podman's"},
        {"404 page not found\n", "404 page not found"},
        {"", "it does not say why"},
        {"{\"message\":\"\\u001b[31mred\"}", " [31mred"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf why = BUF_INIT;
        answer_error(str_from(rows[i][0]), &why);
        assert_string_equal(buf_cstr(&why), rows[i][1]);
        buf_release(&why);
    }
}

static void ids_that_would_lead_elsewhere_are_refused(void **state)
{
    const char *id;
    assert_int_equal(answer_id(STR("{\"Id\":\"0af\",\"Warnings\":[]}"), *state, &id), 0);
    assert_string_equal(id, "0af");
    assert_int_equal(answer_id(STR("{\"Id\":\"../x\"}"), *state, &id), -E_PROTOCOL);
    assert_int_equal(answer_id(STR("{\"Id\":\"a?force=1\"}"), *state, &id), -E_PROTOCOL);
    assert_int_equal(answer_id(STR("{\"Id\":\"\"}"), *state, &id), -E_PROTOCOL);
    assert_int_equal(answer_id(STR("{\"Id\":7}"), *state, &id), -E_PROTOCOL);
}

static void an_image_says_how_it_wants_to_be_run(void **state)
{
    struct answer_image image;
    assert_int_equal(
        answer_image(STR("{\"Id\":\"sha256:ab\",\"Config\":{\"User\":\"app\",\"Entrypoint\":[\"/"
                         "e\",\"-x\"],\"ExposedPorts\":{\"443/tcp\":{},\"80/tcp\":{},\"53/"
                         "udp\":{},\"x/tcp\":{},\"70000/tcp\":{}},\"Healthcheck\":{\"Test\":"
                         "[\"CMD\",\"true\"]}}}"),
                     *state, &image),
        0);
    assert_string_equal(image.user, "app");
    assert_int_equal(image.entrypoint_count, 2);
    assert_string_equal(image.entrypoint[1], "-x");
    assert_int_equal(image.port_count, 2);
    assert_int_equal(image.ports[0], 80);
    assert_int_equal(image.ports[1], 443);
    assert_true(image.health);
}

static void an_image_may_say_nothing(void **state)
{
    struct answer_image image;
    assert_int_equal(answer_image(STR("{\"Id\":\"a\",\"Config\":{\"Entrypoint\":null,"
                                      "\"Healthcheck\":{\"Test\":[\"NONE\"]}}}"),
                                  *state, &image),
                     0);
    assert_string_equal(image.user, "");
    assert_int_equal(image.entrypoint_count + image.port_count, 0);
    assert_false(image.health);
    assert_int_equal(answer_image(STR("{\"Id\":\"a\"}"), *state, &image), 0);
    assert_int_equal(
        answer_image(STR("{\"Id\":\"a\",\"Config\":{\"Entrypoint\":[1]}}"), *state, &image),
        -E_PROTOCOL);
    assert_int_equal(answer_image(STR("[]"), *state, &image), -E_PROTOCOL);
}

static void a_container_says_how_it_is(void **state)
{
    struct answer_container c;
    assert_int_equal(
        answer_container(STR("{\"State\":{\"Running\":true,\"OOMKilled\":false,\"ExitCode\":0,"
                             "\"Error\":\"\",\"Health\":{\"Status\":\"starting\"}},"
                             "\"NetworkSettings\":{\"Networks\":{\"a\":{\"IPAddress\":\"\"},"
                             "\"b\":{\"IPAddress\":\"172.18.0.2\"}}}}"),
                         *state, &c),
        0);
    assert_true(c.running);
    assert_string_equal(c.health, "starting");
    assert_string_equal(c.ipv4, "172.18.0.2");
    assert_int_equal(answer_container(STR("{\"State\":{\"Running\":false,\"OOMKilled\":true,"
                                          "\"ExitCode\":137},\"NetworkSettings\":{\"Networks\":"
                                          "{\"a\":{\"IPAddress\":\"1.2.3.4; rm\"}}}}"),
                                      *state, &c),
                     0);
    assert_true(!c.running && c.oom_killed);
    assert_int_equal(c.exit_code, 137);
    assert_string_equal(c.ipv4, "");
    assert_int_equal(answer_container(STR("{\"State\":{}}"), *state, &c), -E_PROTOCOL);
}

static void a_list_says_whose_each_is(void **state)
{
    struct answer_item *items;
    size_t count;
    assert_int_equal(answer_list(STR("[{\"Id\":\"a\",\"Labels\":{\"davit.job\":\"1-2-3\"}},"
                                     "{\"Id\":\"b\",\"Labels\":null}]"),
                                 *state, &items, &count),
                     0);
    assert_int_equal(count, 2);
    assert_string_equal(items[0].job, "1-2-3");
    assert_string_equal(items[1].job, "");
    assert_int_equal(answer_list(STR("[]"), *state, &items, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(answer_list(STR("{}"), *state, &items, &count), -E_PROTOCOL);
    assert_int_equal(answer_list(STR("[{}]"), *state, &items, &count), -E_PROTOCOL);
}

/* In pieces of every size. */
static void a_pull_fails_by_what_its_lines_say(void **state)
{
    static const char stream[] = "{\"status\":\"Pulling from library/x\",\"id\":\"1\"}\r\n"
                                 "no json\n"
                                 "{\"status\":\"Digest: sha256:ab\"}\n"
                                 "{\"errorDetail\":{\"message\":\"m\"},\"error\":\"no\\tway\"}";
    (void)state;
    for (size_t piece = 1; piece <= sizeof(stream); piece++) {
        struct answer_pull p;
        answer_pull_init(&p);
        for (size_t at = 0; at < sizeof(stream) - 1; at += piece) {
            answer_pull_add(&p, str_sub(str_of(stream, sizeof(stream) - 1), at, piece));
        }
        assert_int_equal(p.error.n, 0); /* its line has no end yet */
        answer_pull_end(&p);
        assert_string_equal(buf_cstr(&p.error), "no way");
        assert_string_equal(buf_cstr(&p.status), "Digest: sha256:ab");
        answer_pull_release(&p);
    }
}

static void a_line_too_long_is_passed_over(void **state)
{
    struct answer_pull p;
    char big[4096];
    (void)state;
    memset(big, 'x', sizeof(big));
    answer_pull_init(&p);
    for (size_t n = 0; n <= 2 * LIMIT_ENGINE_LINE; n += sizeof(big)) {
        answer_pull_add(&p, str_of(big, sizeof(big)));
        assert_true(p.line.n <= LIMIT_ENGINE_LINE);
    }
    answer_pull_add(&p, STR("\n{\"error\":\"\"}\n"));
    answer_pull_end(&p);
    assert_string_equal(buf_cstr(&p.error), "it does not say why");
    answer_pull_release(&p);
}

static void logs_come_in_frames(void **state)
{
    static const char stream[] = "\1\0\0\0\0\0\0\3out\2\0\0\0\0\0\0\0\2\0\0\0\0\0\0\4err\n";
    (void)state;
    for (size_t piece = 1; piece <= sizeof(stream); piece++) {
        struct answer_logs l = {0};
        struct buf out = BUF_INIT;
        for (size_t at = 0; at < sizeof(stream) - 1; at += piece) {
            answer_logs_add(&l, str_sub(str_of(stream, sizeof(stream) - 1), at, piece), &out);
        }
        assert_string_equal(buf_cstr(&out), "outerr\n");
        assert_false(l.broken);
        answer_logs_add(&l, STR("\7\0\0\0\0\0\0\1x"), &out);
        assert_true(l.broken);
        assert_string_equal(buf_cstr(&out), "outerr\n");
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_versions_of_the_api_are_read),
        cmocka_unit_test(an_error_is_one_line_whatever_it_is),
        cmocka_unit_test_setup_teardown(ids_that_would_lead_elsewhere_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(an_image_says_how_it_wants_to_be_run, setup, teardown),
        cmocka_unit_test_setup_teardown(an_image_may_say_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_container_says_how_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(a_list_says_whose_each_is, setup, teardown),
        cmocka_unit_test(a_pull_fails_by_what_its_lines_say),
        cmocka_unit_test(a_line_too_long_is_passed_over),
        cmocka_unit_test(logs_come_in_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
