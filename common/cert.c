#include "common/base.h"

#include "common/cert.h"

#include <arpa/inet.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#include "common/limits.h"
#include "common/os.h"

#define LABEL_MAX 64u /* ub-common-name of RFC 5280 */
#define CURVE     "P-256"

/* --- text to objects and back --- */

static BIO *reader(struct str pem)
{
    BIO *bio = pem.n <= CERT_PEM_MAX ? BIO_new_mem_buf(pem.n > 0 ? pem.p : "", (int)pem.n) : NULL;

    check(bio != NULL || pem.n > CERT_PEM_MAX);
    return bio;
}

/* An empty passphrase, so that nobody is asked for one at a terminal. */
static EVP_PKEY *read_key(struct str pem)
{
    BIO *bio = reader(pem);
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;

    BIO_free(bio);
    ERR_clear_error();
    return key;
}

static X509 *read_cert(struct str pem)
{
    BIO *bio = reader(pem);
    X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, (void *)"") : NULL;

    BIO_free(bio);
    ERR_clear_error();
    return cert;
}

static X509_REQ *read_request(struct str pem)
{
    BIO *bio = reader(pem);
    X509_REQ *request = bio != NULL ? PEM_read_bio_X509_REQ(bio, NULL, NULL, (void *)"") : NULL;

    BIO_free(bio);
    ERR_clear_error();
    return request;
}

static void take(BIO *bio, struct buf *out)
{
    char *p;
    long n = BIO_get_mem_data(bio, &p);

    buf_add(out, p, (size_t)n);
    BIO_free(bio);
}

static void write_cert(X509 *cert, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_mem());

    check(bio != NULL && PEM_write_bio_X509(bio, cert) == 1);
    take(bio, out);
}

/* --- keys and requests --- */

void cert_new_serial(uint8_t ret[CERT_SERIAL_BYTES])
{
    os_random(ret, CERT_SERIAL_BYTES);
    ret[0] = (ret[0] & 0x7F) | 0x40; /* positive, and always of the same length */
}

void cert_make_key(struct buf *ret_pem)
{
    EVP_PKEY *key = EVP_EC_gen(CURVE);
    BIO *bio = BIO_new(BIO_s_secmem());

    check(key != NULL && bio != NULL);
    check(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    take(bio, ret_pem);
    EVP_PKEY_free(key);
}

/* A name within what X.509 allows, cut between characters. */
static void set_name(X509_NAME *name, const char *label)
{
    struct str text = str_from(label);
    size_t n = MIN(text.n, LABEL_MAX);

    while (n > 0 && n < text.n && ((uint8_t)text.p[n] & 0xC0) == 0x80) {
        n--;
    }
    check(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const uint8_t *)text.p, (int)n, -1,
                                     0) == 1);
}

int cert_make_request(struct str key_pem, const char *label, struct buf *ret_pem)
{
    EVP_PKEY *key = read_key(key_pem);

    if (key == NULL) {
        return -E_INVALID;
    }
    X509_REQ *request = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    check(request != NULL && bio != NULL);
    set_name(X509_REQ_get_subject_name(request), label);
    check(X509_REQ_set_pubkey(request, key) == 1);
    check(X509_REQ_sign(request, key, EVP_sha256()) > 0);
    check(PEM_write_bio_X509_REQ(bio, request) == 1);
    take(bio, ret_pem);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
    return 0;
}

static bool is_our_kind(EVP_PKEY *key)
{
    char group[32];
    size_t n;

    return key != NULL && EVP_PKEY_is_a(key, "EC") &&
           EVP_PKEY_get_group_name(key, group, sizeof(group), &n) == 1 &&
           (strcmp(group, "prime256v1") == 0 || strcmp(group, CURVE) == 0);
}

static void hash_key(X509_PUBKEY *key, uint8_t ret[SHA256_BYTES])
{
    uint8_t *der = NULL;
    int n = i2d_X509_PUBKEY(key, &der);

    check(n > 0);
    crypto_sha256(der, (size_t)n, ret);
    OPENSSL_free(der);
}

