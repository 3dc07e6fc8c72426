#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/address.h"

static void loopback_addresses_are_read_and_written(void **state)
{
    static const struct {
        const char *text;
        const struct address_schemes *schemes;
        const char *scheme;
        const char *host;
        uint16_t port;
        const char *url;
    } cases[] = {
        {"tcp://127.0.0.1:7070", &address_fleet, "tcp://", "127.0.0.1", 7070,
         "tcp://127.0.0.1:7070"},
        {"tcp://127.1.2.3:0", &address_fleet, "tcp://", "127.1.2.3", 0, "tcp://127.1.2.3:0"},
        {"tcp://[::1]:65535", &address_fleet, "tcp://", "::1", 65535, "tcp://[::1]:65535"},
        {"localhost:80", &address_http, "", "127.0.0.1", 80, "127.0.0.1:80"},
        {"http://localhost:80", &address_http, "", "127.0.0.1", 80, "127.0.0.1:80"},
        {"https://0.0.0.0:443", &address_http, "https://", "0.0.0.0", 443, "https://0.0.0.0:443"},
        {"tls://[2001:db8::1]:7", &address_fleet, "tls://", "2001:db8::1", 7,
         "tls://[2001:db8::1]:7"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct address a;
        struct buf why = BUF_INIT;
        struct buf url = BUF_INIT;
        assert_int_equal(address_parse(cases[i].text, cases[i].schemes, false, &a, &why), 0);
        assert_string_equal(a.host, cases[i].host);
        assert_int_equal(a.port, cases[i].port);
        assert_int_equal(a.tls, strchr(cases[i].scheme, 's') != NULL);
        address_url(&a, cases[i].scheme, NULL, &url);
        assert_string_equal(buf_cstr(&url), cases[i].url);
        buf_release(&url);
        buf_release(&why);
    }
}

static void beyond_loopback_without_tls_has_to_be_said(void **state)
{
    struct address a;
    struct buf why = BUF_INIT;

    assert_int_equal(address_parse("tcp://10.0.0.1:7070", &address_fleet, false, &a, &why),
                     -E_USAGE);
    assert_non_null(strstr(buf_cstr(&why), "--no-tls-beyond-loopback"));
    assert_int_equal(address_parse("tcp://10.0.0.1:7070", &address_fleet, true, &a, &why), 0);
    assert_false(a.tls);
    assert_int_equal(address_parse("10.0.0.1:80", &address_http, false, &a, &why), -E_USAGE);
    buf_release(&why);
}

static void everything_else_is_refused_with_a_reason(void **state)
{
    static const char *const cases[] = {
        "tcp://0.0.0.0:7070",  "tcp://10.0.0.1:7070",
        "tcp://[::]:7070",     "tcp://example.com:1",
        "tcp://128.0.0.1:1",   "tcp://127.0.0.1",
        "tcp://127.0.0.1:",    "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:-1",  "127.0.0.1:7070",
        "ipc:///tmp/x",        "tcp://",
        "tcp://:7070",         "",
        "tcp://127.0.0.1:1/x", "tcp://[127.0.0.1:1",
        "tcp://127.0.0.1.:80", "tcp://*:7070",
        "tls://example.com:1", "tls://",
        "https://127.0.0.1:1",
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct address a = {.port = 1};
        struct buf why = BUF_INIT;
        assert_int_equal(address_parse(cases[i], &address_fleet, false, &a, &why), -E_USAGE);
        assert_true(why.n > 0);
        assert_int_equal(a.port, 1);
        buf_release(&why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loopback_addresses_are_read_and_written),
        cmocka_unit_test(beyond_loopback_without_tls_has_to_be_said),
        cmocka_unit_test(everything_else_is_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
