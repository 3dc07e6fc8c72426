/* Diagnostics of user input: where it is wrong, what was expected, what could be meant, and in
 * notes by which way the text came to where it is wrong. A diag list is bounded by LIMIT_DIAGS,
 * half of it for warnings; what comes after is counted. All text is copied into the list's own
 * arena, as UTF-8: other bytes become `?`. Threads: one at a time. */
#ifndef DAVIT_DIAG_H
#define DAVIT_DIAG_H

#include "common/arena.h"
#include "common/buf.h"

enum diag_level { DIAG_ERROR, DIAG_WARNING };

/* A step of the way: "in job `test`, which extends `.base` here". */
struct diag_note {
    const char *message;
    const char *file;
    uint32_t line; /* 1-based; 0: unknown */
    uint32_t column;
};

struct diag {
    enum diag_level level;
    const char *code;        /* stable, "unknown-keyword"; a string literal */
    const char *file;        /* "" where there is none */
    uint32_t line;           /* 1-based; 0: unknown */
    uint32_t column;         /* 1-based, in characters */
    uint32_t length;         /* characters to underline; 0: unknown, or several lines */
    uint32_t end_line;       /* of a text of several lines: its last one; else 0 */
    uint32_t end_column;     /* behind its last character; UINT32_MAX: it ends with the line */
    const char *message;     /* "unknown keyword `scirpt` in job `build`" */
    const char *hint;        /* "did you mean `script`?"; NULL: none */
    struct diag_note *notes; /* from the offending text outwards; LIMIT_DIAG_NOTES at most */
    size_t note_count;
};

struct diags {
    struct arena arena;
    struct diag *items;
    size_t count;
    size_t cap;
    size_t errors; /* all that were reported, kept or not */
    size_t warnings;
};

struct diag_at {
    const char *file;
    uint32_t line;
    uint32_t column;
    uint32_t length;
    uint32_t end_line;
    uint32_t end_column;
};

void diags_init(struct diags *d);
void diags_release(struct diags *d);
void diag_add(struct diags *d, enum diag_level level, const char *code, struct diag_at at,
              const char *hint, const char *fmt, ...) PRINTF_LIKE(6, 7);
/* A note to one of the list; what is more than LIMIT_DIAG_NOTES is left out. */
void diag_note(struct diags *d, struct diag *to, struct diag_at at, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* "FILE:LINE:COLUMN: error: MESSAGE [CODE]", the source line with carets below what is meant (of a
 * text of several lines the first three), "hint: HINT", "note: MESSAGE: FILE:LINE:COLUMN".
 * `text_of` gives a file's text for the underline (may be NULL, or return STR_NULL). */
typedef struct str (*diag_text_fn)(void *ctx, const char *file);
void diag_render(const struct diag *d, diag_text_fn text_of, void *ctx, bool color,
                 struct buf *out);

/* The nearest of `names` to `word` within a third of its length, else one that begins with it, or
 * NULL. */
const char *diag_nearest(struct str word, const char *const *names, size_t count);

#endif
