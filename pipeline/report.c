#include "common/base.h"

#include <stdarg.h>
#include <stdio.h>

#include "pipeline/compile.h"

static bool reported_before(const struct diags *d, const char *code, struct diag_at at)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct diag *o = &d->items[i];
        if (at.line > 0 && o->line == at.line && o->column == at.column &&
            strcmp(o->code, code) == 0 && strcmp(o->file, at.file) == 0) {
            return true;
        }
    }
    return false;
}

/* Messages quote what people wrote: a limit keeps them readable. */
#define MESSAGE_BYTES 500

PRINTF_LIKE(6, 0)
static void add(struct compile *c, enum diag_level level, const struct node *at, const char *code,
                const char *hint, const char *fmt, va_list ap)
{
    char text[MESSAGE_BYTES];
    struct diag_at where = node_at(at);
    if (!at) {
        where.file = c->in->file;
    }
    if (reported_before(c->diags, code, where)) {
        return;
    }
    struct str message = STR("");
    size_t count = c->diags->count;
    if (c->diags->count < LIMIT_DIAGS) { /* else it is counted, not kept */
        vsnprintf(text, sizeof(text), fmt, ap);
        message = str_from(text);
    }
    if (c->job_at) {
        struct str name = str_sub(c->job_at->text, 0, LIMIT_NAME);
        diag_add(c->diags, level, code, where, hint, STR_FMT " (in job `" STR_FMT "`)",
                 STR_ARG(message), STR_ARG(name));
    } else {
        diag_add(c->diags, level, code, where, hint, STR_FMT, STR_ARG(message));
    }
    if (c->diags->count > count) {
        trail_add(c, &c->diags->items[count]);
    }
}

void report(struct compile *c, const struct node *at, const char *code, const char *hint,
            const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(c, DIAG_ERROR, at, code, hint, fmt, ap);
    va_end(ap);
}

void report_warning(struct compile *c, const struct node *at, const char *code, const char *hint,
                    const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(c, DIAG_WARNING, at, code, hint, fmt, ap);
    va_end(ap);
}

/* Comparing takes the square of the word's length for each name; and a list that is full shows no
 * more hints. */
#define SUGGEST_STEPS 2000000u

const char *suggest(struct compile *c, struct str word, const char *const *names, size_t count)
{
    if (c->diags->count == LIMIT_DIAGS || word.n > LIMIT_NAME ||
        count * word.n * word.n > SUGGEST_STEPS) {
        return NULL;
    }
    const char *nearest = diag_nearest(word, names, count);
    return nearest ? arena_printf(c->arena, "did you mean `%s`?", nearest) : NULL;
}

const char *suggest_keyword(struct compile *c, struct str word, enum scope scope)
{
    const char *names[KEYWORDS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < keyword_count; i++) {
        if (keywords[i].scope == scope) {
            names[count++] = keywords[i].name.p;
        }
    }
    return suggest(c, word, names, count);
}

bool compile_failed(const struct compile *c)
{
    return c->diags->errors > c->errors_before;
}

bool compile_charge(struct compile *c, size_t steps, const struct node *at)
{
    c->work += steps;
    if (c->work <= LIMIT_COMPILE_WORK) {
        return true;
    }
    if (!c->exhausted) {
        c->exhausted = true;
        report(c, at, "too-much-work", NULL,
               "the file is too big once everything in it is written out");
    }
    return false;
}