/* NULL: it is no request that we certify. */
static X509_REQ *read_good_request(struct str pem)
{
    X509_REQ *request = read_request(pem);
    EVP_PKEY *key = request != NULL ? X509_REQ_get0_pubkey(request) : NULL;

    if (request != NULL && (!is_our_kind(key) || X509_REQ_verify(request, key) != 1)) {
        X509_REQ_free(request);
        request = NULL;
    }
    ERR_clear_error();
    return request;
}

int cert_check_request(struct str request_pem, uint8_t ret_key_hash[SHA256_BYTES])
{
    X509_REQ *request = read_good_request(request_pem);

    if (request == NULL) {
        return -E_INVALID;
    }
    hash_key(X509_REQ_get_X509_PUBKEY(request), ret_key_hash);
    X509_REQ_free(request);
    return 0;
}

/* --- certificates --- */

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    check(extension != NULL && X509_add_ext(cert, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static GENERAL_NAME *general_name(const char *name)
{
    GENERAL_NAME *entry = GENERAL_NAME_new();
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(name);

    check(entry != NULL);
    if (address != NULL) {
        GENERAL_NAME_set0_value(entry, GEN_IPADD, address);
    } else {
        ASN1_IA5STRING *host = ASN1_IA5STRING_new();
        check(host != NULL && ASN1_STRING_set(host, name, -1) == 1);
        GENERAL_NAME_set0_value(entry, GEN_DNS, host);
    }
    ERR_clear_error();
    return entry;
}

/* Made by hand, not from a line of text: a name must not be able to bring others along. */
static void add_names(X509 *cert, const struct cert_order *order)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();

    check(names != NULL && order->name_count <= LIMIT_CERT_NAMES);
    for (size_t i = 0; i < order->name_count; i++) {
        check(sk_GENERAL_NAME_push(names, general_name(order->names[i])) > 0);
    }
    check(X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1);
    GENERAL_NAMES_free(names);
}

static void add_use(X509 *cert, X509 *issuer, const struct cert_order *order)
{
    if (order->use == CERT_AUTHORITY) {
        add_extension(cert, issuer, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
        add_extension(cert, issuer, NID_key_usage, "critical,keyCertSign,cRLSign");
    } else {
        add_extension(cert, issuer, NID_basic_constraints, "critical,CA:FALSE");
        add_extension(cert, issuer, NID_key_usage, "critical,digitalSignature");
        add_extension(cert, issuer, NID_ext_key_usage,
                      order->use == CERT_SERVER ? "serverAuth" : "clientAuth");
    }
    add_extension(cert, issuer, NID_subject_key_identifier, "hash");
    if (order->use != CERT_AUTHORITY) {
        add_extension(cert, issuer, NID_authority_key_identifier, "keyid:always");
    }
    if (order->name_count > 0) {
        add_names(cert, order);
    }
}

static void set_times(X509 *cert, const struct cert_order *order)
{
    check(ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)(order->from_ms / 1000)) != NULL);
    check(ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)(order->until_ms / 1000)) != NULL);
}

/* `issuer` NULL: itself. */
static X509 *make_cert(const struct cert_order *order, EVP_PKEY *subject_key, X509 *issuer,
                       EVP_PKEY *issuer_key)
{
    X509 *cert = X509_new();
    BIGNUM *serial = BN_bin2bn(order->serial, CERT_SERIAL_BYTES, NULL);

    check(cert != NULL && serial != NULL);
    check(X509_set_version(cert, X509_VERSION_3) == 1);
    check(BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(cert)) != NULL);
    BN_free(serial);
    set_times(cert, order);
    set_name(X509_get_subject_name(cert), order->label);
    check(X509_set_issuer_name(cert, X509_get_subject_name(issuer != NULL ? issuer : cert)) == 1);
    check(X509_set_pubkey(cert, subject_key) == 1);
    add_use(cert, issuer != NULL ? issuer : cert, order);
    check(X509_sign(cert, issuer_key, EVP_sha256()) > 0);
    return cert;
}

