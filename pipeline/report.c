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

static void add(struct compile *c, enum diag_level level, const struct node *at, const char *code,
                const char *hint, struct str message)
{
    struct diag_at where = node_at(at);
    if (!at) {
        where.file = c->in->file;
    }
    if (reported_before(c->diags, code, where)) {
        return;
    }
    if (c->job_at) {
        struct str name = str_sub(c->job_at->text, 0, LIMIT_NAME);
        diag_add(c->diags, level, code, where, hint, STR_FMT " (in job `" STR_FMT "`)",
                 STR_ARG(message), STR_ARG(name));
        return;
    }
    diag_add(c->diags, level, code, where, hint, STR_FMT, STR_ARG(message));
}

/* Messages quote what people wrote: a limit keeps them readable. */
#define MESSAGE_BYTES 500

void report(struct compile *c, const struct node *at, const char *code, const char *hint,
            const char *fmt, ...)
{
    char text[MESSAGE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    add(c, DIAG_ERROR, at, code, hint, str_from(text));
}

void report_warning(struct compile *c, const struct node *at, const char *code, const char *hint,
                    const char *fmt, ...)
{
    char text[MESSAGE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    add(c, DIAG_WARNING, at, code, hint, str_from(text));
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
