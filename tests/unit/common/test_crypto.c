#include "common/base.h"

#include "common/crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_hex(const uint8_t *bytes, const char *expected)
{
    char hex[2 * SHA256_BYTES + 1];
    str_to_hex(bytes, SHA256_BYTES, hex);
    assert_string_equal(hex, expected);
}

static void test_sha256_of_the_standard(void **state)
{
    uint8_t digest[SHA256_BYTES];
    crypto_sha256("abc", 3, digest);
    assert_hex(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_sha256(NULL, 0, digest);
    assert_hex(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    struct sha256 *h = sha256_new();
    sha256_add(h, "a", 1);
    sha256_add(h, "bc", 2);
    sha256_end(h, digest);
    sha256_free(h);
    assert_hex(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_hmac_of_rfc_4231(void **state)
{
    uint8_t mac[SHA256_BYTES];
    crypto_hmac_sha256(STR("Jefe"), STR("what do ya want for nothing?"), mac);
    assert_hex(mac, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    crypto_hmac_sha256(STR_NULL, STR_NULL, mac);
    assert_hex(mac, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

/* Bit by bit, as the polynomial is defined. */
static uint32_t slow_crc32(const uint8_t *p, size_t n)
{
    uint32_t crc = ~0u;

    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

static void test_crc32_of_every_length_and_alignment(void **state)
{
    uint8_t bytes[80];

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 151 + 7);
    }
    for (size_t from = 0; from < 9; from++) {
        for (size_t n = 0; from + n <= sizeof(bytes); n++) {
            assert_int_equal(crypto_crc32(0, bytes + from, n), slow_crc32(bytes + from, n));
        }
    }
}

static void test_crc32_of_the_usual_check_string(void **state)
{
    assert_int_equal(crypto_crc32(0, "123456789", 9), 0xcbf43926);
    uint32_t half = crypto_crc32(0, "1234", 4);
    assert_int_equal(crypto_crc32(half, "56789", 5), 0xcbf43926);
    assert_int_equal(crypto_crc32(0, NULL, 0), 0);
}

static void test_tokens_are_long_and_never_the_same(void **state)
{
    char *a = crypto_token("dvt_");
    char *b = crypto_token("dvt_");
    assert_int_equal(strlen(a), 4 + 43);
    assert_int_equal(strncmp(a, "dvt_", 4), 0);
    assert_int_equal(strspn(a + 4, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                   "0123456789-_"),
                     43);
    assert_string_not_equal(a, b);
    free(a);
    free(b);
}

static void test_comparison_and_wiping(void **state)
{
    char secret[] = "secret";
    assert_true(crypto_equal("abc", "abc", 3));
    assert_false(crypto_equal("abc", "abd", 3));
    assert_true(crypto_equal("", "", 0));
    crypto_wipe(secret, sizeof(secret));
    assert_memory_equal(secret, "\0\0\0\0\0\0", sizeof(secret));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_of_the_standard),
        cmocka_unit_test(test_hmac_of_rfc_4231),
        cmocka_unit_test(test_crc32_of_the_usual_check_string),
        cmocka_unit_test(test_crc32_of_every_length_and_alignment),
        cmocka_unit_test(test_tokens_are_long_and_never_the_same),
        cmocka_unit_test(test_comparison_and_wiping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
