#include "common/base.h"

#include "common/address.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/un.h>

#include <cmocka.h>

static bool is_public(const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        return address_is_public((struct sockaddr *)&in);
    }
    assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
    return address_is_public((struct sockaddr *)&in6);
}

static void addresses_of_the_internet_are_public(void **state)
{
    static const char *const texts[] = {
        "1.1.1.1",     "9.255.255.255", "11.0.0.0",        "172.15.0.1",   "172.32.0.1",
        "192.167.1.1", "223.255.255.1", "2606:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        assert_true(is_public(texts[i]));
    }
}

static void addresses_of_machines_and_their_neighbours_are_not(void **state)
{
    static const char *const texts[] = {
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001::1",
        "2001:db8::1",
        "::127.0.0.1",
        "64:ff9b:1::a00:1",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        assert_false(is_public(texts[i]));
    }
}

static void what_is_no_internet_address_is_not(void **state)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    (void)state;
    assert_false(address_is_public((struct sockaddr *)&local));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_of_the_internet_are_public),
        cmocka_unit_test(addresses_of_machines_and_their_neighbours_are_not),
        cmocka_unit_test(what_is_no_internet_address_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