int cert_make_authority(struct str key_pem, const struct cert_order *order, struct buf *ret_pem)
{
    EVP_PKEY *key = read_key(key_pem);

    check(order->use == CERT_AUTHORITY);
    if (key == NULL) {
        return -E_INVALID;
    }
    X509 *cert = make_cert(order, key, NULL, key);
    write_cert(cert, ret_pem);
    X509_free(cert);
    EVP_PKEY_free(key);
    return 0;
}

int cert_issue(struct str ca_pem, struct str ca_key_pem, struct str request_pem,
               const struct cert_order *order, struct buf *ret_pem)
{
    X509 *ca = read_cert(ca_pem);
    EVP_PKEY *ca_key = read_key(ca_key_pem);
    X509_REQ *request = read_good_request(request_pem);
    int r = -E_INVALID;

    check(order->use != CERT_AUTHORITY);
    if (ca != NULL && ca_key != NULL && request != NULL) {
        X509 *cert = make_cert(order, X509_REQ_get0_pubkey(request), ca, ca_key);
        write_cert(cert, ret_pem);
        X509_free(cert);
        r = 0;
    }
    X509_REQ_free(request);
    EVP_PKEY_free(ca_key);
    X509_free(ca);
    return r;
}

/* --- reading --- */

static bool read_time(const ASN1_TIME *t, uint64_t *ret_ms)
{
    struct tm tm;

    if (ASN1_TIME_to_tm(t, &tm) != 1) {
        return false;
    }
    time_t s = timegm(&tm);
    *ret_ms = s < 0 ? 0 : (uint64_t)s * 1000;
    return true;
}

static bool read_serial(const X509 *cert, uint8_t ret[CERT_SERIAL_BYTES])
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    bool fits = number != NULL && !BN_is_negative(number) &&
                BN_bn2binpad(number, ret, CERT_SERIAL_BYTES) == (int)CERT_SERIAL_BYTES;

    BN_free(number);
    return fits;
}

static bool read_facts(X509 *cert, struct cert_facts *f)
{
    unsigned n = 0;

    hash_key(X509_get_X509_PUBKEY(cert), f->key_hash);
    return read_serial(cert, f->serial) && X509_digest(cert, EVP_sha256(), f->hash, &n) == 1 &&
           n == SHA256_BYTES && read_time(X509_get0_notBefore(cert), &f->from_ms) &&
           read_time(X509_get0_notAfter(cert), &f->until_ms);
}

int cert_read(struct str cert_pem, struct cert_facts *ret)
{
    X509 *cert = read_cert(cert_pem);
    struct cert_facts facts;
    bool good = cert != NULL && read_facts(cert, &facts);

    X509_free(cert);
    ERR_clear_error();
    if (!good) {
        return -E_INVALID;
    }
    *ret = facts;
    return 0;
}

bool cert_has_key(struct str cert_pem, struct str key_pem)
{
    X509 *cert = read_cert(cert_pem);
    EVP_PKEY *key = read_key(key_pem);
    bool fits = cert != NULL && key != NULL && X509_check_private_key(cert, key) == 1;

    EVP_PKEY_free(key);
    X509_free(cert);
    ERR_clear_error();
    return fits;
}

bool cert_is_by(struct str cert_pem, struct str ca_pem)
{
    X509 *cert = read_cert(cert_pem);
    X509 *ca = read_cert(ca_pem);
    bool fits = cert != NULL && ca != NULL && X509_verify(cert, X509_get0_pubkey(ca)) == 1;

    X509_free(ca);
    X509_free(cert);
    ERR_clear_error();
    return fits;
}

