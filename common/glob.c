/* Braces are expanded first; then a pattern without braces is matched folder by folder. Stars give
 * up only the choice of the latest star, which is enough for a match and keeps the time quadratic:
 * what an earlier star could take, the latest one can take as well. */
#include "common/base.h"

#include "common/buf.h"
#include "common/glob.h"
#include "common/limits.h"

/* Takes one character off s: a UTF-8 sequence, or a byte where it is none. */
static struct str take_character(struct str *s)
{
    size_t n = 1;
    while (n < s->n && n < 4 && ((uint8_t)s->p[0] & 0xc0) == 0xc0 &&
           ((uint8_t)s->p[n] & 0xc0) == 0x80) {
        n++;
    }
    struct str character = str_sub(*s, 0, n);
    *s = str_sub(*s, n, s->n);
    return character;
}

/* A character of a pattern, with the backslash before it dropped. */
static struct str take_literal(struct str *pattern)
{
    if (pattern->n > 1 && pattern->p[0] == '\\') {
        *pattern = str_sub(*pattern, 1, pattern->n);
    }
    return take_character(pattern);
}

/* "a-z]" behind the opening bracket. False where the bracket is not closed, or does not match.
 * UTF-8 sorts bytewise as its characters do, so ranges compare with str_cmp. */
static bool match_bracket(struct str *pattern, struct str character)
{
    bool negated = pattern->n > 0 && (pattern->p[0] == '!' || pattern->p[0] == '^');
    bool found = false;
    if (negated) {
        *pattern = str_sub(*pattern, 1, pattern->n);
    }
    while (pattern->n > 0 && pattern->p[0] != ']') {
        struct str first = take_literal(pattern);
        struct str last = first;
        if (pattern->n > 1 && pattern->p[0] == '-' && pattern->p[1] != ']') {
            *pattern = str_sub(*pattern, 1, pattern->n);
            last = take_literal(pattern);
        }
        found |= str_cmp(first, character) <= 0 && str_cmp(character, last) <= 0;
    }
    if (pattern->n == 0) {
        return false;
    }
    *pattern = str_sub(*pattern, 1, pattern->n);
    return found != negated;
}

/* One step that is not a star: takes a character off both sides. */
static bool match_character(struct str *pattern, struct str *name)
{
    if (pattern->n == 0 || name->n == 0) {
        return false;
    }
    if (pattern->p[0] == '?') {
        *pattern = str_sub(*pattern, 1, pattern->n);
        take_character(name);
        return true;
    }
    if (pattern->p[0] == '[') {
        *pattern = str_sub(*pattern, 1, pattern->n);
        return match_bracket(pattern, take_character(name));
    }
    return str_eq(take_literal(pattern), take_character(name));
}

/* What the search for one match may still cost. */
static bool take_step(size_t *steps)
{
    *steps -= *steps > 0;
    return *steps > 0;
}

/* One folder or file name, without slashes on either side. */
static bool match_name(struct str pattern, struct str name, size_t *steps)
{
    struct str star_pattern = STR_NULL;
    struct str star_name = STR_NULL;
    while (pattern.n > 0 || name.n > 0) {
        if (!take_step(steps)) {
            return false;
        }
        if (pattern.n > 0 && pattern.p[0] == '*') {
            pattern = str_sub(pattern, 1, pattern.n);
            star_pattern = pattern;
            star_name = name;
        } else if (!match_character(&pattern, &name)) {
            if (star_name.n == 0) {
                return false;
            }
            take_character(&star_name);
            pattern = star_pattern;
            name = star_name;
        }
    }
    return true;
}

static bool has_part(struct str rest)
{
    return rest.p != NULL;
}

