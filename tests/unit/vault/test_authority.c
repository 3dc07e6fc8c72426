/* The certificate authority in its folder: made once, gone on with, renewed in time. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/vault/authority.h"
#include "common/os.h"

#define DAY_MS (24ull * 3600 * 1000)

static char *dir;

static int set_up(void **state)
{
    dir = os_make_temp_dir("davit-authority");
    return dir != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    int r = os_remove_tree(dir);

    free(dir);
    return r;
}

static int open_with(const char *const *names, size_t count, struct authority **ret,
                     struct buf *why)
{
    const struct authority_config c = {.dir = dir,
                                       .names = names,
                                       .name_count = count,
                                       .worker_life_ms = 30 * DAY_MS,
                                       .server_life_ms = 90 * DAY_MS};
    return authority_open(&c, ret, why);
}

static struct authority *open_for(const char *name)
{
    const char *names[] = {"localhost", name};
    struct buf why = BUF_INIT;
    struct authority *a;

    assert_int_equal(open_with(names, 2, &a, &why), 0);
    assert_int_equal(why.n, 0);
    return a;
}

static struct cert_facts server_facts(struct authority *a)
{
    struct buf cert = BUF_INIT, key = BUF_INIT;
    struct cert_facts f;

    authority_server(a, &cert, &key);
    assert_int_equal(cert_read(buf_str(&cert), &f), 0);
    assert_true(cert_has_key(buf_str(&cert), buf_str(&key)));
    assert_true(cert_is_by(buf_str(&cert), authority_certificate(a)));
    buf_release(&cert);
    buf_release(&key);
    return f;
}

static bool is_server_for(struct authority *a, const char *name)
{
    struct buf cert = BUF_INIT, key = BUF_INIT;

    authority_server(a, &cert, &key);
    bool is = cert_is_for(buf_str(&cert), name);
    buf_release(&cert);
    buf_release(&key);
    return is;
}

static void remove_file(const char *name)
{
    char *path = os_path_join(dir, name);

    assert_int_equal(unlink(path), 0);
    free(path);
}

static void a_start_goes_on_with_what_is_there(void **state)
{
    static const char *const files[] = {"ca.key", "ca.pem", "server.pem"};
    struct authority *a = open_for("a.example");
    char *pin = xstrdup(authority_pin(a));
    struct cert_facts before = server_facts(a);

    authority_close(a);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct stat st;
        char *path = os_path_join(dir, files[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        free(path);
    }
    a = open_for("a.example");
    assert_string_equal(authority_pin(a), pin);
    struct cert_facts after = server_facts(a);
    assert_memory_equal(after.serial, before.serial, CERT_SERIAL_BYTES);
    authority_close(a);
    free(pin);
}

static void other_names_want_another_certificate_of_the_same_authority(void **state)
{
    struct authority *a = open_for("a.example");
    char *pin = xstrdup(authority_pin(a));

    assert_true(is_server_for(a, "a.example"));
    assert_false(is_server_for(a, "10.0.0.7"));
    authority_close(a);
    a = open_for("10.0.0.7");
    assert_true(is_server_for(a, "10.0.0.7"));
    assert_string_equal(authority_pin(a), pin);
    authority_close(a);
    free(pin);
}

static void a_start_that_was_cut_off_is_finished(void **state)
{
    struct authority *a = open_for("a.example");

    authority_close(a);
    remove_file("ca.pem"); /* the key was written, and no more */
    remove_file("server.pem");
    a = open_for("a.example");
    (void)server_facts(a);
    authority_close(a);
}

static void nothing_is_made_in_place_of_what_is_damaged(void **state)
{
    const char *names[] = {"localhost"};
    struct buf why = BUF_INIT;
    struct authority *a = open_for("a.example");
    char *path = os_path_join(dir, "ca.key");
    struct buf key = BUF_INIT;

    authority_close(a);
    remove_file("ca.key"); /* a certificate without its key */
    assert_int_equal(open_with(names, 1, &a, &why), -E_CORRUPT);
    assert_non_null(strstr(buf_cstr(&why), "do not belong together"));
    buf_clear(&why);
    cert_make_key(&key); /* with another's */
    assert_int_equal(os_write_file(path, key.p, key.n, 0600), 0);
    assert_int_equal(open_with(names, 1, &a, &why), -E_CORRUPT);
    buf_clear(&why);
    assert_int_equal(os_write_file(path, "hello", 5, 0600), 0);
    assert_int_equal(open_with(names, 1, &a, &why), -E_CORRUPT);
    buf_release(&key);
    buf_release(&why);
    free(path);
}

static void the_server_is_certified_anew_in_time(void **state)
{
    struct authority *a = open_for("a.example");
    struct buf why = BUF_INIT;
    uint64_t now_ms = os_realtime_ms();
    struct cert_facts before = server_facts(a);
    uint64_t serial = authority_serial(a);

    assert_int_equal(authority_tend(a, now_ms + 59 * DAY_MS, &why), 0);
    assert_int_equal(authority_serial(a), serial);
    assert_int_equal(authority_tend(a, now_ms + 61 * DAY_MS, &why), 1);
    assert_int_equal(authority_serial(a), serial + 1);
    struct cert_facts after = server_facts(a);
    assert_memory_not_equal(after.serial, before.serial, CERT_SERIAL_BYTES);
    assert_true(after.until_ms > before.until_ms + 60 * DAY_MS);
    assert_int_equal(authority_tend(a, now_ms + 62 * DAY_MS, &why), 0);
    authority_close(a);
    a = open_for("a.example"); /* it is on the disk */
    struct cert_facts again = server_facts(a);
    assert_memory_equal(again.serial, after.serial, CERT_SERIAL_BYTES);
    authority_close(a);
    buf_release(&why);
}

static void workers_are_certified_for_their_own_key(void **state)
{
    struct authority *a = open_for("a.example");
    struct buf key = BUF_INIT, request = BUF_INIT, cert = BUF_INIT;
    uint8_t serial[CERT_SERIAL_BYTES];
    uint64_t now_ms = os_realtime_ms();
    uint64_t until_ms = authority_worker_until_ms(a, now_ms);
    struct cert_facts f;

    cert_new_serial(serial);
    cert_make_key(&key);
    assert_int_equal(cert_make_request(buf_str(&key), "w", &request), 0);
    assert_int_equal(
        authority_certify_worker(a, buf_str(&request), "w", serial, now_ms, until_ms, &cert), 0);
    assert_int_equal(cert_read(buf_str(&cert), &f), 0);
    assert_memory_equal(f.serial, serial, CERT_SERIAL_BYTES);
    assert_int_equal(f.until_ms / 1000, until_ms / 1000);
    assert_true(f.from_ms < now_ms && now_ms - f.from_ms <= 2 * 3600 * 1000);
    assert_true(cert_has_key(buf_str(&cert), buf_str(&key)));
    assert_int_equal(
        authority_certify_worker(a, STR("hello"), "w", serial, now_ms, until_ms, &cert),
        -E_INVALID);
    /* Nobody outlives the authority. */
    assert_int_equal(authority_worker_until_ms(a, authority_until_ms(a)), authority_until_ms(a));
    authority_close(a);
    buf_release(&key);
    buf_release(&request);
    buf_release(&cert);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_start_goes_on_with_what_is_there),
        TEST(other_names_want_another_certificate_of_the_same_authority),
        TEST(a_start_that_was_cut_off_is_finished),
        TEST(nothing_is_made_in_place_of_what_is_damaged),
        TEST(the_server_is_certified_anew_in_time),
        TEST(workers_are_certified_for_their_own_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
