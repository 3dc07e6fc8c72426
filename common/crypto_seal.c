#include "common/base.h"

#include <openssl/evp.h>

#include "common/crypto.h"
#include "common/os.h"

#define NONCE_BYTES 12u
#define TAG_BYTES   16u
_Static_assert(NONCE_BYTES + TAG_BYTES == CRYPTO_SEAL_BYTES, "what is beside the encrypted bytes");

static const uint8_t *bytes_of(struct str s)
{
    return (const uint8_t *)(s.n > 0 ? s.p : "");
}

void crypto_seal(const uint8_t key[AES_KEY_BYTES], struct str bound, struct str plain,
                 struct buf *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t *p = (uint8_t *)buf_space(out, plain.n + CRYPTO_SEAL_BYTES);
    int n = 0;

    check(ctx != NULL && p != NULL && plain.n < INT32_MAX && bound.n < INT32_MAX);
    os_random(p, NONCE_BYTES);
    check(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, p) == 1);
    check(EVP_EncryptUpdate(ctx, NULL, &n, bytes_of(bound), (int)bound.n) == 1);
    check(EVP_EncryptUpdate(ctx, p + NONCE_BYTES, &n, bytes_of(plain), (int)plain.n) == 1);
    check((size_t)n == plain.n);
    check(EVP_EncryptFinal_ex(ctx, p + NONCE_BYTES + plain.n, &n) == 1 && n == 0);
    check(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, p + NONCE_BYTES + plain.n) ==
          1);
    buf_advance(out, plain.n + CRYPTO_SEAL_BYTES);
    EVP_CIPHER_CTX_free(ctx);
}

int crypto_open(const uint8_t key[AES_KEY_BYTES], struct str bound, struct str sealed,
                struct buf *out)
{
    uint8_t tag[TAG_BYTES];
    int n = 0;

    if (sealed.n < CRYPTO_SEAL_BYTES || sealed.n >= INT32_MAX) {
        return -E_CORRUPT;
    }
    const size_t size = sealed.n - CRYPTO_SEAL_BYTES;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t *p = (uint8_t *)buf_space(out, size + 1);
    check(ctx != NULL && p != NULL && bound.n < INT32_MAX);
    memcpy(tag, sealed.p + NONCE_BYTES + size, sizeof(tag));
    check(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, bytes_of(sealed)) == 1);
    check(EVP_DecryptUpdate(ctx, NULL, &n, bytes_of(bound), (int)bound.n) == 1);
    check(EVP_DecryptUpdate(ctx, p, &n, bytes_of(sealed) + NONCE_BYTES, (int)size) == 1);
    check((size_t)n == size);
    check(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1);
    const bool good = EVP_DecryptFinal_ex(ctx, p + size, &n) == 1;
    if (good) {
        buf_advance(out, size);
    } else {
        crypto_wipe(p, size);
    }
    EVP_CIPHER_CTX_free(ctx);
    return good ? 0 : -E_CORRUPT;
}
