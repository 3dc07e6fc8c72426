/* Keys, requests and certificates. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/cert.h"
#include "common/limits.h"
#include "common/os.h"
#include "tests/kit/authority.h"

#define HOUR_MS 3600000

static struct authority ca;

static int set_up(void **state)
{
    authority_make(&ca);
    return 0;
}

static int tear_down(void **state)
{
    authority_release(&ca);
    return 0;
}

static void a_certificate_says_what_was_ordered(void **state)
{
    struct buf key = BUF_INIT, request = BUF_INIT, cert = BUF_INIT;
    const char *const names[] = {"broker.example", "10.1.2.3", "::1"};
    struct cert_order order = {.use = CERT_SERVER,
                               .label = "broker",
                               .names = names,
                               .name_count = 3,
                               .from_ms = 1700000000000,
                               .until_ms = 1800000000000};
    struct cert_facts f;
    uint8_t key_hash[SHA256_BYTES];

    cert_new_serial(order.serial);
    cert_make_key(&key);
    assert_int_equal(cert_make_request(buf_str(&key), "me", &request), 0);
    assert_int_equal(cert_check_request(buf_str(&request), key_hash), 0);
    assert_int_equal(
        cert_issue(buf_str(&ca.cert), buf_str(&ca.key), buf_str(&request), &order, &cert), 0);
    assert_int_equal(cert_read(buf_str(&cert), &f), 0);
    assert_memory_equal(f.serial, order.serial, CERT_SERIAL_BYTES);
    assert_memory_equal(f.key_hash, key_hash, SHA256_BYTES);
    assert_int_equal(f.from_ms, order.from_ms);
    assert_int_equal(f.until_ms, order.until_ms);
    assert_true(cert_has_key(buf_str(&cert), buf_str(&key)));
    assert_true(cert_is_by(buf_str(&cert), buf_str(&ca.cert)));
    for (size_t i = 0; i < 3; i++) {
        assert_true(cert_is_for(buf_str(&cert), names[i]));
    }
    assert_false(cert_is_for(buf_str(&cert), "10.1.2.4"));
    assert_false(cert_is_for(buf_str(&cert), "example"));
    assert_false(cert_is_for(buf_str(&cert), "broker"));
    buf_release(&key);
    buf_release(&request);
    buf_release(&cert);
}

static void a_name_brings_no_other_names_along(void **state)
{
    struct buf key = BUF_INIT, request = BUF_INIT, cert = BUF_INIT;
    const char *const names[] = {"a.example,DNS:b.example"};
    struct cert_order order = {.use = CERT_SERVER,
                               .label = "x/CN=y",
                               .names = names,
                               .name_count = 1,
                               .until_ms = 1800000000000};

    cert_new_serial(order.serial);
    cert_make_key(&key);
    assert_int_equal(cert_make_request(buf_str(&key), "me", &request), 0);
    assert_int_equal(
        cert_issue(buf_str(&ca.cert), buf_str(&ca.key), buf_str(&request), &order, &cert), 0);
    assert_false(cert_is_for(buf_str(&cert), "b.example"));
    assert_false(cert_is_for(buf_str(&cert), "a.example"));
    buf_release(&key);
    buf_release(&request);
    buf_release(&cert);
}

static void labels_are_cut_between_characters(void **state)
{
    struct holder h;
    char label[256];

    memset(label, 'a', sizeof(label));
    memcpy(label + 63, "\xC3\xA4\xC3\xA4", 4); /* the limit of 64 lies within one */
    label[200] = '\0';
    authority_certify(&ca, CERT_CLIENT, label, HOUR_MS, &h);
    holder_release(&h);
}

static void serials_differ_and_are_positive(void **state)
{
    uint8_t a[CERT_SERIAL_BYTES], b[CERT_SERIAL_BYTES];

    for (int i = 0; i < 1000; i++) {
        cert_new_serial(a);
        cert_new_serial(b);
        assert_memory_not_equal(a, b, CERT_SERIAL_BYTES);
        assert_int_equal(a[0] & 0xC0, 0x40);
    }
}

static void what_is_no_request_is_refused(void **state)
{
    struct buf key = BUF_INIT, request = BUF_INIT;
    size_t same = 0;
    uint8_t hash[SHA256_BYTES], good[SHA256_BYTES];

    cert_make_key(&key);
    assert_int_equal(cert_make_request(buf_str(&key), "me", &request), 0);
    assert_int_equal(cert_check_request(buf_str(&request), good), 0);
    assert_int_equal(cert_check_request(STR_NULL, hash), -E_INVALID);
    assert_int_equal(cert_check_request(STR("hello"), hash), -E_INVALID);
    assert_int_equal(cert_check_request(buf_str(&key), hash), -E_INVALID);
    assert_int_equal(cert_check_request(buf_str(&ca.cert), hash), -E_INVALID);
    for (size_t i = 0; i < request.n; i++) { /* a flipped bit, but in what means nothing */
        request.p[i] ^= 1;
        if (cert_check_request(buf_str(&request), hash) == 0) {
            assert_memory_equal(hash, good, sizeof(good));
            same++;
        }
        request.p[i] ^= 1;
    }
    assert_true(same < 12);
    char *huge = xcalloc(1, 100000);
    memset(huge, 'A', 100000);
    assert_int_equal(cert_check_request(str_of(huge, 100000), hash), -E_INVALID);
    free(huge);
    buf_release(&key);
    buf_release(&request);
}

