/* What Psych 5 makes of a plain scalar (its ScalarScanner is the contract, measured on 5.0.2). The
 * patterns are few and small, so they are matched by hand; each function names its pattern. */
#include "common/base.h"

#include "pipeline/yaml.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool one_of(struct str s, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (str_eqz(s, words[i])) {
            return true;
        }
    }
    return false;
}

static bool read_word(struct str s, struct node *n)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    static const char *const plain[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
    static const char *const truths[] = {"yes", "Yes", "YES", "on", "On", "ON"};
    static const char *const lies[] = {"no", "No", "NO", "off", "Off", "OFF"};
    if (one_of(s, nulls, ARRAY_LEN(nulls))) {
        n->type = SCALAR_NULL;
        return true;
    }
    bool is_plain = one_of(s, plain, ARRAY_LEN(plain));
    bool yes = one_of(s, truths, ARRAY_LEN(truths));
    if (!is_plain && !yes && !one_of(s, lies, ARRAY_LEN(lies))) {
        return false;
    }
    n->type = SCALAR_BOOL;
    n->truth = is_plain ? s.p[0] == 't' || s.p[0] == 'T' : yes;
    n->surprising = !is_plain;
    return true;
}

/* Digits of a base, with the separators that Ruby skips. False where another character stands, or
 * the number does not fit. */
static bool read_digits(struct str s, unsigned base, int64_t *ret)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        unsigned digit = is_digit(c)            ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 99;
        if (c == '_' || c == ',') {
            continue;
        }
        if (digit >= base || v > (uint64_t)(INT64_MAX / 16)) {
            return false;
        }
        v = v * base + digit;
    }
    *ret = (int64_t)v;
    return s.n > 0;
}

/* (0|[1-9]([0-9]|,[0-9]|_[0-9])*) */
static bool read_decimal(struct str s, int64_t *ret, bool *ret_separated)
{
    uint64_t v = 0;
    if (s.n == 0 || !is_digit(s.p[0]) || (s.p[0] == '0' && s.n > 1)) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == ',' || s.p[i] == '_') {
            *ret_separated = true;
            if (i + 1 == s.n || !is_digit(s.p[i + 1])) {
                return false;
            }
            continue;
        }
        if (!is_digit(s.p[i]) || v > (uint64_t)(INT64_MAX / 16)) {
            return false;
        }
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    *ret = (int64_t)v;
    return true;
}

/* [0-9][0-9_]*(:[0-5]?[0-9]){1,2}: hours:minutes:seconds, in seconds. */
static bool read_sexagesimal(struct str s, int64_t *ret)
{
    struct str rest = s;
    struct str part;
    int64_t total = 0;
    size_t parts = 0;
    static const int64_t weights[] = {3600, 60, 1};
    while (str_split(&rest, ':', &part)) {
        int64_t v;
        if (parts == ARRAY_LEN(weights) || part.n == 0 || part.n > 9 || !is_digit(part.p[0]) ||
            !read_digits(part, 10, &v) || (parts > 0 && (part.n > 2 || v > 59))) {
            return false;
        }
        total += v * weights[parts++];
    }
    *ret = total;
    return parts > 1 && s.p[s.n - 1] != ':';
}

static bool read_integer(struct str s, struct node *n)
{
    bool minus = s.n > 0 && s.p[0] == '-';
    struct str digits = s.n > 0 && (minus || s.p[0] == '+') ? str_sub(s, 1, s.n) : s;
    int64_t v = 0;
    bool odd = false;
    if (digits.n == 0 || !is_digit(digits.p[0])) {
        return false;
    }
    if (!read_decimal(digits, &v, &odd)) {
        odd = true;
        struct str two = str_sub(digits, 2, digits.n);
        bool hex = str_starts(digits, STR("0x")) && read_digits(two, 16, &v);
        if (!hex && !(str_starts(digits, STR("0b")) && read_digits(two, 2, &v)) &&
            !(digits.n > 1 && digits.p[0] == '0' &&
              read_digits(str_sub(digits, 1, digits.n), 8, &v)) &&
            !read_sexagesimal(digits, &v)) {
            return false;
        }
    }
    n->type = SCALAR_INT;
    n->integer = minus ? -v : v;
    n->surprising = odd;
    return true;
}

/* [-+]?([0-9][0-9_,]*)?\.[0-9]*([eE][+-][0-9]+)?, not a lone point; and .inf, .nan */
static bool is_float(struct str s)
{
    static const char *const words[] = {".inf",  ".Inf",  ".INF", "+.inf", "-.inf",
                                        "-.Inf", "-.INF", ".nan", ".NaN",  ".NAN"};
    if (one_of(s, words, ARRAY_LEN(words))) {
        return true;
    }
    size_t i = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+');
    size_t start = i;
    while (i < s.n && (is_digit(s.p[i]) || (i > start && (s.p[i] == '_' || s.p[i] == ',')))) {
        i++;
    }
    if (i == s.n || s.p[i] != '.' || s.n - start == 1) {
        return false;
    }
    for (i++; i < s.n && is_digit(s.p[i]); i++) {
    }
    if (i + 2 < s.n && (s.p[i] == 'e' || s.p[i] == 'E') &&
        (s.p[i + 1] == '+' || s.p[i + 1] == '-')) {
        for (i += 2; i < s.n && is_digit(s.p[i]); i++) {
        }
    }
    return i == s.n;
}

