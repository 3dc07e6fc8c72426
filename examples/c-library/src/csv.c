#include "csv.h"

#include <stdlib.h>

enum state { FIELD_START, PLAIN, QUOTED, QUOTE_IN_QUOTED, AFTER_CR };

struct csv {
    struct csv_events events;
    enum state state;
    enum csv_result failed;
    char separator;
    char *field;
    size_t size;
    size_t room;
    size_t max_field;
    size_t fields; /* of the record that were read */
    size_t line;
};

struct csv *csv_new(char separator, size_t max_field, const struct csv_events *events)
{
    struct csv *p = calloc(1, sizeof(*p));
    if (p) {
        p->events = *events;
        p->separator = separator;
        p->max_field = max_field;
        p->line = 1;
    }
    return p;
}

static enum csv_result add(struct csv *p, char c)
{
    if (p->size == p->max_field) {
        return CSV_ERROR_LENGTH;
    }
    if (p->size == p->room) {
        size_t room = p->room * 2 + 64;
        char *more = realloc(p->field, room);
        if (!more) {
            return CSV_ERROR_MEMORY;
        }
        p->field = more;
        p->room = room;
    }
    p->field[p->size++] = c;
    return CSV_OK;
}

static enum csv_result end_field(struct csv *p)
{
    int stop = p->events.field(p->events.ctx, p->field ? p->field : "", p->size);
    p->size = 0;
    p->fields++;
    p->state = FIELD_START;
    return stop ? CSV_STOPPED : CSV_OK;
}

static enum csv_result end_record(struct csv *p)
{
    enum csv_result r = end_field(p);
    if (r == CSV_OK && p->events.record(p->events.ctx, p->fields)) {
        r = CSV_STOPPED;
    }
    p->fields = 0;
    p->line++;
    return r;
}

/* Outside of quotes: separators and line ends divide. */
static enum csv_result divide(struct csv *p, char c)
{
    if (c == p->separator) {
        return end_field(p);
    }
    if (c == '\n') {
        return end_record(p);
    }
    if (c == '\r') {
        p->state = AFTER_CR;
        return CSV_OK;
    }
    if (p->state == QUOTE_IN_QUOTED) {
        return CSV_ERROR_QUOTE;
    }
    p->state = PLAIN;
    return add(p, c);
}

static enum csv_result step(struct csv *p, char c)
{
    enum csv_result r;
    switch (p->state) {
    case FIELD_START:
        if (c == '"') {
            p->state = QUOTED;
            return CSV_OK;
        }
        return divide(p, c);
    case QUOTED:
        if (c == '"') {
            p->state = QUOTE_IN_QUOTED;
            return CSV_OK;
        }
        p->line += c == '\n';
        return add(p, c);
    case QUOTE_IN_QUOTED:
        if (c == '"') {
            p->state = QUOTED;
            return add(p, c);
        }
        return divide(p, c);
    case AFTER_CR:
        if (c == '\n') {
            return end_record(p);
        }
        p->state = PLAIN;
        r = add(p, '\r');
        return r == CSV_OK ? divide(p, c) : r;
    case PLAIN:
    default:
        return divide(p, c);
    }
}

enum csv_result csv_feed(struct csv *p, const char *text, size_t size)
{
    for (size_t i = 0; i < size && p->failed == CSV_OK; i++) {
        p->failed = step(p, text[i]);
    }
    return p->failed;
}

enum csv_result csv_finish(struct csv *p)
{
    if (p->failed == CSV_OK && p->state == QUOTED) {
        p->failed = CSV_ERROR_QUOTE;
    }
    if (p->failed == CSV_OK && p->state == AFTER_CR) {
        p->state = PLAIN;
        p->failed = add(p, '\r');
    }
    if (p->failed == CSV_OK && (p->state != FIELD_START || p->fields > 0)) {
        p->failed = end_record(p);
    }
    return p->failed;
}

size_t csv_line(const struct csv *p)
{
    return p->line;
}

const char *csv_text(enum csv_result result)
{
    static const char *const texts[] = {
        [CSV_OK] = "fine",
        [CSV_ERROR_QUOTE] = "a quoted field does not end as it should",
        [CSV_ERROR_LENGTH] = "a field is too long",
        [CSV_ERROR_MEMORY] = "out of memory",
        [CSV_STOPPED] = "stopped by the reader",
    };
    return texts[result];
}

void csv_free(struct csv *p)
{
    if (p) {
        free(p->field);
        free(p);
    }
}
