/* A journal from the inside, for the files of this folder. Threads: as journal.h says. */
#ifndef DAVIT_JOURNAL_STATE_H
#define DAVIT_JOURNAL_STATE_H

#include "broker/journal/disk.h"
#include "broker/journal/format.h"

#define SEGMENT_NAME_BYTES 32u

struct segment {
    char name[SEGMENT_NAME_BYTES];
    struct segment_head head;
    uint64_t stamp; /* of its records */
    struct disk_file *file;
    uint64_t bytes;
};

struct journal {
    struct disk *disk; /* NULL: read only, and there is no folder */
    struct journal_options o;
    uint8_t store_id[JOURNAL_STORE_ID_BYTES];
    struct buf secret;

    struct segment *segments; /* that count, by generation; the last is written to once began */
    size_t count;
    struct segment spare; /* file NULL: there is none */
    bool names_pending;   /* renamed, but the folder was not synced since */
    uint64_t generation;  /* the highest ever used */

    bool began;             /* journal_restart has succeeded */
    uint64_t offset;        /* where the next record goes */
    uint64_t written_index; /* the last one that was written */
    uint64_t durable_index;

    struct buf added; /* a record head's room, then commands with their lengths */
    uint64_t added_first;
    uint32_t added_count;

    struct journal_stat stat;
};

/* The one that is written to. */
struct segment *journal_segment(struct journal *j);

#endif
