#include "common/base.h"

#include "common/crypto.h"
#include "common/os.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

struct sha256 {
    EVP_MD_CTX *ctx;
};

struct sha256 *sha256_new(void)
{
    struct sha256 *h = xcalloc(1, sizeof(*h));
    h->ctx = EVP_MD_CTX_new();
    check(h->ctx != NULL);
    check(EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) == 1);
    return h;
}

void sha256_add(struct sha256 *h, const void *p, size_t n)
{
    check(EVP_DigestUpdate(h->ctx, p, n) == 1);
}

void sha256_end(struct sha256 *h, uint8_t ret[SHA256_BYTES])
{
    unsigned n = 0;
    check(EVP_DigestFinal_ex(h->ctx, ret, &n) == 1 && n == SHA256_BYTES);
}

void sha256_free(struct sha256 *h)
{
    if (h != NULL) {
        EVP_MD_CTX_free(h->ctx);
        free(h);
    }
}

void crypto_sha256(const void *p, size_t n, uint8_t ret[SHA256_BYTES])
{
    unsigned got = 0;
    check(EVP_Digest(p, n, ret, &got, EVP_sha256(), NULL) == 1 && got == SHA256_BYTES);
}

void crypto_hmac_sha256(struct str key, struct str data, uint8_t ret[SHA256_BYTES])
{
    unsigned n = 0;
    /* A NULL key would mean "the key of the call before" to OpenSSL. */
    const char *key_bytes = key.n > 0 ? key.p : "";
    check(key.n <= INT32_MAX);
    check(HMAC(EVP_sha256(), key_bytes, (int)key.n, (const uint8_t *)data.p, data.n, ret, &n) !=
          NULL);
    check(n == SHA256_BYTES);
}

bool crypto_equal(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

void crypto_to_base64(struct str bytes, struct buf *out)
{
    check(bytes.n <= INT32_MAX / 2);
    char *p = buf_space(out, (bytes.n + 2) / 3 * 4 + 1);
    if (p != NULL) {
        int n = EVP_EncodeBlock((uint8_t *)p, (const uint8_t *)bytes.p, (int)bytes.n);
        buf_advance(out, (size_t)n);
    }
}

static bool base64_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

int crypto_from_base64(struct str text, struct buf *out)
{
    size_t padding = 0;
    while (padding < 2 && padding < text.n && text.p[text.n - 1 - padding] == '=') {
        padding++;
    }
    /* EVP_DecodeBlock skips blanks at both ends: only the alphabet is allowed here. */
    for (size_t i = 0; i + padding < text.n; i++) {
        if (!base64_char(text.p[i])) {
            return -E_INVALID;
        }
    }
    if (text.n % 4 != 0 || text.n > INT32_MAX) {
        return -E_INVALID;
    }
    char *p = text.n > 0 ? buf_space(out, text.n / 4 * 3) : NULL;
    if (p != NULL) {
        int n = EVP_DecodeBlock((uint8_t *)p, (const uint8_t *)text.p, (int)text.n);
        check(n >= 0);
        buf_advance(out, (size_t)n - padding);
    }
    return 0;
}

char *crypto_token(const char *prefix)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    enum { CHARACTERS = (TOKEN_BYTES * 8 + 5) / 6 };
    uint8_t secret[TOKEN_BYTES + 1];
    size_t n = strlen(prefix);
    char *token = xmalloc(n + CHARACTERS + 1);
    memcpy(token, prefix, n);
    os_random(secret, TOKEN_BYTES);
    secret[TOKEN_BYTES] = 0; /* the last character holds four bits */
    for (size_t i = 0; i < CHARACTERS; i++) {
        size_t bit = i * 6;
        unsigned pair = (unsigned)secret[bit / 8] << 8 | secret[MIN(bit / 8 + 1, TOKEN_BYTES)];
        token[n + i] = alphabet[pair >> (10 - bit % 8) & 63];
    }
    token[n + CHARACTERS] = '\0';
    crypto_wipe(secret, sizeof(secret));
    return token;
}

void crypto_wipe(void *p, size_t n)
{
    OPENSSL_cleanse(p, n);
}
