#include "common/base.h"

#include "tests/bench/peers/pgwire.h"

static uint32_t read_number(const char *p, size_t bytes)
{
    uint32_t n = 0;

    for (size_t i = 0; i < bytes; i++) {
        n = n << 8 | (uint8_t)p[i];
    }
    return n;
}

static void add_number(struct buf *out, uint32_t n, size_t bytes)
{
    for (size_t i = bytes; i > 0; i--) {
        buf_add_char(out, (char)(n >> (8 * (i - 1)) & 0xff));
    }
}

static void add_zero_ended(struct buf *out, const char *s)
{
    buf_add(out, s, strlen(s) + 1);
}

static size_t begin(struct buf *out, char type)
{
    if (type) {
        buf_add_char(out, type);
    }
    add_number(out, 0, 4);
    return out->n - 4;
}

static void end(struct buf *out, size_t at)
{
    size_t n = out->n - at;

    for (size_t i = 0; i < 4; i++) {
        out->p[at + i] = (char)(n >> (24 - 8 * i) & 0xff);
    }
}

bool pg_take(struct str *rest, struct pg_message *ret)
{
    if (rest->n < 5) {
        return false;
    }
    size_t n = read_number(rest->p + 1, 4);
    if (rest->n < 1 + n) {
        return false;
    }
    *ret = (struct pg_message){.type = rest->p[0], .body = str_sub(*rest, 5, n - 4)};
    *rest = str_sub(*rest, 1 + n, rest->n);
    return true;
}

struct str pg_column(struct str row, size_t index)
{
    size_t count = row.n >= 2 ? read_number(row.p, 2) : 0;
    size_t at = 2;

    for (size_t i = 0; i < count; i++) {
        check(at + 4 <= row.n);
        int32_t n = (int32_t)read_number(row.p + at, 4);
        at += 4;
        if (i == index) {
            return n < 0 ? STR_NULL : str_sub(row, at, (size_t)n);
        }
        at += n < 0 ? 0 : (size_t)n;
    }
    return STR_NULL;
}

struct str pg_error(struct str body)
{
    struct str field;

    while (str_split(&body, '\0', &field)) {
        if (str_starts(field, STR("M"))) {
            return str_sub(field, 1, field.n);
        }
    }
    return STR("an error without a text");
}

void pg_startup(struct buf *out)
{
    size_t at = begin(out, 0);

    add_number(out, 3 << 16, 4);
    add_zero_ended(out, "user");
    add_zero_ended(out, "postgres");
    add_zero_ended(out, "database");
    add_zero_ended(out, "postgres");
    add_zero_ended(out, "options");
    /* A table that was empty when it was last looked at would be read from end to end. */
    add_zero_ended(out, "-c enable_seqscan=off -c plan_cache_mode=force_generic_plan");
    buf_add_char(out, '\0');
    end(out, at);
}

void pg_query(struct buf *out, const char *sql)
{
    size_t at = begin(out, 'Q');

    add_zero_ended(out, sql);
    end(out, at);
}

void pg_parse(struct buf *out, const char *statement, const char *sql)
{
    size_t at = begin(out, 'P');

    add_zero_ended(out, statement);
    add_zero_ended(out, sql);
    add_number(out, 0, 2);
    end(out, at);
}

void pg_execute(struct buf *out, const char *statement, struct str argument)
{
    size_t at = begin(out, 'B');

    add_zero_ended(out, "");
    add_zero_ended(out, statement);
    add_number(out, 0, 2);
    add_number(out, argument.p ? 1 : 0, 2);
    if (argument.p) {
        add_number(out, (uint32_t)argument.n, 4);
        buf_add_str(out, argument);
    }
    add_number(out, 0, 2);
    end(out, at);
    at = begin(out, 'E');
    add_zero_ended(out, "");
    add_number(out, 0, 4);
    end(out, at);
}

void pg_sync(struct buf *out)
{
    end(out, begin(out, 'S'));
}
