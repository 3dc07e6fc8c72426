#include "common/base.h"

#include "broker/vault/signer.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#include "common/crypto.h"
#include "common/os.h"

#define KEY_BITS       2048
#define KEY_FILE_LIMIT 65536u
#define KEY_ID_CHARS   43u /* of 32 bytes in base64url */

struct signer {
    EVP_PKEY *key;
    char *modulus;  /* base64url, heap */
    char *exponent; /* likewise */
    char key_id[KEY_ID_CHARS + 1];
};

/* base64url without padding: the alphabet that a URL and a header can hold. */
static void add_base64url(struct str bytes, struct buf *out)
{
    size_t from = out->n;
    crypto_to_base64(bytes, out);
    while (out->n > from && out->p[out->n - 1] == '=') {
        buf_truncate(out, out->n - 1);
    }
    for (size_t i = from; i < out->n; i++) {
        out->p[i] = (char)(out->p[i] == '+' ? '-' : out->p[i] == '/' ? '_' : out->p[i]);
    }
}

/* One number of the public key, heap. */
static char *public_number(const EVP_PKEY *key, const char *name)
{
    struct buf text = BUF_INIT;
    BIGNUM *number = NULL;
    check(EVP_PKEY_get_bn_param(key, name, &number) == 1);
    size_t n = (size_t)BN_num_bytes(number);
    uint8_t *bytes = xmalloc(n);
    BN_bn2bin(number, bytes);
    add_base64url(str_of(bytes, n), &text);
    free(bytes);
    BN_free(number);
    return buf_take(&text);
}

/* The hash of the required members in the order of their names, without blanks. */
static void set_key_id(struct signer *s)
{
    struct buf text = BUF_INIT;
    uint8_t hash[SHA256_BYTES];
    buf_addf(&text, "{\"e\":\"%s\",\"kty\":\"RSA\",\"n\":\"%s\"}", s->exponent, s->modulus);
    crypto_sha256(text.p, text.n, hash);
    buf_clear(&text);
    add_base64url(str_of(hash, sizeof(hash)), &text);
    check(text.n == KEY_ID_CHARS);
    memcpy(s->key_id, text.p, KEY_ID_CHARS);
    buf_release(&text);
}

static struct signer *signer_new(EVP_PKEY *key)
{
    struct signer *s = xcalloc(1, sizeof(*s));
    s->key = key;
    s->modulus = public_number(key, OSSL_PKEY_PARAM_RSA_N);
    s->exponent = public_number(key, OSSL_PKEY_PARAM_RSA_E);
    set_key_id(s);
    return s;
}

/* NULL: it is none. */
static EVP_PKEY *key_from_pem(struct str pem)
{
    BIO *bio = BIO_new_mem_buf(pem.p != NULL ? pem.p : "", (int)pem.n);
    check(bio != NULL);
    /* An empty passphrase, so that nobody is asked for one at a terminal. */
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"");
    BIO_free(bio);
    if (key != NULL && (!EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_get_bits(key) < KEY_BITS)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

static int write_key(EVP_PKEY *key, const char *path)
{
    char *pem;
    BIO *bio = BIO_new(BIO_s_secmem());
    check(bio != NULL && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    long n = BIO_get_mem_data(bio, &pem);
    int r = os_write_file(path, pem, (size_t)n, 0600);
    BIO_free(bio);
    return r;
}

static int make_key(const char *path, EVP_PKEY **ret, struct buf *why)
{
    EVP_PKEY *key = EVP_RSA_gen(KEY_BITS);
    check(key != NULL);
    int r = write_key(key, path);
    if (r < 0) {
        buf_addf(why, "cannot write %s: %s", path, err_text(r));
        EVP_PKEY_free(key);
        return r;
    }
    *ret = key;
    return 0;
}

int signer_open(const char *path, struct signer **ret, struct buf *why)
{
    struct buf pem = BUF_INIT;
    EVP_PKEY *key = NULL;
    int r = os_read_file(path, KEY_FILE_LIMIT, &pem);
    if (r == 0) {
        key = key_from_pem(buf_str(&pem));
        r = key != NULL ? 0 : -E_CORRUPT;
        crypto_wipe(pem.p, pem.n);
    } else if (r == -E_NOT_FOUND) {
        r = make_key(path, &key, why);
    }
    buf_release(&pem);
    if (r < 0) {
        if (why->n == 0) {
            buf_addf(why, "cannot read the key for id tokens in %s: %s", path, err_text(r));
        }
        return r;
    }
    *ret = signer_new(key);
    return 0;
}

void signer_close(struct signer *s)
{
    if (s == NULL) {
        return;
    }
    EVP_PKEY_free(s->key);
    free(s->modulus);
    free(s->exponent);
    free(s);
}

const char *signer_key_id(const struct signer *s)
{
    return s->key_id;
}

void signer_key_set(const struct signer *s, struct buf *out)
{
    buf_addf(out,
             "{\"keys\":[{\"kty\":\"RSA\",\"use\":\"sig\",\"alg\":\"RS256\",\"kid\":\"%s\","
             "\"e\":\"%s\",\"n\":\"%s\"}]}",
             s->key_id, s->exponent, s->modulus);
}

/* RSASSA-PKCS1-v1_5 with SHA-256. */
static void add_signature(const struct signer *s, struct str text, struct buf *out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t n = (size_t)EVP_PKEY_get_size(s->key);
    uint8_t *signature = xmalloc(n);
    check(ctx != NULL && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, s->key) == 1);
    check(EVP_DigestSign(ctx, signature, &n, (const uint8_t *)text.p, text.n) == 1);
    add_base64url(str_of(signature, n), out);
    free(signature);
    EVP_MD_CTX_free(ctx);
}

void signer_sign(const struct signer *s, struct str claims, struct buf *out)
{
    struct buf text = BUF_INIT;
    struct buf token = BUF_INIT;
    buf_addf(&text, "{\"alg\":\"RS256\",\"kid\":\"%s\",\"typ\":\"JWT\"}", s->key_id);
    add_base64url(buf_str(&text), &token);
    buf_add_char(&token, '.');
    add_base64url(claims, &token);
    struct str said = buf_str(&token);
    struct buf signature = BUF_INIT;
    add_signature(s, said, &signature);
    buf_add_char(&token, '.');
    buf_add_str(&token, buf_str(&signature));
    buf_add_str(out, buf_str(&token));
    buf_release(&signature);
    buf_release(&token);
    buf_release(&text);
}
