#include "common/base.h"

#include "common/diag.h"
#include "common/limits.h"

#include <stdlib.h>

#define RED    "\033[1;31m"
#define YELLOW "\033[1;33m"
#define CYAN   "\033[36m"
#define PLAIN  "\033[0m"

void diags_init(struct diags *d)
{
    *d = (struct diags){0};
    arena_init(&d->arena, 0);
}

void diags_release(struct diags *d)
{
    if (d != NULL) {
        free(d->items);
        arena_release(&d->arena);
        *d = (struct diags){0};
    }
}

void diag_add(struct diags *d, enum diag_level level, const char *code, struct diag_at at,
              const char *hint, const char *fmt, ...)
{
    if (level == DIAG_ERROR) {
        d->errors++;
    } else {
        d->warnings++;
    }
    /* Warnings leave room for the error that may follow. */
    if (d->count >= (level == DIAG_ERROR ? LIMIT_DIAGS : LIMIT_DIAGS / 2)) {
        return;
    }
    if (d->count == d->cap) {
        d->cap = MAX(d->cap * 2, (size_t)8);
        d->items = xrealloc(d->items, d->cap * sizeof(*d->items));
    }
    struct buf message = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&message, fmt, ap);
    va_end(ap);
    d->items[d->count++] = (struct diag){
        .level = level,
        .code = code,
        .file = arena_strdup(&d->arena, str_from(at.file)),
        .line = at.line,
        .column = at.column,
        .length = at.length,
        .message = arena_strdup(&d->arena, buf_str(&message)),
        .hint = hint != NULL ? arena_strdup(&d->arena, str_from(hint)) : NULL,
    };
    buf_release(&message);
}

/* Messages and source lines come from files of others: no control character of theirs may reach a
 * terminal. */
static void add_clean(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool control = ((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f;
        buf_add_char(out, control ? '?' : s.p[i]);
    }
}

static void add_head(const struct diag *d, bool color, struct buf *out)
{
    const char *name = d->level == DIAG_ERROR ? "error" : "warning";
    const char *paint = d->level == DIAG_ERROR ? RED : YELLOW;
    if (d->file[0] != '\0') {
        add_clean(out, str_from(d->file));
        if (d->line > 0) {
            buf_addf(out, ":%" PRIu32, d->line);
        }
        if (d->line > 0 && d->column > 0) {
            buf_addf(out, ":%" PRIu32, d->column);
        }
        buf_addz(out, ": ");
    }
    buf_addf(out, "%s%s:%s ", color ? paint : "", name, color ? PLAIN : "");
    add_clean(out, str_from(d->message));
    buf_addf(out, " [%s]\n", d->code);
}

static struct str line_of(struct str text, uint32_t number)
{
    struct str line = STR_NULL;
    for (uint32_t i = 0; i < number; i++) {
        if (!str_split(&text, '\n', &line)) {
            return STR_NULL;
        }
    }
    return line.n > 0 && line.p[line.n - 1] == '\r' ? str_sub(line, 0, line.n - 1) : line;
}

static bool starts_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

/* The source line and the carets below it; columns count characters, tabs are kept as tabs. */
static void add_source(const struct diag *d, struct str line, bool color, struct buf *out)
{
    uint32_t characters = 0;
    buf_addz(out, "    ");
    add_clean(out, line);
    buf_addz(out, "\n    ");
    for (size_t i = 0; i < line.n; i++) {
        characters += starts_character(line.p[i]);
        if (characters < d->column && starts_character(line.p[i])) {
            buf_add_char(out, line.p[i] == '\t' ? '\t' : ' ');
        }
    }
    uint32_t left = characters >= d->column ? characters - d->column + 1 : 1;
    uint32_t length = MAX(MIN(d->length, left), 1u);
    buf_addz(out, color ? CYAN : "");
    for (uint32_t i = 0; i < length; i++) {
        buf_add_char(out, '^');
    }
    buf_addf(out, "%s\n", color ? PLAIN : "");
}

void diag_render(const struct diag *d, diag_text_fn text_of, void *ctx, bool color, struct buf *out)
{
    add_head(d, color, out);
    struct str text = text_of != NULL && d->file[0] != '\0' ? text_of(ctx, d->file) : STR_NULL;
    struct str line = d->line > 0 && d->column > 0 ? line_of(text, d->line) : STR_NULL;
    if (line.n > 0) {
        add_source(d, line, color, out);
    }
    if (d->hint != NULL) {
        buf_addz(out, "hint: ");
        add_clean(out, str_from(d->hint));
        buf_add_char(out, '\n');
    }
}

const char *diag_nearest(struct str word, const char *const *names, size_t count)
{
    const char *nearest = NULL;
    size_t max = word.n / 3;
    for (size_t i = 0; i < count; i++) {
        size_t distance = str_distance(word, str_from(names[i]), max);
        if (distance <= max && (nearest == NULL || distance < max)) {
            nearest = names[i];
            max = distance;
        }
    }
    return nearest;
}
