/* Strings by value for reading: a pointer and a length, not NUL-terminated, owned by somebody else.
 * Building is buf.h. Threads: pure. */
#ifndef DAVIT_STR_H
#define DAVIT_STR_H

#include "common/base.h"

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
#define STR_NULL     ((struct str){NULL, 0})
#define STR_FMT      "%.*s"
#define STR_ARG(s)   (int)(s).n, (s).p

/* NULL gives STR_NULL */
static inline struct str str_from(const char *s)
{
    return s != NULL ? (struct str){s, strlen(s)} : STR_NULL;
}

static inline struct str str_of(const void *p, size_t n)
{
    return (struct str){p, n};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_eqz(struct str a, const char *b)
{
    return str_eq(a, str_from(b));
}

/* Clipped to s. */
static inline struct str str_sub(struct str s, size_t from, size_t n)
{
    if (s.p == NULL) {
        return s;
    }
    from = MIN(from, s.n);
    return (struct str){s.p + from, MIN(n, s.n - from)};
}

/* For hash tables whose keys others choose. */
uint32_t str_hash(struct str s, uint64_t seed);
int str_cmp(struct str a, struct str b); /* bytewise, shorter first */
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
struct str str_trim(struct str s);                 /* blanks, tabs, CR, LF at both ends */
ptrdiff_t str_find(struct str s, struct str what); /* offset or -1 */
ptrdiff_t str_chr(struct str s, char c);           /* offset or -1 */
char *str_dup(struct str s);                       /* heap, NUL-terminated */

/* Cuts the part before `sep` off *rest (the whole rest, where there is no sep). False at the end.
 */
bool str_split(struct str *rest, char sep, struct str *ret_part);

/* Whole strings only, no blanks, no sign but '-' for i64; 0 or -E_INVALID. */
int str_to_u64(struct str s, uint64_t *ret);
int str_to_i64(struct str s, int64_t *ret);
/* The way back, in decimal: a part of `room`. */
#define STR_U64_BYTES 20u
struct str str_of_u64(uint64_t v, char room[STR_U64_BYTES]);

/* True for well-formed UTF-8 without NUL; *ret_at (may be NULL) gets the offset of the first bad
 * byte. */
bool str_is_utf8(struct str s, size_t *ret_at);
/* The bytes of the first character; a byte that begins none counts as one. 0 for an empty text. */
size_t str_char_length(struct str s);
/* How many places the first character takes on a terminal: 1; 2 for wide ones, of CJK and emoji; 0
 * for those that are written over the one before. */
unsigned str_char_columns(struct str s);
/* "group/name": at most LIMIT_NAME bytes, and fit to be a folder below another one. */
bool str_is_project_name(struct str s);
/* Such a name, or "group/" with a star: all below the group. */
bool str_is_project_pattern(struct str s);
/* `*` is any text, of slashes, too; every other character is itself. */
bool str_matches(struct str pattern, struct str text);
/* Letters, digits, blanks and -_/.${}, no / at its ends, 1 to LIMIT_NAME bytes. */
bool str_is_environment_name(struct str s);

/* "1h 30m", "90 minutes", "2 days 3h", "3600" (seconds), "never" is not one: as GitLab reads
 * durations. 0 or -E_INVALID. */
int str_to_duration_ms(struct str s, uint64_t *ret_ms);

/* "2026-02-03T04:05:06Z", UTC; buffer of at least 32. Gives ret_text. */
const char *str_time(uint64_t realtime_ms, char *ret_text, size_t n);
/* "2026-02-03T04:05:06.789+02:00": a blank may stand for the T; seconds and what follows may be
 * missing; without a zone it is UTC. From 1970 to 9999; 0 or -E_INVALID. */
int str_to_time_ms(struct str s, uint64_t *ret_realtime_ms);

/* "500m", "2", "1.5" processors, in thousandths; "512Mi", "2G", "1000" bytes. 0 or -E_INVALID. */
int str_to_cpu_millis(struct str s, uint32_t *ret);
int str_to_size(struct str s, uint64_t *ret_bytes);

/* Damerau-Levenshtein distance, for "did you mean"; gives up above max and returns max + 1. */
size_t str_distance(struct str a, struct str b, size_t max);

/* Hex, lower case. str_from_hex: 0 or -E_INVALID; n is the number of bytes wanted. */
void str_to_hex(const uint8_t *bytes, size_t n, char *ret_hex /* 2n + 1 */);
int str_from_hex(struct str hex, uint8_t *ret_bytes, size_t n);

#endif
