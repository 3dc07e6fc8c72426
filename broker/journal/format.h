/* The journal's bytes: the head of a segment and the head of a record. Numbers are little-endian.
 * For the files of this folder. Pure. */
#ifndef DAVIT_JOURNAL_FORMAT_H
#define DAVIT_JOURNAL_FORMAT_H

#include "broker/journal/journal.h"

#define JOURNAL_FORMAT     1u
#define SEGMENT_HEAD_BYTES JOURNAL_BLOCK
#define RECORD_HEAD_BYTES  48u
#define COMMAND_HEAD_BYTES 4u /* the length before each command */
#define WRITER_BYTES       32u

struct segment_head {
    uint64_t generation;
    uint64_t first_index; /* all before it was durable when the segment began */
    uint8_t store_id[JOURNAL_STORE_ID_BYTES];
    char writer[WRITER_BYTES]; /* the version of the program, for people */
};

struct record_head {
    uint32_t length; /* of the commands with their lengths */
    uint32_t count;
    uint64_t stamp; /* of the segment, see stamp_of */
    uint64_t first_index;
    uint64_t durable_index; /* all up to it was durable when this was written */
    uint32_t version;       /* of the commands */
};

/* Tells the records of a segment from all other bytes, those that a user may have put into a
 * command included: nobody without the secret can know it. */
uint64_t stamp_of(struct str secret, uint64_t generation);

void segment_head_pack(const struct segment_head *h, uint8_t ret[SEGMENT_HEAD_BYTES]);
/* -E_CORRUPT: no head, or a damaged one; -E_VERSION: of another format. */
int segment_head_parse(const uint8_t p[SEGMENT_HEAD_BYTES], struct segment_head *ret);

/* `record` has RECORD_HEAD_BYTES of room, then h->length bytes: fills in the head. */
void record_seal(const struct record_head *h, uint8_t *record);
/* Looks at the head alone. False: none of this stamp, or longer than max bytes in all. */
bool record_peek(const uint8_t *p, uint64_t stamp, uint64_t max, struct record_head *ret);
/* Whether the bytes of a record that was peeked at are those that were sealed. */
bool record_is_whole(const uint8_t *record, const struct record_head *h);
/* The blocks of a record, in bytes. */
uint64_t record_room(uint64_t length);

void put_u32(uint8_t *p, uint32_t v);
uint32_t get_u32(const uint8_t *p);

#endif