/* [-+]?[0-9][0-9_]*(:[0-5]?[0-9]){1,2}\.[0-9_]*: the same with a fraction. */
static bool is_sexagesimal_float(struct str s)
{
    int64_t whole;
    ptrdiff_t point = str_chr(s, '.');
    size_t sign = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+');
    if (point < (ptrdiff_t)sign ||
        !read_sexagesimal(str_sub(s, sign, (size_t)point - sign), &whole)) {
        return false;
    }
    for (size_t i = (size_t)point + 1; i < s.n; i++) {
        if (!is_digit(s.p[i]) && s.p[i] != '_') {
            return false;
        }
    }
    return true;
}

/* Takes up to max digits, at least one. */
static bool take_digits(struct str *s, size_t max)
{
    size_t i = 0;
    while (i < s->n && i < max && is_digit(s->p[i])) {
        i++;
    }
    *s = str_sub(*s, i, s->n);
    return i > 0;
}

static bool take_char(struct str *s, char c)
{
    if (s->n == 0 || s->p[0] != c) {
        return false;
    }
    *s = str_sub(*s, 1, s->n);
    return true;
}

/* A number of one or two digits, from min to max. */
static bool take_number(struct str *s, unsigned min, unsigned max)
{
    unsigned v = 0;
    struct str rest = *s;
    if (!take_digits(&rest, 2)) {
        return false;
    }
    for (size_t i = 0; i < s->n - rest.n; i++) {
        v = 10 * v + (unsigned)(s->p[i] - '0');
    }
    *s = rest;
    return v >= min && v <= max;
}

/* (\.\d*)?(\s*(Z|[-+]\d{1,2}:?(\d\d)?))?, and then the end. */
static bool is_end_of_time(struct str s)
{
    if (take_char(&s, '.')) {
        while (take_digits(&s, 1)) {
        }
    }
    if (s.n == 0) {
        return true;
    }
    while (take_char(&s, ' ')) {
    }
    if (take_char(&s, 'Z')) {
        return s.n == 0;
    }
    if (!(take_char(&s, '+') || take_char(&s, '-')) || !take_digits(&s, 2)) {
        return false;
    }
    take_char(&s, ':');
    return s.n == 0 || (s.n == 2 && take_digits(&s, 2) && s.n == 0);
}

/* YYYY-MM-DD with a month and a day that there are, which Psych refuses to make; or digits of such
 * a form with a time behind them: [Tt] or blanks, then hours:minutes:seconds. */
bool scalar_is_date(struct str s)
{
    if (s.n < 8 || !is_digit(s.p[0]) || !is_digit(s.p[1]) || !is_digit(s.p[2]) ||
        !is_digit(s.p[3]) || s.p[4] != '-') {
        return false;
    }
    struct str rest = str_sub(s, 5, s.n);
    struct str date = rest;
    if (take_number(&date, 0, 12) && take_char(&date, '-') && take_number(&date, 0, 31) &&
        date.n == 0) {
        return true;
    }
    if (!take_digits(&rest, 2) || !take_char(&rest, '-') || !take_digits(&rest, 2) || rest.n == 0 ||
        (rest.p[0] != 'T' && rest.p[0] != 't' && rest.p[0] != ' ')) {
        return false;
    }
    rest = rest.p[0] == ' ' ? str_trim(rest) : str_sub(rest, 1, rest.n);
    return take_digits(&rest, 2) && take_char(&rest, ':') && take_digits(&rest, 2) &&
           take_char(&rest, ':') && take_digits(&rest, 2) && is_end_of_time(rest);
}

/* Most texts are told from all the others by how they begin. */
static bool may_be_special(struct str s)
{
    return s.n == 0 || is_digit(s.p[0]) || (memchr("~-+.", s.p[0], 4) != NULL) ||
           (s.n <= strlen("false") && memchr("nNtTfFyYoO", s.p[0], 10) != NULL);
}

void scalar_resolve(struct node *n)
{
    n->type = SCALAR_STRING;
    if (!may_be_special(n->text)) {
        return;
    }
    if (read_word(n->text, n) || read_integer(n->text, n)) {
        return;
    }
    if (is_float(n->text)) {
        n->type = SCALAR_FLOAT;
    } else if (is_sexagesimal_float(n->text)) {
        n->type = SCALAR_FLOAT;
        n->surprising = true;
    }
}
