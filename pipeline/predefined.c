#include "common/base.h"

#include "pipeline/pipeline.h"

#define SLUG_MAX 63 /* a DNS label */

struct url {
    struct str protocol;
    struct str host;
    struct str port;
    struct str host_and_port;
};

struct facts {
    const struct pipeline_facts *in;
    struct arena *arena;
    struct url url;
    bool merge_request;
};

static const struct str no_sha = {"0000000000000000000000000000000000000000", 40};

static struct str text(const char *s)
{
    return str_from(s);
}

/* Lower case, at most 63 characters, all but [a-z0-9] becomes -, none of them at the ends. */
static struct str slug(const struct facts *f, struct str s)
{
    if (!s.p) {
        return STR_NULL;
    }
    char *p = arena_alloc(f->arena, SLUG_MAX + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n && n < SLUG_MAX; i += str_char_length(str_sub(s, i, s.n))) {
        char c = s.p[i];
        c = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        p[n++] = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '-';
    }
    struct str result = {p, n};
    while (result.n > 0 && result.p[0] == '-') {
        result = str_sub(result, 1, result.n);
    }
    while (result.n > 0 && result.p[result.n - 1] == '-') {
        result.n--;
    }
    return result;
}

/* What GitLab protects until somebody changes it. */
static struct str protection(const struct facts *f)
{
    bool branch = f->in->ref && !f->in->tag && !f->merge_request;
    if (f->in->knows_protection) {
        return f->in->is_protected && !f->merge_request ? STR("true") : STR("false");
    }
    return branch && str_eq(text(f->in->ref), text(f->in->default_branch)) ? STR("true")
                                                                           : STR("false");
}

static struct str title(struct str message)
{
    ptrdiff_t end = message.p ? str_chr(message, '\n') : -1;
    return end < 0 ? message : str_sub(message, 0, (size_t)end);
}

/* What follows the first line; GitLab gives the whole message where that line is longer than 99. */
static struct str description(struct str message)
{
    size_t first = title(message).n;
    if (!message.p || first >= 100) {
        return message;
    }
    return str_trim(str_sub(message, first, message.n));
}

static ptrdiff_t last_slash(struct str s)
{
    for (size_t i = s.n; i > 0; i--) {
        if (s.p[i - 1] == '/') {
            return (ptrdiff_t)i - 1;
        }
    }
    return -1;
}

static struct str after_last_slash(struct str s)
{
    return s.p ? str_sub(s, (size_t)(last_slash(s) + 1), s.n) : STR_NULL;
}

static struct str before_last_slash(struct str s)
{
    ptrdiff_t at = last_slash(s);
    return at < 0 ? STR_NULL : str_sub(s, 0, (size_t)at);
}

static struct str before_first_slash(struct str s)
{
    ptrdiff_t at = s.p ? str_chr(s, '/') : -1;
    return at < 0 ? STR_NULL : str_sub(s, 0, (size_t)at);
}

/* "http://host:port/path"; a port that is not written is the protocol's. */
static struct url split_url(struct str s)
{
    struct url u = {0};
    ptrdiff_t at = s.p ? str_find(s, STR("://")) : -1;
    if (at < 0) {
        return u;
    }
    u.protocol = str_sub(s, 0, (size_t)at);
    struct str rest = str_sub(s, (size_t)at + 3, s.n);
    if (!str_split(&rest, '/', &u.host_and_port)) {
        return u;
    }
    ptrdiff_t colon = -1;
    for (size_t i = u.host_and_port.n; i > 0 && u.host_and_port.p[i - 1] != ']' && colon < 0; i--) {
        colon = u.host_and_port.p[i - 1] == ':' ? (ptrdiff_t)i - 1 : -1;
    }
    u.host = colon < 0 ? u.host_and_port : str_sub(u.host_and_port, 0, (size_t)colon);
    u.port = colon < 0 ? (str_eqz(u.protocol, "https") ? STR("443") : STR("80"))
                       : str_sub(u.host_and_port, (size_t)colon + 1, u.host_and_port.n);
    return u;
}

static void set(struct vars *vars, const char *name, struct str value)
{
    if (value.p) {
        /* raw: a commit message with a $ in it is no reference. */
        vars_set(vars, (struct var){.name = str_from(name), .value = value, .raw = true});
    }
}

void pipeline_predefined(struct vars *ret, const struct pipeline_facts *facts)
{
    struct facts all = {
        .in = facts, .arena = ret->arena, .url = split_url(text(facts->server_url))};
    const struct facts *f = &all;
    all.merge_request = facts->origin && strcmp(facts->origin, "merge_request_event") == 0;
#define PREDEFINED(name, value) set(ret, #name, value);
#include "pipeline/predefined.def"
#undef PREDEFINED
}
