#include "common/base.h"

#include "worker/logship.h"

#include "common/crypto.h"
#include "common/limits.h"

void logship_init(struct logship *l, logship_read_fn read, void *ctx, bool fresh)
{
    *l = (struct logship){.read = read, .ctx = ctx, .known = fresh};
}

void logship_release(struct logship *l)
{
    buf_release(&l->tail);
}

void logship_new_session(struct logship *l)
{
    l->at = MIN(l->at, l->durable);
    l->asked = false;
    l->retry_due_ms = 0;
}

void logship_end(struct logship *l, struct str tail)
{
    check(!l->ended);
    buf_add_str(&l->tail, tail);
    l->ended = true;
}

void logship_acked(struct logship *l, uint64_t durable, uint64_t now_ms)
{
    bool news = !l->known || durable > l->durable;
    if (durable < l->durable) {
        /* The broker lost what it had (an old backup): begin there, our disk still has all. */
        l->at = MIN(l->at, durable);
    }
    l->known = true;
    l->durable = durable;
    if (l->at <= durable) {
        l->retry_due_ms = 0;
    } else {
        /* Of several chunks behind a gap each is answered; one way back is enough for all. */
        l->retry_due_ms = now_ms + (news ? LOGSHIP_STALLED_MS : LOGSHIP_RETRY_MS);
    }
}

/* From the spool, or behind its end from the tail. */
static int read_at(struct logship *l, size_t max, struct buf *out)
{
    if (!l->head_end_known || l->at < l->head_end) {
        int r = l->read(l->ctx, l->at, max, out);
        if (r < 0 || out->n > 0 || !l->ended) {
            return r;
        }
        if (l->head_end_known) {
            return -E_CORRUPT; /* bytes that were there before */
        }
        l->head_end_known = true;
        l->head_end = l->at;
    }
    uint64_t from = l->at - l->head_end;
    buf_add_str(out, str_sub(buf_str(&l->tail), (size_t)from, max));
    return 0;
}

static void add_to_crc(struct logship *l, struct str bytes)
{
    check(l->at <= l->crc_upto);
    uint64_t known = l->crc_upto - l->at;
    if (known < bytes.n) {
        l->crc = crypto_crc32(l->crc, bytes.p + known, bytes.n - (size_t)known);
        l->crc_upto = l->at + bytes.n;
    }
}

static int ask(struct logship *l, uint64_t *ret_offset)
{
    if (l->asked) {
        return LOGSHIP_IDLE;
    }
    l->asked = true;
    *ret_offset = 0;
    return LOGSHIP_CHUNK;
}

int logship_next(struct logship *l, uint64_t window, uint64_t now_ms, struct buf *out,
                 uint64_t *ret_offset)
{
    if (!l->known) {
        return ask(l, ret_offset);
    }
    if (l->retry_due_ms != 0 && now_ms >= l->retry_due_ms) {
        l->at = MIN(l->at, l->durable);
        l->retry_due_ms = 0;
    }
    bool theirs = l->at < l->durable;
    uint64_t room = theirs ? l->durable - l->at : window - MIN(window, l->at - l->durable);
    if (room == 0) {
        return LOGSHIP_IDLE;
    }
    int r = read_at(l, (size_t)MIN(room, (uint64_t)LIMIT_LOG_CHUNK), out);
    if (r < 0) {
        return r;
    }
    if (out->n == 0) {
        return LOGSHIP_IDLE;
    }
    add_to_crc(l, buf_str(out));
    *ret_offset = l->at;
    l->at += out->n;
    if (theirs) {
        buf_clear(out);
        return LOGSHIP_AGAIN;
    }
    if (l->retry_due_ms == 0) {
        l->retry_due_ms = now_ms + LOGSHIP_STALLED_MS;
    }
    return LOGSHIP_CHUNK;
}

bool logship_done(const struct logship *l)
{
    return l->known && l->head_end_known && l->at == logship_size(l) && l->durable >= l->at;
}

uint64_t logship_size(const struct logship *l)
{
    check(l->head_end_known);
    return l->head_end + l->tail.n;
}
