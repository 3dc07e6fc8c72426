#include "common/base.h"

#include "worker/step/coverage.h"

#include <stdlib.h>

#include "common/limits.h"
#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"
#include "worker/step/step.h"

#define ESC         '\033'
#define PIECE_BYTES ((size_t)256 * KIB)
#define PERCENT_MAX 1000000u /* what is more is no percentage, and is cut */

void coverage_init(struct coverage *c, struct regex *re)
{
    *c = (struct coverage){.re = re};
}

void coverage_release(struct coverage *c)
{
    buf_release(&c->line);
    buf_release(&c->plain);
}

/* The length of the control sequence that a text begins with: ECMA-48, as terminals take it. */
static size_t sequence_length(struct str text)
{
    size_t i = 2;
    if (text.n < 2) {
        return text.n;
    }
    if (text.p[1] == '[') {
        while (i < text.n && (text.p[i] < '@' || text.p[i] > '~')) {
            i++;
        }
        return MIN(i + 1, text.n);
    }
    if (text.p[1] == ']') {
        while (i < text.n && text.p[i] != '\a' && text.p[i] != ESC) {
            i++;
        }
        return MIN(i + (i < text.n && text.p[i] == ESC ? 2 : 1), text.n);
    }
    return 2;
}

void coverage_strip(struct str text, struct buf *out)
{
    ptrdiff_t at;
    while ((at = str_chr(text, ESC)) >= 0) {
        buf_add(out, text.p, (size_t)at);
        text = str_sub(text, (size_t)at, text.n);
        text = str_sub(text, sequence_length(text), text.n);
    }
    buf_add_str(out, text);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool coverage_number(struct str text, uint32_t *ret_hundredths)
{
    size_t i = 0;
    uint32_t whole = 0;
    uint32_t thousandths = 0;
    while (i < text.n && !is_digit(text.p[i])) {
        i++;
    }
    if (i == text.n) {
        return false;
    }
    for (; i < text.n && is_digit(text.p[i]); i++) {
        whole = MIN(whole * 10 + (uint32_t)(text.p[i] - '0'), PERCENT_MAX);
    }
    if (i + 1 < text.n && text.p[i] == '.') {
        for (uint32_t unit = 100; unit > 0 && ++i < text.n && is_digit(text.p[i]); unit /= 10) {
            thousandths += unit * (uint32_t)(text.p[i] - '0');
        }
    }
    *ret_hundredths = whole * 100 + (thousandths + 5) / 10;
    return true;
}

static void search_line(struct coverage *c, struct str line)
{
    struct str rest;
    struct str match;
    struct str last = STR_NULL;
    int r;
    buf_clear(&c->plain);
    coverage_strip(line, &c->plain);
    rest = str_trim(buf_str(&c->plain));
    size_t from = 0;
    while ((r = regex_find(c->re, rest, from, &match, &from)) == 0) {
        last = match;
    }
    c->unsure = c->unsure || r == -E_LIMIT;
    if (last.p != NULL && coverage_number(last, &c->hundredths)) {
        c->found = true;
    }
}

static void end_line(struct coverage *c)
{
    search_line(c, buf_str(&c->line));
    buf_clear(&c->line);
}

void coverage_add(struct coverage *c, struct str piece)
{
    while (piece.n > 0) {
        ptrdiff_t end = str_chr(piece, '\n');
        size_t n = MIN(end < 0 ? piece.n : (size_t)end, LIMIT_COVERAGE_LINE - c->line.n);
        buf_add(&c->line, piece.p, n);
        bool ended = end >= 0 && n == (size_t)end;
        piece = str_sub(piece, n + (ended ? 1 : 0), piece.n);
        if (ended || c->line.n == LIMIT_COVERAGE_LINE) {
            end_line(c);
        }
    }
}

void coverage_end(struct coverage *c)
{
    if (c->line.n > 0) {
        end_line(c);
    }
}

/* The log's head, as far as it is written. */
static int read_spool(struct step *s, struct coverage *c)
{
    struct spool_reader reader;
    struct buf piece = BUF_INIT;
    uint64_t offset = 0;
    int r = spool_open(&reader, s->folder);
    if (r < 0) {
        return r;
    }
    do {
        buf_clear(&piece);
        r = spool_read(&reader, offset, PIECE_BYTES, &piece);
        coverage_add(c, buf_str(&piece));
        offset += piece.n;
    } while (r == 0 && piece.n > 0);
    spool_close(&reader);
    buf_release(&piece);
    return r;
}

/* What was printed once the head was full. The shim says how much of it there is. */
static int read_tail(struct step *s, struct coverage *c)
{
    struct shim_status status = {0};
    struct buf tail = BUF_INIT;
    const char *text = getenv("DAVIT_JOB_TAIL");
    if (text == NULL || shim_tail_parse(str_from(text), &status) < 0) {
        return -E_CORRUPT;
    }
    int r = shim_tail_read(s->folder, &status, &tail);
    coverage_add(c, buf_str(&tail));
    buf_release(&tail);
    return r;
}

static void tell(struct step *s, const struct coverage *c)
{
    Pb__Outcome part = PB__OUTCOME__INIT;
    if (!c->found) {
        step_say("No coverage found in the log");
        return;
    }
    step_say("Coverage: %" PRIu32 ".%02" PRIu32 " %%", c->hundredths / 100, c->hundredths % 100);
    part.has_coverage = true;
    part.coverage_hundredths = c->hundredths;
    int r = prepared_part_write(s->folder, "coverage", &part);
    if (r < 0) {
        step_warn("cannot write down the coverage: %s", err_text(r));
    }
}

int step_coverage(struct step *s)
{
    struct str pattern = pb_str(s->spec->coverage);
    struct str flags = STR_NULL;
    const char *reason = "";
    struct regex *re;
    struct coverage c;
    size_t at;
    (void)regex_split_literal(pattern, &pattern, &flags);
    if (regex_compile(&s->arena, pattern, flags, &re, &reason, &at) < 0) {
        step_warn("coverage: " STR_FMT " is no regular expression: %s",
                  STR_ARG(pb_str(s->spec->coverage)), reason);
        return 0;
    }
    coverage_init(&c, re);
    int r = read_spool(s, &c);
    r = r < 0 ? r : read_tail(s, &c);
    coverage_end(&c);
    if (r < 0) {
        step_warn("coverage: the log cannot be read: %s", err_text(r));
    }
    if (c.unsure) {
        step_warn("coverage: on some lines the expression took too long, they were left out");
    }
    tell(s, &c);
    coverage_release(&c);
    return 0;
}
