/* A cron expression in the first line, a time zone's rule in the second, a time in the rest. */
#include "common/base.h"

#include "common/buf.h"
#include "common/cron.h"
#include "tests/fuzz/fuzz.h"

/* A TZif file without transitions and with this footer. */
static void add_zone(struct buf *b, struct str rule)
{
    static const char block[] = "TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"              /* no marks */
                                "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\1" /* one type */
                                "\0\0\0\0\0\0\0"; /* without an offset, and its letters */
    buf_add(b, block, sizeof(block) - 1);
    buf_add(b, block, sizeof(block) - 1);
    buf_addf(b, "\n" STR_FMT "\n", STR_ARG(rule));
}

static void check_times(const struct cron *c, const struct tz *tz, int64_t at_s)
{
    int64_t next_s = at_s;
    int64_t previous_s = at_s;
    if (cron_next(c, tz, at_s, &next_s) == 0) {
        check(next_s > at_s && cron_matches(c, tz, next_s));
    }
    if (cron_previous(c, tz, at_s, &previous_s) == 0) {
        check(previous_s < at_s && cron_matches(c, tz, previous_s));
    }
}

void fuzz_one(const uint8_t *p, size_t n)
{
    struct arena arena;
    struct buf zone = BUF_INIT;
    struct str rest = str_of(p, n);
    struct str text = STR("");
    struct str rule = STR("");
    struct cron c;
    struct tz tz;
    const char *why = NULL;
    arena_init(&arena, 0);
    tz_utc(&tz);
    str_split(&rest, '\n', &text);
    str_split(&rest, '\n', &rule);
    add_zone(&zone, rule);
    if (tz_parse(&arena, buf_str(&zone), &tz) < 0) {
        tz_utc(&tz);
    }
    if (cron_parse(text, &c, &why) < 0) {
        check(why);
    } else {
        int64_t at_s = 1774749600; /* the clocks of Europe go forward */
        memcpy(&at_s, rest.p ? rest.p : "", MIN(rest.n, sizeof(at_s)));
        check_times(&c, &tz, at_s);
        check_times(&c, &tz, at_s % 4000000000);
    }
    buf_release(&zone);
    arena_release(&arena);
}
