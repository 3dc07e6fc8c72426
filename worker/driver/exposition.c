#include "common/base.h"

#include "worker/driver/exposition.h"

#include <math.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/limits.h"

struct label {
    struct str name;
    struct str value; /* as it is written: escapes stay */
};

/* A line of a page. */
struct sample {
    struct str name;
    struct label labels[32];
    size_t count;
    double value;
};

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == ':';
}

static struct str take_name(struct str *rest)
{
    size_t n = 0;

    while (n < rest->n && is_name_byte(rest->p[n])) {
        n++;
    }
    const struct str name = str_sub(*rest, 0, n);
    *rest = str_sub(*rest, n, rest->n);
    return name;
}

static void skip_blanks(struct str *rest)
{
    while (rest->n > 0 && (rest->p[0] == ' ' || rest->p[0] == '\t')) {
        *rest = str_sub(*rest, 1, rest->n);
    }
}

static bool take(struct str *rest, char c)
{
    skip_blanks(rest);
    if (rest->n == 0 || rest->p[0] != c) {
        return false;
    }
    *rest = str_sub(*rest, 1, rest->n);
    return true;
}

static bool take_quoted(struct str *rest, struct str *ret)
{
    size_t n = 0;

    if (!take(rest, '"')) {
        return false;
    }
    while (n < rest->n && rest->p[n] != '"') {
        n += rest->p[n] == '\\' && n + 1 < rest->n ? 2 : 1;
    }
    if (n >= rest->n) {
        return false;
    }
    *ret = str_sub(*rest, 0, n);
    *rest = str_sub(*rest, n + 1, rest->n);
    return true;
}

/* What stands behind the name: {a="b",c="d"}; nothing is no label at all. */
static bool take_labels(struct str *rest, struct label *labels, size_t max, size_t *ret_count)
{
    *ret_count = 0;
    if (!take(rest, '{')) {
        return true;
    }
    while (!take(rest, '}')) {
        skip_blanks(rest);
        if (*ret_count == max) {
            return false;
        }
        struct label *l = &labels[*ret_count];
        l->name = take_name(rest);
        if (l->name.n == 0 || !take(rest, '=') || !take_quoted(rest, &l->value)) {
            return false;
        }
        (*ret_count)++;
        (void)take(rest, ',');
    }
    return true;
}

bool exposition_number(struct str text, double *ret)
{
    char copy[64];
    char *end;

    if (text.n == 0 || text.n >= sizeof(copy) || text.p[0] == ' ') {
        return false;
    }
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    *ret = strtod(copy, &end);
    return *end == '\0';
}

/* False: a comment, an empty line, or nothing that can be read. */
static bool read_sample(struct str line, struct sample *ret)
{
    struct str value;

    line = str_trim(line);
    if (line.n == 0 || line.p[0] == '#') {
        return false;
    }
    ret->name = take_name(&line);
    if (ret->name.n == 0 || !take_labels(&line, ret->labels, ARRAY_LEN(ret->labels), &ret->count)) {
        return false;
    }
    skip_blanks(&line);
    return str_split(&line, ' ', &value) && exposition_number(value, &ret->value);
}

int selector_parse(struct str text, struct selector *ret)
{
    struct label labels[SELECTOR_LABELS];
    struct str rest = str_trim(text);

    *ret = (struct selector){.name = take_name(&rest)};
    if (ret->name.n == 0 || !take_labels(&rest, labels, ARRAY_LEN(labels), &ret->count) ||
        str_trim(rest).n > 0) {
        return -E_INVALID;
    }
    for (size_t i = 0; i < ret->count; i++) {
        ret->labels[i].label = labels[i].name;
        ret->labels[i].prefix = str_ends(labels[i].value, STR("*"));
        ret->labels[i].value = ret->labels[i].prefix
                                   ? str_sub(labels[i].value, 0, labels[i].value.n - 1)
                                   : labels[i].value;
    }
    return 0;
}

static const struct label *label_of(const struct sample *s, struct str name)
{
    for (size_t i = 0; i < s->count; i++) {
        if (str_eq(s->labels[i].name, name)) {
            return &s->labels[i];
        }
    }
    return NULL;
}

static bool has_labels(const struct sample *s, const struct selector *of)
{
    for (size_t i = 0; i < of->count; i++) {
        const struct label *l = label_of(s, of->labels[i].label);
        if (l == NULL || (of->labels[i].prefix ? !str_starts(l->value, of->labels[i].value)
                                               : !str_eq(l->value, of->labels[i].value))) {
            return false;
        }
    }
    return true;
}

bool exposition_sum(struct str page, const struct selector *s, double *ret)
{
    struct sample sample;
    struct str line;
    bool any = false;

    *ret = 0;
    while (str_split(&page, '\n', &line)) {
        if (read_sample(line, &sample) && str_eq(sample.name, s->name) && has_labels(&sample, s) &&
            isfinite(sample.value)) {
            *ret += sample.value;
            any = true;
        }
    }
    return any;
}

static bool bound_of(const struct sample *s, uint64_t *ret)
{
    const struct label *le = label_of(s, STR("le"));
    double seconds;

    if (le == NULL || !exposition_number(le->value, &seconds) || isnan(seconds) || seconds < 0) {
        return false;
    }
    *ret = seconds >= 1e12 ? UINT64_MAX : (uint64_t)(seconds * 1e6 + 0.5);
    return true;
}

static size_t add_to_bucket(struct exposition_bucket *b, size_t count, uint64_t upto, double value)
{
    size_t at = 0;

    while (at < count && b[at].upto_micros < upto) {
        at++;
    }
    if (at < count && b[at].upto_micros == upto) {
        b[at].count += value;
        return count;
    }
    if (count == LIMIT_METRIC_BUCKETS) {
        return count;
    }
    memmove(&b[at + 1], &b[at], (count - at) * sizeof(*b));
    b[at] = (struct exposition_bucket){upto, value};
    return count + 1;
}

size_t exposition_buckets(struct str page, const struct selector *s, struct arena *a,
                          struct exposition_bucket **ret)
{
    struct exposition_bucket *b = arena_array(a, LIMIT_METRIC_BUCKETS + 1, sizeof(*b));
    struct sample sample;
    struct str line;
    size_t count = 0;
    uint64_t upto;

    while (str_split(&page, '\n', &line)) {
        if (read_sample(line, &sample) && sample.name.n == s->name.n + strlen("_bucket") &&
            str_starts(sample.name, s->name) && str_ends(sample.name, STR("_bucket")) &&
            has_labels(&sample, s) && bound_of(&sample, &upto) && isfinite(sample.value)) {
            count = add_to_bucket(b, count, upto, sample.value);
        }
    }
    *ret = b;
    return count;
}
