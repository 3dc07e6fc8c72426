#include "common/base.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "common/limits.h"
#include "common/regex.h"

/* Steps of one search, about a millisecond; and memory for backtracking, in KiB. */
#define MATCH_LIMIT    100000u
#define HEAP_LIMIT_KIB 1024u

struct regex {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

static void *regex_malloc(size_t n, void *arena)
{
    return arena_alloc(arena, n);
}

static void regex_free(void *p, void *arena)
{
    (void)p; /* the arena frees all at once */
    (void)arena;
}

bool regex_split_literal(struct str literal, struct str *ret_pattern, struct str *ret_flags)
{
    if (literal.n < 3 || literal.p[0] != '/') {
        return false;
    }
    size_t end = literal.n - 1;
    while (end > 0 && literal.p[end] != '/') {
        if (!strchr("ismU", literal.p[end]) || literal.p[end] == '\0') {
            return false;
        }
        end--;
    }
    if (end < 2 || literal.p[end - 1] == '\\') {
        return false;
    }
    *ret_pattern = str_sub(literal, 1, end - 1);
    *ret_flags = str_sub(literal, end + 1, literal.n);
    return true;
}

static bool contains(const char *set, char c)
{
    return c != '\0' && strchr(set, c);
}

/* The escapes that pcre2 has and RE2 has not; digits are backreferences. */
static const char *foreign_escape(char c)
{
    if (c >= '1' && c <= '9') {
        return "a backreference";
    }
    if (contains("kg", c)) {
        return "a backreference";
    }
    return contains("GKZRXhHNVeclLEuo", c) ? "this escape" : NULL;
}

static const char *foreign_group(struct str rest)
{
    if (rest.n == 0) {
        return NULL;
    }
    if (rest.p[0] == '*') {
        return "a verb";
    }
    if (rest.p[0] != '?' || rest.n < 2) {
        return NULL;
    }
    char c = rest.p[1];
    char next = rest.n > 2 ? rest.p[2] : '\0';
    if (c == '=' || c == '!' || (c == '<' && (next == '=' || next == '!'))) {
        return "lookaround";
    }
    if (c == '<' || (c == 'P' && next == '<')) {
        return NULL;
    }
    return contains("imsU-:", c) ? NULL : "this group";
}

static size_t skip_class(struct str p, size_t i)
{
    i += i + 1 < p.n && p.p[i + 1] == '^' ? 2 : 1;
    for (bool first = true; i < p.n && (p.p[i] != ']' || first); first = false) {
        if (p.p[i] == '\\') {
            i++;
        } else if (p.p[i] == '[' && i + 1 < p.n && p.p[i + 1] == ':') {
            ptrdiff_t end = str_find(str_sub(p, i, p.n), STR(":]"));
            i += end > 0 ? (size_t)end + 1 : 0;
        }
        i++;
    }
    return i;
}

/* What of the pattern RE2 would refuse; NULL: nothing. */
static const char *find_foreign(struct str p, size_t *ret_at)
{
    for (size_t i = 0; i < p.n; i++) {
        const char *what = NULL;
        *ret_at = i;
        if (p.p[i] == '\\' && i + 1 < p.n) {
            if (p.p[i + 1] == 'Q') {
                ptrdiff_t end = str_find(str_sub(p, i, p.n), STR("\\E"));
                i = end < 0 ? p.n : i + (size_t)end;
            } else {
                what = foreign_escape(p.p[i + 1]);
            }
            i++;
        } else if (p.p[i] == '[') {
            i = skip_class(p, i);
        } else if (p.p[i] == '(') {
            what = foreign_group(str_sub(p, i + 1, p.n));
        } else if (contains("*+?}", p.p[i]) && i + 1 < p.n && p.p[i + 1] == '+') {
            what = "a possessive repetition";
        }
        if (what) {
            return what;
        }
    }
    return NULL;
}

static uint32_t flag_options(struct str flags)
{
    uint32_t options = 0;
    for (size_t i = 0; i < flags.n; i++) {
        options |= flags.p[i] == 'i'   ? PCRE2_CASELESS
                   : flags.p[i] == 's' ? PCRE2_DOTALL
                   : flags.p[i] == 'm' ? PCRE2_MULTILINE
                                       : PCRE2_UNGREEDY;
    }
    return options;
}

int regex_compile(struct arena *arena, struct str pattern, struct str flags, struct regex **ret,
                  const char **ret_reason, size_t *ret_at)
{
    const char *foreign = find_foreign(pattern, ret_at);
    if (foreign) {
        *ret_reason = arena_printf(arena, "%s is not part of RE2 expressions", foreign);
        return -E_INVALID;
    }
    pcre2_general_context *memory = pcre2_general_context_create(regex_malloc, regex_free, arena);
    pcre2_compile_context *context = pcre2_compile_context_create(memory);
    pcre2_set_parens_nest_limit(context, LIMIT_YAML_DEPTH);
    int error = 0;
    PCRE2_SIZE at = 0;
    uint32_t options = PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n,
                                     options | flag_options(flags), &error, &at, context);
    if (!code) {
        char *reason = arena_alloc(arena, 128);
        pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, 128);
        *ret_reason = reason;
        *ret_at = at;
        return -E_INVALID;
    }
    struct regex *re = arena_alloc(arena, sizeof(*re));
    re->code = code;
    re->match = pcre2_match_data_create_from_pattern(code, memory);
    re->limits = pcre2_match_context_create(memory);
    pcre2_set_match_limit(re->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(re->limits, HEAP_LIMIT_KIB);
    *ret = re;
    return 0;
}

int regex_search(struct regex *re, struct str text, bool *ret_found)
{
    int r = pcre2_match(re->code, (PCRE2_SPTR)(text.p ? text.p : ""), text.n, 0, 0, re->match,
                        re->limits);
    if (r < 0 && r != PCRE2_ERROR_NOMATCH) {
        return -E_LIMIT;
    }
    *ret_found = r >= 0;
    return 0;
}

/* Behind a match; behind an empty one, a character further. */
static size_t next_from(struct str text, const PCRE2_SIZE *span)
{
    size_t next = span[1];
    if (span[0] == span[1]) {
        do {
            next++;
        } while (next < text.n && ((uint8_t)text.p[next] & 0xc0) == 0x80);
    }
    return next;
}

int regex_find(struct regex *re, struct str text, size_t from, struct str *ret_match,
               size_t *ret_from)
{
    uint32_t groups = 0;
    if (from > text.n) {
        return -E_NOT_FOUND;
    }
    int r = pcre2_match(re->code, (PCRE2_SPTR)(text.p ? text.p : ""), text.n, from, 0, re->match,
                        re->limits);
    if (r < 0) {
        return r == PCRE2_ERROR_NOMATCH ? -E_NOT_FOUND : -E_LIMIT;
    }
    pcre2_pattern_info(re->code, PCRE2_INFO_CAPTURECOUNT, &groups);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(re->match);
    const PCRE2_SIZE *wanted = span + (size_t)2 * groups;
    bool set = groups < (uint32_t)r && wanted[0] != PCRE2_UNSET && wanted[0] <= wanted[1];
    *ret_match = set ? str_sub(text, wanted[0], wanted[1] - wanted[0]) : STR_NULL;
    *ret_from = next_from(text, span);
    return 0;
}
