#include "common/base.h"

#include "broker/api/hygiene.h"

#include <ctype.h>
#include <strings.h>

/* Headers that this server reads, or that say where a message ends: each may stand once. */
static const char *const single[] = {
    "Host",  "Content-Length",  "Transfer-Encoding", "Authorization",
    "Range", "Idempotency-Key", "Last-Event-ID",     "Content-Type",
};
enum { CONTENT_LENGTH = 1, TRANSFER_ENCODING = 2 };

struct scan {
    unsigned seen[ARRAY_LEN(single)];
    const char *bad; /* static text; NULL: fine so far */
};

bool hygiene_target_ok(const char *uri)
{
    for (const char *p = uri; *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7f || strncmp(p, "%00", 3) == 0) {
            return false;
        }
    }
    return uri[0] == '/';
}

/* RFC 9110, 5.6.2: "token = 1*tchar". */
static bool is_token(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (!isalnum(c) && (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c))) {
            return false;
        }
    }
    return n > 0;
}

static enum MHD_Result scan_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                   size_t name_size, const char *value, size_t value_size)
{
    struct scan *s = cls;
    (void)kind;
    if (!is_token(name, name_size)) {
        s->bad = "a header's name is no token";
        return MHD_NO;
    }
    if (value && memchr(value, '\0', value_size)) {
        s->bad = "a header's value holds a NUL";
        return MHD_NO;
    }
    for (size_t i = 0; i < ARRAY_LEN(single); i++) {
        if (strcasecmp(name, single[i]) == 0 && ++s->seen[i] > 1) {
            s->bad = "a header stands twice";
            return MHD_NO;
        }
    }
    return MHD_YES;
}

static bool has_dot_segment(struct str path)
{
    struct str segment;
    while (str_split(&path, '/', &segment)) {
        if (str_eq(segment, STR("..")) || str_eq(segment, STR("."))) {
            return true;
        }
    }
    return false;
}

int hygiene_check(struct request *rq, const char *path)
{
    struct scan s = {0};
    MHD_get_connection_values_n(rq->conn, MHD_HEADER_KIND, scan_header, &s);
    if (!s.bad && s.seen[CONTENT_LENGTH] > 0 && s.seen[TRANSFER_ENCODING] > 0) {
        s.bad = "both Content-Length and Transfer-Encoding";
    }
    if (!s.bad && (rq->bad_target || has_dot_segment(str_from(path)))) {
        s.bad = "the path is not allowed";
    }
    if (!s.bad) {
        return 0;
    }
    rq->close = true;
    return request_fail(rq, -E_INVALID, "%s", s.bad);
}
