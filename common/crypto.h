/* Hashes, tokens, constant-time comparison; OpenSSL beneath. Threads: all safe. */
#ifndef DAVIT_CRYPTO_H
#define DAVIT_CRYPTO_H

#include "common/buf.h"
#include "common/err.h"

#define SHA256_BYTES      32u
#define TOKEN_BYTES       32u
#define AES_KEY_BYTES     32u
#define CRYPTO_SEAL_BYTES 28u

struct sha256; /* streaming */
struct sha256 *sha256_new(void);
void sha256_add(struct sha256 *h, const void *p, size_t n);
void sha256_end(struct sha256 *h, uint8_t ret[SHA256_BYTES]); /* may be called once */
void sha256_free(struct sha256 *h);

void crypto_sha256(const void *p, size_t n, uint8_t ret[SHA256_BYTES]);
void crypto_hmac_sha256(struct str key, struct str data, uint8_t ret[SHA256_BYTES]);
bool crypto_equal(const void *a, const void *b, size_t n); /* constant time */
/* Standard base64 with padding. Decoding: -E_INVALID, and out as it was, for anything else. */
void crypto_to_base64(struct str bytes, struct buf *out);
int crypto_from_base64(struct str text, struct buf *out);
/* PREFIX then 43 characters of unpadded base64url; 256 random bits. Heap. */
char *crypto_token(const char *prefix);
/* AES-256-GCM: a random nonce, the encrypted bytes, the tag: CRYPTO_SEAL_BYTES more than `plain`.
 * What is `bound` is not in it and must be the same when it is opened. A key seals 2^32 texts at
 * most. */
void crypto_seal(const uint8_t key[AES_KEY_BYTES], struct str bound, struct str plain,
                 struct buf *out);
/* -E_CORRUPT, and out as it was: another key, other bound bytes, or damaged. */
int crypto_open(const uint8_t key[AES_KEY_BYTES], struct str bound, struct str sealed,
                struct buf *out);
/* CRC-32 (IEEE 802.3, as zlib's crc32): start with 0, feed on. */
uint32_t crypto_crc32(uint32_t crc, const void *p, size_t n);
/* Overwrites memory that held a secret; not optimised away. */
void crypto_wipe(void *p, size_t n);

#endif
