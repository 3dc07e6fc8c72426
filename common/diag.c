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

/* A copy. What was cut off in the middle of a character, or names a file, may not be UTF-8. */
static char *keep(struct diags *d, struct str s)
{
    char *text = arena_strdup(&d->arena, s);
    size_t at;
    for (char *rest = text; !str_is_utf8(str_from(rest), &at); rest += at) {
        rest[at] = '?';
    }
    return text;
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
        .file = keep(d, str_from(at.file)),
        .line = at.line,
        .column = at.column,
        .length = at.length,
        .end_line = at.end_line > at.line ? at.end_line : 0,
        .end_column = at.end_line > at.line ? at.end_column : 0,
        .message = keep(d, buf_str(&message)),
        .hint = hint != NULL ? keep(d, str_from(hint)) : NULL,
    };
    buf_release(&message);
}

void diag_note(struct diags *d, struct diag *to, struct diag_at at, const char *fmt, ...)
{
    if (to->note_count == LIMIT_DIAG_NOTES) {
        return;
    }
    if (to->notes == NULL) {
        to->notes = arena_array(&d->arena, LIMIT_DIAG_NOTES, sizeof(*to->notes));
    }
    struct buf message = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&message, fmt, ap);
    va_end(ap);
    to->notes[to->note_count++] = (struct diag_note){
        .message = keep(d, buf_str(&message)),
        .file = keep(d, str_from(at.file)),
        .line = at.line,
        .column = at.column,
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

/* Of a long line so much is shown, with what is meant in it. */
#define WINDOW        140u
#define WINDOW_BEFORE 60u
#define TAB_COLUMNS   8u
/* A text of several lines is shown by its first ones. */
#define LINES_SHOWN 3u

/* Which characters of a line are underlined: from 1, `to` not among them. */
struct span {
    uint32_t from;
    uint32_t to;
};

/* The source line and the carets below it. Columns count characters: a tab is as wide as up to the
 * next stop, a wide character takes two places, a combining one none. */
static void add_source(struct str line, struct span span, bool color, struct buf *out)
{
    struct buf marks = BUF_INIT;
    uint32_t first = span.from > WINDOW ? span.from - WINDOW_BEFORE : 1;
    uint32_t at = 1;
    size_t place = 0;
    buf_addz(out, first > 1 ? "    ..." : "    ");
    buf_addz(&marks, first > 1 ? "   " : "");
    for (size_t i = 0; i < line.n && at < first + WINDOW; at++) {
        struct str c = str_sub(line, i, str_char_length(str_sub(line, i, line.n)));
        i += c.n;
        if (at < first) {
            continue;
        }
        bool tab = c.p[0] == '\t';
        size_t columns = tab ? TAB_COLUMNS - place % TAB_COLUMNS : str_char_columns(c);
        for (size_t k = 0; tab && k < columns; k++) {
            buf_add_char(out, ' ');
        }
        add_clean(out, tab ? STR("") : c);
        for (size_t k = 0; k < columns; k++) {
            buf_add_char(&marks, at >= span.from && at < span.to ? '^' : ' ');
        }
        place += columns;
    }
    if (at <= span.from) { /* behind the last character */
        buf_add_char(&marks, '^');
    }
    while (marks.n > 0 && marks.p[marks.n - 1] == ' ') {
        buf_truncate(&marks, marks.n - 1);
    }
    buf_addf(out, "\n    %s%s%s\n", color ? CYAN : "", buf_cstr(&marks), color ? PLAIN : "");
    buf_release(&marks);
}

static uint32_t first_character(struct str line)
{
    uint32_t at = 1;
    while (at <= line.n && (line.p[at - 1] == ' ' || line.p[at - 1] == '\t')) {
        at++;
    }
    return at;
}

/* The lines that are meant, without empty ones. */
static void add_lines(const struct diag *d, struct str text, bool color, struct buf *out)
{
    uint32_t last = MAX(d->line, d->end_line);
    uint32_t shown = 0;
    while (last > d->line && str_trim(line_of(text, last)).n == 0) {
        last--;
    }
    for (uint32_t i = d->line; i <= last && shown <= LINES_SHOWN; i++) {
        struct str line = line_of(text, i);
        struct span span = {1, UINT32_MAX};
        if (str_trim(line).n == 0) {
            continue;
        }
        span.from = i == d->line ? d->column : first_character(line);
        if (last == d->line) {
            uint32_t length = d->end_line > d->line ? UINT32_MAX - span.from : MAX(d->length, 1u);
            span.to = length > UINT32_MAX - span.from ? UINT32_MAX : span.from + length;
        } else if (i == d->end_line) {
            span.to = d->end_column;
        }
        if (++shown > LINES_SHOWN) {
            buf_addz(out, "    ...\n");
        } else {
            add_source(line, span, color, out);
        }
    }
}

static void add_notes(const struct diag *d, bool color, struct buf *out)
{
    for (size_t i = 0; i < d->note_count; i++) {
        const struct diag_note *n = &d->notes[i];
        buf_addf(out, "%snote:%s ", color ? CYAN : "", color ? PLAIN : "");
        add_clean(out, str_from(n->message));
        if (n->file[0] != '\0') {
            buf_addz(out, ": ");
            add_clean(out, str_from(n->file));
        }
        if (n->line > 0) {
            buf_addf(out, ":%" PRIu32 ":%" PRIu32, n->line, n->column);
        }
        buf_add_char(out, '\n');
    }
}

void diag_render(const struct diag *d, diag_text_fn text_of, void *ctx, bool color, struct buf *out)
{
    add_head(d, color, out);
    struct str text = text_of != NULL && d->file[0] != '\0' ? text_of(ctx, d->file) : STR_NULL;
    if (d->line > 0 && d->column > 0) {
        add_lines(d, text, color, out);
    }
    if (d->hint != NULL) {
        buf_addz(out, "hint: ");
        add_clean(out, str_from(d->hint));
        buf_add_char(out, '\n');
    }
    add_notes(d, color, out);
}

/* So many letters of a name say which one is meant: `env`. */
#define PREFIX_MIN 3u

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
    for (size_t i = 0; nearest == NULL && word.n >= PREFIX_MIN && i < count; i++) {
        nearest = str_starts(str_from(names[i]), word) ? names[i] : NULL;
    }
    return nearest;
}
