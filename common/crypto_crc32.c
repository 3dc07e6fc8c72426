/* Apart from crypto.c, so that davit-shim has it without OpenSSL. */
#include "common/base.h"

#include "common/crypto.h"

#include <pthread.h>

#define POLYNOMIAL 0xedb88320u /* IEEE 802.3, bits reversed */

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_fill(void)
{
    for (uint32_t i = 0; i < ARRAY_LEN(table); i++) {
        uint32_t value = i;
        for (unsigned bit = 0; bit < 8; bit++) {
            value = value >> 1 ^ (value & 1 ? POLYNOMIAL : 0);
        }
        table[i] = value;
    }
}

uint32_t crypto_crc32(uint32_t crc, const void *p, size_t n)
{
    const uint8_t *bytes = p;
    pthread_once(&table_once, table_fill);
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc = table[(crc ^ bytes[i]) & 0xff] ^ crc >> 8;
    }
    return ~crc;
}