static void keys_of_another_kind_are_not_certified(void **state)
{
    EVP_PKEY *const keys[] = {EVP_RSA_gen(2048), EVP_EC_gen("P-384"),
                              EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};
    uint8_t hash[SHA256_BYTES];
    char *pem;

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        X509_REQ *request = X509_REQ_new();
        BIO *bio = BIO_new(BIO_s_mem());
        assert_int_equal(X509_REQ_set_pubkey(request, keys[i]), 1);
        assert_true(X509_REQ_sign(request, keys[i], i == 2 ? NULL : EVP_sha256()) > 0);
        assert_int_equal(PEM_write_bio_X509_REQ(bio, request), 1);
        long n = BIO_get_mem_data(bio, &pem);
        assert_int_equal(cert_check_request(str_of(pem, (size_t)n), hash), -E_INVALID);
        BIO_free(bio);
        X509_REQ_free(request);
        EVP_PKEY_free(keys[i]);
    }
}

static void what_does_not_belong_together_is_seen(void **state)
{
    struct authority other;
    struct holder a, b;

    authority_make(&other);
    authority_certify(&ca, CERT_CLIENT, "a", HOUR_MS, &a);
    authority_certify(&other, CERT_CLIENT, "b", HOUR_MS, &b);
    assert_false(cert_has_key(buf_str(&a.cert), buf_str(&b.key)));
    assert_false(cert_is_by(buf_str(&a.cert), buf_str(&other.cert)));
    assert_true(cert_is_by(buf_str(&b.cert), buf_str(&other.cert)));
    assert_true(cert_is_by(buf_str(&ca.cert), buf_str(&ca.cert)));
    assert_int_equal(cert_read(buf_str(&a.key), &a.facts), -E_INVALID);
    holder_release(&a);
    holder_release(&b);
    authority_release(&other);
}

/* What is said of a chain and a key; "" where they can be shown. */
static const char *said_of(const struct buf *chain, const struct buf *key, uint64_t now_ms,
                           enum cert_part part)
{
    static struct buf why = BUF_INIT;
    enum cert_part said = CERT_PART_CHAIN;
    uint64_t until_ms = 1;

    buf_release(&why);
    int r = cert_check_chain(buf_str(chain), buf_str(key), now_ms, &until_ms, &said, &why);
    assert_int_equal(r, why.n > 0 ? -E_INVALID : 0);
    assert_true(r < 0 ? until_ms == 1 : until_ms > now_ms);
    if (r < 0) {
        assert_int_equal(said, part);
    }
    return buf_cstr(&why);
}

static void a_chain_for_a_server_is_checked(void **state)
{
    const uint64_t now_ms = os_realtime_ms();
    struct holder server, other, worker;
    struct buf chain = BUF_INIT;

    authority_certify(&ca, CERT_SERVER, "server", HOUR_MS, &server);
    authority_certify(&ca, CERT_SERVER, "other", HOUR_MS, &other);
    authority_certify(&ca, CERT_CLIENT, "worker", HOUR_MS, &worker);
    buf_add_str(&chain, buf_str(&server.cert));
    assert_string_equal(said_of(&chain, &server.key, now_ms, 0), "");
    assert_string_equal(said_of(&chain, &other.key, now_ms, CERT_PART_KEY),
                        "the key is not that of the certificate");
    assert_non_null(strstr(said_of(&chain, &chain, now_ms, CERT_PART_KEY), "no private key"));
    assert_non_null(
        strstr(said_of(&server.key, &server.key, now_ms, CERT_PART_CHAIN), "no certificate in it"));
    assert_non_null(strstr(said_of(&worker.cert, &worker.key, now_ms, CERT_PART_CHAIN),
                           "not one for a server"));
    assert_non_null(strstr(said_of(&chain, &server.key, now_ms + 2 * HOUR_MS, CERT_PART_CHAIN),
                           "a certificate ended 20"));
    assert_non_null(strstr(said_of(&chain, &server.key, now_ms - 48 * HOUR_MS, CERT_PART_CHAIN),
                           "good only from 20"));
    buf_add_str(&chain, buf_str(&ca.cert));
    assert_string_equal(said_of(&chain, &server.key, now_ms, 0), "");
    buf_add_str(&chain, buf_str(&other.cert));
    assert_non_null(strstr(said_of(&chain, &server.key, now_ms, CERT_PART_CHAIN),
                           "certificate 3 has not certified the one before it"));
    buf_truncate(&chain, chain.n - 100);
    assert_non_null(
        strstr(said_of(&chain, &server.key, now_ms, CERT_PART_CHAIN), "certificate 3 is damaged"));
    buf_clear(&chain);
    buf_add_str(&chain, buf_str(&server.cert));
    for (unsigned i = 0; i < LIMIT_CERT_CHAIN; i++) {
        buf_add_str(&chain, buf_str(&ca.cert));
    }
    assert_non_null(
        strstr(said_of(&chain, &server.key, now_ms, CERT_PART_CHAIN), "more than 8 certificates"));
    (void)said_of(&server.cert, &server.key, now_ms, 0); /* and gives the text back */
    buf_release(&chain);
    holder_release(&server);
    holder_release(&other);
    holder_release(&worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_certificate_says_what_was_ordered),
        cmocka_unit_test(a_name_brings_no_other_names_along),
        cmocka_unit_test(labels_are_cut_between_characters),
        cmocka_unit_test(serials_differ_and_are_positive),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(keys_of_another_kind_are_not_certified),
        cmocka_unit_test(what_does_not_belong_together_is_seen),
        cmocka_unit_test(a_chain_for_a_server_is_checked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
