#include "common/base.h"

#include "broker/journal/state.h"

#include <stdlib.h>

/* Reading back, after a start or a transaction that was lost. */

#define SCAN_BYTES (1024u * 1024)

struct replay {
    struct journal *j;
    const struct segment *segment;
    uint64_t next; /* the index that is needed next */
    uint64_t end; /* the first index of the next segment: what this one has from there on is void */
    journal_replay_fn fn;
    void *ctx;
    struct buf *why;
    uint8_t *p; /* the present record */
    size_t cap;
};

/* The record at offset, whole, in r->p. 0: there is none. */
static int read_record(struct replay *r, uint64_t offset, struct record_head *ret)
{
    const struct segment *s = r->segment;
    uint8_t block[JOURNAL_BLOCK];
    size_t n;
    int e = disk_read(s->file, block, sizeof(block), offset, &n);

    if (e < 0) {
        return e;
    }
    if (n < sizeof(block) || !record_peek(block, s->stamp, s->bytes - offset, ret)) {
        return 0;
    }
    const size_t bytes = (size_t)record_room(ret->length);
    if (bytes > r->cap) {
        r->p = xrealloc(r->p, bytes);
        r->cap = bytes;
    }
    e = disk_read(s->file, r->p, bytes, offset, &n);
    if (e < 0) {
        return e;
    }
    return n == bytes && record_is_whole(r->p, ret) ? 1 : 0;
}

/* Looks for a record behind what is none. 1: *offset is where it stands. */
static int find_record(struct replay *r, uint64_t *offset, struct record_head *ret)
{
    const struct segment *s = r->segment;
    uint8_t *p = xmalloc(SCAN_BYTES);
    int found = 0;
    size_t n = 0;

    for (uint64_t at = *offset; found == 0 && at < s->bytes; at += n) {
        const size_t want = (size_t)MIN(SCAN_BYTES, s->bytes - at);
        found = disk_read(s->file, p, want, at, &n);
        if (found < 0 || n < JOURNAL_BLOCK) {
            break;
        }
        for (size_t i = 0; found == 0 && i + JOURNAL_BLOCK <= n; i += JOURNAL_BLOCK) {
            if (record_peek(p + i, s->stamp, s->bytes - at - i, ret)) {
                *offset = at + i;
                found = read_record(r, *offset, ret);
            }
        }
    }
    free(p);
    return found;
}

static int missing(struct replay *r, uint64_t next_found)
{
    buf_addf(r->why,
             "the journal %s/%s lacks the commands from %" PRIu64 " to %" PRIu64
             ", which the store does not have",
             r->j->o.dir, r->segment->name, r->next, next_found - 1);
    return -E_CORRUPT;
}

static int other_version(struct replay *r, const struct record_head *h)
{
    buf_addf(r->why,
             "the journal %s holds commands of version %u, this program knows %u: start davitd %s "
             "once and stop it in order",
             r->j->o.dir, h->version, r->j->o.command_version, r->segment->head.writer);
    return -E_VERSION;
}

/* Hands out what is needed of the record in r->p. */
static int take_record(struct replay *r, const struct record_head *h, uint64_t offset)
{
    const uint8_t *p = r->p + RECORD_HEAD_BYTES;
    size_t left = h->length;

    if (h->first_index + h->count > r->next && h->version != r->j->o.command_version) {
        return other_version(r, h);
    }
    for (uint64_t index = h->first_index; index < h->first_index + h->count; index++) {
        const uint32_t n = left >= COMMAND_HEAD_BYTES ? get_u32(p) : 0;
        if (left < COMMAND_HEAD_BYTES || n > left - COMMAND_HEAD_BYTES) {
            buf_addf(r->why, "the journal %s/%s has a damaged record at %" PRIu64, r->j->o.dir,
                     r->segment->name, offset);
            return -E_CORRUPT;
        }
        p += COMMAND_HEAD_BYTES;
        int e = index < r->next ? 0 : r->fn(r->ctx, index, str_of(p, n));
        if (e < 0) {
            return e;
        }
        r->next = MAX(r->next, index + 1);
        p += n;
        left -= COMMAND_HEAD_BYTES + n;
    }
    return 0;
}

/* 0: its end was reached, or a tail that never was durable. */
static int replay_segment(struct replay *r)
{
    const struct segment *s = r->segment;
    struct record_head h;
    uint64_t offset = SEGMENT_HEAD_BYTES;

    if (s->head.first_index > r->next) {
        return missing(r, s->head.first_index);
    }
    while (offset < s->bytes) {
        int e = read_record(r, offset, &h);
        if (e == 0) {
            offset += JOURNAL_BLOCK;
            e = find_record(r, &offset, &h);
        }
        if (e <= 0) {
            return e;
        }
        if (h.first_index >= r->end) {
            return 0; /* it came after what was lost, and was lost with it */
        }
        if (h.first_index > r->next) {
            return h.durable_index >= r->next ? missing(r, h.first_index) : 0;
        }
        e = take_record(r, &h, offset);
        if (e < 0) {
            return e;
        }
        offset += record_room(h.length);
    }
    return 0;
}

int journal_replay(struct journal *j, uint64_t applied, journal_replay_fn fn, void *ctx,
                   struct buf *why)
{
    struct replay r = {.j = j, .next = applied + 1, .fn = fn, .ctx = ctx, .why = why};
    int e = 0;

    for (size_t i = 0; i < j->count && e == 0; i++) {
        r.segment = &j->segments[i];
        r.end = i + 1 < j->count ? j->segments[i + 1].head.first_index : UINT64_MAX;
        e = replay_segment(&r);
        if (e == -E_IO && why->n == 0) {
            buf_addf(why, "cannot read the journal %s/%s: %s", j->o.dir, r.segment->name,
                     err_text(e));
        }
    }
    free(r.p);
    return e;
}