bool cert_is_for(struct str cert_pem, const char *name)
{
    X509 *cert = read_cert(cert_pem);
    struct in6_addr any;
    bool is_address = inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1;
    bool fits = cert != NULL && (is_address ? X509_check_ip_asc(cert, name, 0) == 1
                                            : X509_check_host(cert, name, 0, 0, NULL) == 1);

    X509_free(cert);
    ERR_clear_error();
    return fits;
}

/* --- what others have certified --- */

static void add_time(struct buf *out, uint64_t ms)
{
    char text[32];

    buf_addz(out, str_time(ms, text, sizeof(text)));
}

static bool check_span(X509 *cert, uint64_t now_ms, uint64_t *until_ms, struct buf *why)
{
    uint64_t from, until;

    if (!read_time(X509_get0_notBefore(cert), &from) ||
        !read_time(X509_get0_notAfter(cert), &until)) {
        buf_addz(why, "a certificate has no dates");
        return false;
    }
    if (now_ms < from || now_ms > until) {
        buf_addz(why, now_ms < from ? "a certificate is good only from " : "a certificate ended ");
        add_time(why, now_ms < from ? from : until);
        return false;
    }
    *until_ms = MIN(*until_ms, until);
    return true;
}

/* Reads all of them and gives back the first; NULL with why. */
static X509 *read_chain(struct str pem, uint64_t now_ms, uint64_t *until_ms, struct buf *why)
{
    BIO *bio = BIO_new_mem_buf(pem.n > 0 ? pem.p : "", (int)pem.n);
    X509 *first = NULL, *cert;
    X509 *last = NULL; /* a second hold of it */
    size_t count = 0;
    bool good = true;

    check(bio != NULL);
    while (good && (cert = PEM_read_bio_X509(bio, NULL, NULL, (void *)"")) != NULL) {
        count++;
        if (count > LIMIT_CERT_CHAIN) {
            buf_addf(why, "it has more than %u certificates", LIMIT_CERT_CHAIN);
            good = false;
        } else if (last != NULL && X509_verify(last, X509_get0_pubkey(cert)) != 1) {
            buf_addf(why,
                     "certificate %zu has not certified the one before it: the server's own goes "
                     "first, then each one's issuer",
                     count);
            good = false;
        }
        good = good && check_span(cert, now_ms, until_ms, why);
        X509_free(last);
        last = cert;
        if (first == NULL) {
            X509_up_ref(cert);
            first = cert;
        }
    }
    if (good && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
        buf_addf(why, "certificate %zu is damaged", count + 1);
        good = false;
    } else if (good && count == 0) {
        buf_addz(why, "there is no certificate in it (PEM)");
        good = false;
    }
    X509_free(last);
    BIO_free(bio);
    ERR_clear_error();
    if (!good) {
        X509_free(first);
        first = NULL;
    }
    return first;
}

int cert_check_chain(struct str chain_pem, struct str key_pem, uint64_t now_ms,
                     uint64_t *ret_until_ms, enum cert_part *ret_part, struct buf *why)
{
    uint64_t until_ms = UINT64_MAX;
    X509 *cert = read_chain(chain_pem, now_ms, &until_ms, why);
    EVP_PKEY *key = cert != NULL ? read_key(key_pem) : NULL;
    bool good = false;

    *ret_part = cert == NULL ? CERT_PART_CHAIN : CERT_PART_KEY;
    if (cert != NULL && key == NULL) {
        buf_addz(why, "there is no private key in it (PEM, not encrypted)");
    } else if (cert != NULL && X509_check_private_key(cert, key) != 1) {
        buf_addz(why, "the key is not that of the certificate");
    } else if (cert != NULL && X509_check_purpose(cert, X509_PURPOSE_SSL_SERVER, 0) != 1) {
        buf_addz(why, "the certificate is not one for a server");
        *ret_part = CERT_PART_CHAIN;
    } else {
        good = cert != NULL;
    }
    EVP_PKEY_free(key);
    X509_free(cert);
    ERR_clear_error();
    if (!good) {
        return -E_INVALID;
    }
    *ret_until_ms = until_ms;
    return 0;
}
