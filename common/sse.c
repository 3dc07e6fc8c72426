#include "common/base.h"

#include "common/err.h"
#include "common/limits.h"
#include "common/sse.h"

void sse_init(struct sse *s, sse_event_fn on_event, void *ctx)
{
    *s = (struct sse){.on_event = on_event, .ctx = ctx};
    buf_init(&s->line, LIMIT_SSE_BYTES);
    buf_init(&s->id, LIMIT_SSE_BYTES);
    buf_init(&s->event, LIMIT_SSE_BYTES);
    buf_init(&s->data, LIMIT_SSE_BYTES);
}

void sse_release(struct sse *s)
{
    buf_release(&s->line);
    buf_release(&s->id);
    buf_release(&s->event);
    buf_release(&s->data);
}

static void set(struct buf *field, struct str value)
{
    buf_clear(field);
    buf_add_str(field, value);
}

/* "Process the field": what is not known is ignored, so is an id with a NUL. */
static void take_field(struct sse *s, struct str name, struct str value)
{
    if (str_eq(name, STR("data"))) {
        if (s->has_data) {
            buf_add_char(&s->data, '\n');
        }
        s->has_data = true;
        buf_add_str(&s->data, value);
    } else if (str_eq(name, STR("event"))) {
        set(&s->event, value);
    } else if (str_eq(name, STR("id")) && str_chr(value, '\0') < 0) {
        set(&s->id, value);
    }
}

static bool dispatch(struct sse *s)
{
    bool wanted = true;
    if (s->has_data) {
        struct str event = s->event.n > 0 ? buf_str(&s->event) : STR("message");
        wanted = s->on_event(s->ctx, buf_str(&s->id), event, buf_str(&s->data));
    }
    buf_clear(&s->event);
    buf_clear(&s->data);
    s->has_data = false;
    return wanted;
}

/* False: no more events are wanted. */
static bool take_line(struct sse *s, struct str line)
{
    if (!s->any_line && str_starts(line, STR("\xef\xbb\xbf"))) {
        line = str_sub(line, 3, line.n);
    }
    s->any_line = true;
    if (line.n == 0) {
        return dispatch(s);
    }
    ptrdiff_t colon = str_chr(line, ':');
    if (colon == 0) {
        return true; /* a comment */
    }
    struct str name = colon < 0 ? line : str_sub(line, 0, (size_t)colon);
    struct str value = colon < 0 ? STR("") : str_sub(line, (size_t)colon + 1, line.n);
    take_field(s, name, str_starts(value, STR(" ")) ? str_sub(value, 1, value.n) : value);
    return true;
}

/* The length of the part before the next line end; all, where there is none. */
static size_t line_length(struct str bytes)
{
    size_t n = 0;
    while (n < bytes.n && bytes.p[n] != '\n' && bytes.p[n] != '\r') {
        n++;
    }
    return n;
}

int sse_feed(struct sse *s, struct str bytes)
{
    while (bytes.n > 0) {
        if (s->after_cr && bytes.p[0] == '\n') {
            bytes = str_sub(bytes, 1, bytes.n);
        }
        s->after_cr = false;
        size_t n = line_length(bytes);
        buf_add_str(&s->line, str_sub(bytes, 0, n));
        if (n < bytes.n) {
            s->after_cr = bytes.p[n] == '\r';
            bool wanted = take_line(s, buf_str(&s->line));
            buf_truncate(&s->line, 0);
            if (!wanted) {
                return -E_CANCELED;
            }
        }
        if (!buf_ok(&s->line) || !buf_ok(&s->data)) {
            return -E_TOO_BIG;
        }
        bytes = str_sub(bytes, n + 1, bytes.n);
    }
    return 0;
}
