/* Hides secrets in a stream of bytes. Patterns are looked for in one pass (Aho and Corasick,
 * "Efficient string matching", 1975), across the borders of the portions in which the stream comes;
 * every run of bytes that belongs to an occurrence becomes MASK_TEXT. Bytes that may yet turn out
 * to be the beginning of an occurrence are held back, and no others: a prompt is seen at once. Pure
 * and without libraries, as davit-shim uses it. Threads: one at a time. */
#ifndef DAVIT_MASK_H
#define DAVIT_MASK_H

#include "common/buf.h"
#include "common/err.h"

#define MASK_TEXT "[MASKED]"

struct mask;

enum mask_kind {
    MASK_PLAIN,   /* byte by byte */
    MASK_WRAPPED, /* an end of a line or a blank or two may stand between any bytes: base64, hex */
    MASK_KINDS
};

struct mask *mask_new(void);
void mask_free(struct mask *m); /* wipes; NULL is fine */
/* Before the first mask_feed. Empty patterns hide nothing. -E_LIMIT: all patterns together, what
 * they begin with counted once, would have more than LIMIT_MASK_BYTES bytes. */
int mask_add(struct mask *m, enum mask_kind kind, struct str pattern);
bool mask_is_empty(const struct mask *m);

/* Appends to `out` what can be said of the stream so far. */
void mask_feed(struct mask *m, struct str bytes, struct buf *out);
/* The stream has ended, or pauses for good: what was held back is no secret. */
void mask_end(struct mask *m, struct buf *out);

#endif
