#include "common/base.h"

#include "broker/journal/format.h"

#include "common/crypto.h"

#define SEGMENT_MAGIC "DAVITJNL"
#define RECORD_MAGIC  0x3152444au /* "JDR1" */

/* Where things are. A checksum covers all that comes after it. */
enum { HEAD_CRC = 8, HEAD_FORMAT = 12, HEAD_GENERATION = 16, HEAD_FIRST = 24, HEAD_STORE = 32 };
enum { HEAD_WRITER = HEAD_STORE + JOURNAL_STORE_ID_BYTES };
enum { RECORD_CRC = 4, RECORD_LENGTH = 8, RECORD_COUNT = 12, RECORD_STAMP = 16, RECORD_FIRST = 24 };
enum { RECORD_DURABLE = 32, RECORD_VERSION = 40, RECORD_ZERO = 44 };

void put_u32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u64(uint8_t *p, uint64_t v)
{
    put_u32(p, (uint32_t)v);
    put_u32(p + 4, (uint32_t)(v >> 32));
}

static uint64_t get_u64(const uint8_t *p)
{
    return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

uint64_t stamp_of(struct str secret, uint64_t generation)
{
    uint8_t number[8];
    uint8_t digest[SHA256_BYTES];
    struct sha256 *h = sha256_new();

    put_u64(number, generation);
    sha256_add(h, secret.p, secret.n);
    sha256_add(h, number, sizeof(number));
    sha256_end(h, digest);
    sha256_free(h);
    return get_u64(digest);
}

void segment_head_pack(const struct segment_head *h, uint8_t ret[SEGMENT_HEAD_BYTES])
{
    memset(ret, 0, SEGMENT_HEAD_BYTES);
    memcpy(ret, SEGMENT_MAGIC, HEAD_CRC);
    put_u32(ret + HEAD_FORMAT, JOURNAL_FORMAT);
    put_u64(ret + HEAD_GENERATION, h->generation);
    put_u64(ret + HEAD_FIRST, h->first_index);
    memcpy(ret + HEAD_STORE, h->store_id, sizeof(h->store_id));
    memcpy(ret + HEAD_WRITER, h->writer, sizeof(h->writer));
    put_u32(ret + HEAD_CRC, crypto_crc32(0, ret + HEAD_FORMAT, SEGMENT_HEAD_BYTES - HEAD_FORMAT));
}

int segment_head_parse(const uint8_t p[SEGMENT_HEAD_BYTES], struct segment_head *ret)
{
    if (memcmp(p, SEGMENT_MAGIC, HEAD_CRC) != 0 ||
        get_u32(p + HEAD_CRC) !=
            crypto_crc32(0, p + HEAD_FORMAT, SEGMENT_HEAD_BYTES - HEAD_FORMAT)) {
        return -E_CORRUPT;
    }
    if (get_u32(p + HEAD_FORMAT) != JOURNAL_FORMAT) {
        return -E_VERSION;
    }
    ret->generation = get_u64(p + HEAD_GENERATION);
    ret->first_index = get_u64(p + HEAD_FIRST);
    memcpy(ret->store_id, p + HEAD_STORE, sizeof(ret->store_id));
    memcpy(ret->writer, p + HEAD_WRITER, sizeof(ret->writer));
    ret->writer[sizeof(ret->writer) - 1] = '\0';
    return 0;
}

void record_seal(const struct record_head *h, uint8_t *record)
{
    put_u32(record, RECORD_MAGIC);
    put_u32(record + RECORD_LENGTH, h->length);
    put_u32(record + RECORD_COUNT, h->count);
    put_u64(record + RECORD_STAMP, h->stamp);
    put_u64(record + RECORD_FIRST, h->first_index);
    put_u64(record + RECORD_DURABLE, h->durable_index);
    put_u32(record + RECORD_VERSION, h->version);
    put_u32(record + RECORD_ZERO, 0);
    put_u32(record + RECORD_CRC,
            crypto_crc32(0, record + RECORD_LENGTH, RECORD_HEAD_BYTES - RECORD_LENGTH + h->length));
}

bool record_peek(const uint8_t *p, uint64_t stamp, uint64_t max, struct record_head *ret)
{
    if (get_u32(p) != RECORD_MAGIC || get_u64(p + RECORD_STAMP) != stamp ||
        get_u32(p + RECORD_ZERO) != 0) {
        return false;
    }
    *ret = (struct record_head){
        .length = get_u32(p + RECORD_LENGTH),
        .count = get_u32(p + RECORD_COUNT),
        .stamp = stamp,
        .first_index = get_u64(p + RECORD_FIRST),
        .durable_index = get_u64(p + RECORD_DURABLE),
        .version = get_u32(p + RECORD_VERSION),
    };
    return record_room(ret->length) <= max;
}

bool record_is_whole(const uint8_t *record, const struct record_head *h)
{
    return get_u32(record + RECORD_CRC) ==
           crypto_crc32(0, record + RECORD_LENGTH, RECORD_HEAD_BYTES - RECORD_LENGTH + h->length);
}

uint64_t record_room(uint64_t length)
{
    const uint64_t bytes = RECORD_HEAD_BYTES + length;

    return (bytes + JOURNAL_BLOCK - 1) / JOURNAL_BLOCK * JOURNAL_BLOCK;
}
