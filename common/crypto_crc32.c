/* Apart from crypto.c, so that davit-shim has it without OpenSSL. */
#include "common/base.h"

#include "common/crypto.h"

#include <pthread.h>

#define POLYNOMIAL 0xedb88320u /* IEEE 802.3, bits reversed */
#define SLICES     8           /* bytes taken at once ("slicing-by-8") */

/* table[k][b]: what byte b does to the checksum k bytes later. */
static uint32_t table[SLICES][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_fill(void)
{
    for (uint32_t i = 0; i < ARRAY_LEN(table[0]); i++) {
        uint32_t value = i;
        for (unsigned bit = 0; bit < 8; bit++) {
            value = value >> 1 ^ (value & 1 ? POLYNOMIAL : 0);
        }
        table[0][i] = value;
    }
    for (size_t k = 1; k < SLICES; k++) {
        for (size_t i = 0; i < ARRAY_LEN(table[0]); i++) {
            const uint32_t before = table[k - 1][i];
            table[k][i] = before >> 8 ^ table[0][before & 0xff];
        }
    }
}

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t crypto_crc32(uint32_t crc, const void *p, size_t n)
{
    const uint8_t *bytes = p;
    pthread_once(&table_once, table_fill);
    crc = ~crc;
    for (; n >= SLICES; n -= SLICES, bytes += SLICES) {
        const uint32_t low = crc ^ read_u32(bytes);
        const uint32_t high = read_u32(bytes + 4);
        crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^
              table[4][low >> 24] ^ table[3][high & 0xff] ^ table[2][high >> 8 & 0xff] ^
              table[1][high >> 16 & 0xff] ^ table[0][high >> 24];
    }
    for (; n > 0; n--, bytes++) {
        crc = table[0][(crc ^ *bytes) & 0xff] ^ crc >> 8;
    }
    return ~crc;
}
