/* A growing byte buffer for building text and messages. Always NUL-terminated behind its n bytes,
 * so buf.p is a C string once something was added or buf_cstr() was called.
 *
 * Sticky error: a buffer made with a limit fails once it would grow past it, stays as it was, and
 * ignores what is added later; ask buf_ok() once at the end. Without a limit it cannot fail.
 * Ownership: the storage is the caller's; release with buf_release. Threads: one at a time. */
#ifndef DAVIT_BUF_H
#define DAVIT_BUF_H

#include <stdarg.h>

#include "common/str.h"

struct buf {
    char *p;
    size_t n;
    size_t cap;
    size_t limit; /* 0: none */
    bool failed;
};

#define BUF_INIT ((struct buf){0})

void buf_init(struct buf *b, size_t limit);
void buf_release(struct buf *b);
void buf_clear(struct buf *b); /* empty, keeps storage and limit, forgets the failure */
bool buf_ok(const struct buf *b);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_str(struct buf *b, struct str s);
void buf_addz(struct buf *b, const char *s);
void buf_add_char(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vaddf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
char *buf_space(struct buf *b, size_t n);  /* n writable bytes behind the end, or NULL; then: */
void buf_advance(struct buf *b, size_t n); /* n of them were written */
void buf_drop_front(struct buf *b, size_t n);
void buf_truncate(struct buf *b, size_t n);
struct str buf_str(const struct buf *b);
const char *buf_cstr(struct buf *b); /* "" for an empty one */
char *buf_take(struct buf *b);       /* the heap string, the buffer is empty after */

#endif