/* A pattern without braces. */
static bool match_path(enum glob_dialect dialect, struct str pattern, struct str path,
                       size_t *steps)
{
    struct str stars_pattern = STR_NULL; /* behind the latest double star */
    struct str stars_path = STR_NULL;
    while ((has_part(pattern) || has_part(path)) && take_step(steps)) {
        struct str ahead = pattern;
        struct str part = STR_NULL;
        struct str name = STR_NULL;
        bool more = str_split(&ahead, '/', &part);
        if (more && str_eq(part, STR("**")) && (has_part(ahead) || dialect == GLOB_STAR)) {
            if (!has_part(ahead)) {
                return true;
            }
            pattern = ahead;
            stars_pattern = pattern;
            stars_path = path;
        } else if (more && str_split(&path, '/', &name) && match_name(part, name, steps)) {
            pattern = ahead;
        } else {
            /* The double star takes one folder more; the last name is never a folder. */
            if (!str_split(&stars_path, '/', &name) || !has_part(stars_path)) {
                return false;
            }
            pattern = stars_pattern;
            path = stars_path;
        }
    }
    return !has_part(pattern) && !has_part(path);
}

struct braces {
    size_t open;
    size_t close;
};

/* The first group that is closed; backslashes hide what follows them. */
static bool find_braces(struct str pattern, struct braces *ret)
{
    size_t depth = 0;
    for (size_t i = 0; i < pattern.n; i++) {
        if (pattern.p[i] == '\\') {
            i++;
        } else if (pattern.p[i] == '{') {
            ret->open = depth == 0 ? i : ret->open;
            depth++;
        } else if (pattern.p[i] == '}' && depth > 0 && --depth == 0) {
            ret->close = i;
            return true;
        }
    }
    return false;
}

/* Cuts the text before the next comma that stands in no inner group. */
static bool take_alternative(struct str *rest, struct str *ret)
{
    size_t depth = 0;
    size_t i = 0;
    if (rest->p == NULL) {
        return false;
    }
    for (; i < rest->n && (depth > 0 || rest->p[i] != ','); i++) {
        if (rest->p[i] == '\\') {
            i++;
        } else if (rest->p[i] == '{') {
            depth++;
        } else if (rest->p[i] == '}') {
            depth--;
        }
    }
    *ret = str_sub(*rest, 0, i);
    *rest = i < rest->n ? str_sub(*rest, i + 1, rest->n) : STR_NULL;
    return true;
}

struct alternatives {
    enum glob_dialect dialect;
    struct str path;
    unsigned left;
    size_t *steps;
};

static bool match_alternatives(struct alternatives *alts, struct str pattern, unsigned depth)
{
    struct braces at = {0};
    struct str one;
    bool matched = false;
    if (!find_braces(pattern, &at)) {
        if (alts->left == 0) {
            return false;
        }
        alts->left--;
        return match_path(alts->dialect, pattern, alts->path, alts->steps);
    }
    if (depth == LIMIT_GLOB_BRACES) {
        alts->left = 0; /* or each of the alternatives so far would come here */
        return false;
    }
    struct str rest = str_sub(pattern, at.open + 1, at.close - at.open - 1);
    while (!matched && alts->left > 0 && take_alternative(&rest, &one)) {
        struct buf whole = BUF_INIT;
        buf_add_str(&whole, str_sub(pattern, 0, at.open));
        buf_add_str(&whole, one);
        buf_add_str(&whole, str_sub(pattern, at.close + 1, pattern.n));
        matched = match_alternatives(alts, buf_str(&whole), depth + 1);
        buf_release(&whole);
    }
    return matched;
}

bool glob_match_within(enum glob_dialect dialect, struct str pattern, struct str path,
                       size_t *steps)
{
    struct alternatives alts = {
        .dialect = dialect, .path = path, .left = LIMIT_GLOB_ALTERNATIVES, .steps = steps};
    return pattern.n <= LIMIT_GLOB_BYTES && match_alternatives(&alts, pattern, 0);
}

bool glob_match(enum glob_dialect dialect, struct str pattern, struct str path)
{
    size_t steps = LIMIT_GLOB_STEPS;
    return glob_match_within(dialect, pattern, path, &steps);
}
