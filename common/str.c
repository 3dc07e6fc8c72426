#include "common/base.h"

#include "common/err.h"
#include "common/limits.h"
#include "common/str.h"

/* Both halves of the product, so that every bit of the seed decides what collides with what. */
static uint64_t fold(uint64_t a)
{
    unsigned __int128 product = (unsigned __int128)a * 0x9e3779b97f4a7c15u; /* the golden ratio */
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint32_t str_hash(struct str s, uint64_t seed)
{
    uint64_t hash = fold(seed ^ s.n);
    uint64_t word;
    for (; s.n >= sizeof(word); s.p += sizeof(word), s.n -= sizeof(word)) {
        memcpy(&word, s.p, sizeof(word));
        hash = fold(hash ^ word);
    }
    word = 0;
    if (s.n > 0) {
        memcpy(&word, s.p, s.n);
    }
    return (uint32_t)fold(hash ^ word);
}

int str_cmp(struct str a, struct str b)
{
    size_t n = MIN(a.n, b.n);
    int order = n > 0 ? memcmp(a.p, b.p, n) : 0;
    return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq(str_sub(s, 0, prefix.n), prefix);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n && str_eq(str_sub(s, s.n - suffix.n, suffix.n), suffix);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct str str_trim(struct str s)
{
    while (s.n > 0 && is_blank(s.p[0])) {
        s = str_sub(s, 1, s.n - 1);
    }
    while (s.n > 0 && is_blank(s.p[s.n - 1])) {
        s.n--;
    }
    return s;
}

ptrdiff_t str_find(struct str s, struct str what)
{
    if (what.n == 0) {
        return 0;
    }
    const char *at = s.n >= what.n ? memmem(s.p, s.n, what.p, what.n) : NULL;
    return at != NULL ? at - s.p : -1;
}

ptrdiff_t str_chr(struct str s, char c)
{
    const char *at = s.n > 0 ? memchr(s.p, c, s.n) : NULL;
    return at != NULL ? at - s.p : -1;
}

char *str_dup(struct str s)
{
    char *copy = xmalloc(s.n + 1);
    if (s.n > 0) {
        memcpy(copy, s.p, s.n);
    }
    copy[s.n] = '\0';
    return copy;
}

bool str_split(struct str *rest, char sep, struct str *ret_part)
{
    if (rest->p == NULL) {
        return false;
    }
    ptrdiff_t at = str_chr(*rest, sep);
    if (at < 0) {
        *ret_part = *rest;
        *rest = STR_NULL; /* A part behind the last separator may be empty, so NULL is the end. */
    } else {
        *ret_part = str_sub(*rest, 0, (size_t)at);
        *rest = str_sub(*rest, (size_t)at + 1, rest->n);
    }
    return true;
}

int str_to_u64(struct str s, uint64_t *ret)
{
    uint64_t value = 0;
    if (s.n == 0) {
        return -E_INVALID;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.p[i] - '0'), &value)) {
            return -E_INVALID;
        }
    }
    *ret = value;
    return 0;
}

struct str str_of_u64(uint64_t v, char room[STR_U64_BYTES])
{
    size_t at = STR_U64_BYTES;

    do {
        room[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    return str_of(room + at, STR_U64_BYTES - at);
}

int str_to_i64(struct str s, int64_t *ret)
{
    bool negative = s.n > 0 && s.p[0] == '-';
    uint64_t size;
    if (str_to_u64(negative ? str_sub(s, 1, s.n) : s, &size) < 0 ||
        size > (uint64_t)INT64_MAX + negative) {
        return -E_INVALID;
    }
    /* Negated while unsigned, as INT64_MIN has no positive counterpart. */
    *ret = (int64_t)(negative ? 0 - size : size);
    return 0;
}

size_t str_distance(struct str a, struct str b, size_t max)
{
    enum { LONGEST = 127 };
    size_t rows[3][LONGEST + 1];
    size_t gap = a.n > b.n ? a.n - b.n : b.n - a.n;
    if (gap > max || a.n > LONGEST || b.n > LONGEST) {
        return max + 1;
    }
    for (size_t j = 0; j <= b.n; j++) {
        rows[0][j] = j;
    }
    /* Optimal string alignment; row i % 3 is the current one, the two before it are kept. */
    for (size_t i = 1; i <= a.n; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i - 1) % 3];
        size_t best = row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t other = a.p[i - 1] != b.p[j - 1];
            row[j] = MIN(MIN(above[j], row[j - 1]) + 1, above[j - 1] + other);
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1]) {
                row[j] = MIN(row[j], rows[(i - 2) % 3][j - 2] + 1);
            }
            best = MIN(best, row[j]);
        }
        if (best > max) {
            return max + 1;
        }
    }
    return MIN(rows[a.n % 3][b.n], max + 1);
}

void str_to_hex(const uint8_t *bytes, size_t n, char *ret_hex)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        ret_hex[2 * i] = digits[bytes[i] >> 4];
        ret_hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret_hex[2 * n] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int str_from_hex(struct str hex, uint8_t *ret_bytes, size_t n)
{
    if (hex.n != 2 * n) {
        return -E_INVALID;
    }
    for (size_t i = 0; i < hex.n; i++) {
        if (hex_value(hex.p[i]) < 0) {
            return -E_INVALID;
        }
    }
    for (size_t i = 0; i < n; i++) {
        ret_bytes[i] = (uint8_t)(hex_value(hex.p[2 * i]) << 4 | hex_value(hex.p[2 * i + 1]));
    }
    return 0;
}

bool str_is_project_name(struct str s)
{
    struct str part;
    if (s.n == 0 || s.n > LIMIT_NAME || s.p[s.n - 1] == '/') {
        return false;
    }
    while (str_split(&s, '/', &part)) {
        if (part.n == 0 || str_eqz(part, ".") || str_eqz(part, "..")) {
            return false;
        }
    }
    return true;
}

bool str_is_project_pattern(struct str s)
{
    if (str_ends(s, STR("/*"))) {
        s = str_sub(s, 0, s.n - 2);
    }
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f || s.p[i] == '*') {
            return false;
        }
    }
    return str_is_project_name(s);
}

bool str_is_environment_name(struct str s)
{
    static const char others[] = "-_/.${} ";
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            !memchr(others, c, sizeof(others) - 1)) {
            return false;
        }
    }
    return s.n > 0 && s.n <= LIMIT_NAME && s.p[0] != '/' && s.p[s.n - 1] != '/';
}

bool str_matches(struct str pattern, struct str text)
{
    size_t p = 0;
    size_t t = 0;
    size_t star = SIZE_MAX; /* the last one, and where its text began */
    size_t star_t = 0;

    while (t < text.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            star_t = t;
        } else if (p < pattern.n && pattern.p[p] == text.p[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++star_t;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*') {
        p++;
    }
    return p == pattern.n;
}
