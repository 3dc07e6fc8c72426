#include "common/base.h"

#include "pipeline/compile.h"

#define CHOICES_LISTED 8 /* more than that are no help in a message */

static bool refuse_type(struct compile *c, const struct node *n, const char *what,
                        const char *wanted)
{
    report(c, n, "wrong-type", NULL, "`%s` must be %s, found %s", what, wanted, node_what(n));
    return false;
}

/* GitLab sees numbers and booleans where these are written without quotes; the text as it was
 * written is what people meant, so that 3.10 stays 3.10. */
static void warn_surprise(struct compile *c, const struct node *n)
{
    if (n->surprising) {
        report_warning(c, n, "yaml-surprise", "put it in quotes",
                       "`" STR_FMT "` without quotes is %s to GitLab, Davit takes the text",
                       STR_ARG(n->text), n->type == SCALAR_BOOL ? "a boolean" : "another number");
    }
}

bool read_text(struct compile *c, const struct node *n, const char *what, struct str *ret)
{
    if (!n || n->kind != NODE_SCALAR || n->type == SCALAR_NULL) {
        return refuse_type(c, n, what, "a text");
    }
    warn_surprise(c, n);
    *ret = n->text;
    return true;
}

bool read_name(struct compile *c, const struct node *n, const char *what, struct str *ret)
{
    struct str s;
    if (!read_text(c, n, what, &s)) {
        return false;
    }
    if (!str_is_utf8(s, NULL)) {
        report(c, n, "bad-value", NULL, "`%s` holds a NUL character", what);
        return false;
    }
    if (s.n == 0 || s.n > LIMIT_NAME) {
        report(c, n, "bad-value", NULL, "`%s` must have 1 to %u bytes, found %zu", what, LIMIT_NAME,
               s.n);
        return false;
    }
    *ret = s;
    return true;
}

bool read_bool(struct compile *c, const struct node *n, const char *what, bool *ret)
{
    if (!n || n->kind != NODE_SCALAR || n->type != SCALAR_BOOL) {
        return refuse_type(c, n, what, "true or false");
    }
    *ret = n->truth;
    return true;
}

bool read_number(struct compile *c, const struct node *n, const char *what, int64_t min,
                 int64_t max, int64_t *ret)
{
    if (!n || n->kind != NODE_SCALAR || n->type != SCALAR_INT) {
        return refuse_type(c, n, what, "a number");
    }
    if (n->integer < min || n->integer > max) {
        report(c, n, "bad-value", NULL,
               "`%s` must be from %" PRId64 " to %" PRId64 ", found %" PRId64, what, min, max,
               n->integer);
        return false;
    }
    *ret = n->integer;
    return true;
}

bool read_duration(struct compile *c, const struct node *n, const char *what, uint64_t *ret_ms)
{
    uint64_t ms = 0;
    if (!n || n->kind != NODE_SCALAR ||
        (n->type != SCALAR_STRING && n->type != SCALAR_INT && n->type != SCALAR_FLOAT)) {
        return refuse_type(c, n, what, "a duration such as `1h 30m`");
    }
    if (str_to_duration_ms(n->text, &ms) < 0) {
        report(c, n, "bad-value", "durations are written as `90 minutes`, `1h 30m`, `2 days`",
               "`%s`: `" STR_FMT "` is no duration", what, STR_ARG(n->text));
        return false;
    }
    *ret_ms = ms;
    return true;
}

bool read_start_in(struct compile *c, const struct node *n, uint64_t *ret_ms)
{
    *ret_ms = 1; /* it is written: a wrong one is no reason to miss it */
    if (!read_duration(c, n, "start_in", ret_ms)) {
        return false;
    }
    if (*ret_ms == 0 || *ret_ms > LIMIT_TIMEOUT_MS) {
        report(c, n, "bad-value", NULL, "`start_in` must be from 1 second to 30 days");
        *ret_ms = 1;
        return false;
    }
    return true;
}

bool read_choice(struct compile *c, const struct node *n, const char *what,
                 const char *const *names, size_t count, size_t *ret)
{
    if (!n || n->kind != NODE_SCALAR || n->type == SCALAR_NULL) {
        return refuse_type(c, n, what, "one of its names");
    }
    for (size_t i = 0; i < count; i++) {
        if (str_eqz(n->text, names[i])) {
            *ret = i;
            return true;
        }
    }
    struct buf list = BUF_INIT;
    for (size_t i = 0; i < count; i++) {
        buf_addf(&list, "%s`%s`", i == 0 ? "" : i + 1 == count ? " or " : ", ", names[i]);
    }
    const char *hint = suggest(c, n->text, names, count);
    if (count > CHOICES_LISTED) {
        report(c, n, "bad-value", hint, "`%s` knows no `" STR_FMT "`", what, STR_ARG(n->text));
    } else {
        report(c, n, "bad-value", hint, "`%s` must be %s, found `" STR_FMT "`", what,
               buf_cstr(&list), STR_ARG(n->text));
    }
    buf_release(&list);
    return false;
}

static void push_text(struct compile *c, struct texts *t, struct str s)
{
    /* Grows at the powers of two. */
    if ((t->count & (t->count + 1)) == 0) {
        struct str *items = arena_array(c->arena, 2 * t->count + 2, sizeof(*items));
        if (t->count > 0) {
            memcpy(items, t->items, t->count * sizeof(*items));
        }
        t->items = items;
    }
    t->items[t->count++] = s;
}

/* Where a mapping stands in place of a text, a colon in it is the usual reason. */
static bool refuse_item(struct compile *c, const struct node *n, const char *what)
{
    const char *hint = NULL;
    if (n->kind == NODE_MAPPING) {
        hint = "a text with `: ` in it needs quotes around the whole of it: 'echo \"a: b\"'";
    } else if (n->kind == NODE_SCALAR && n->type != SCALAR_NULL && n->text.n < LIMIT_NAME) {
        hint = arena_printf(c->arena, "put it in quotes: '" STR_FMT "'", STR_ARG(n->text));
    }
    report(c, n, "wrong-type", hint, "`%s` must hold texts only, found %s", what, node_what(n));
    return false;
}

/* Recurses as deep as `depth` says. */
static bool read_items(struct compile *c, const struct node *n, const struct read_texts *how,
                       unsigned depth, struct texts *ret)
{
    bool ok = true;
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *item = n->items[i];
        if (!compile_charge(c, 1, item)) {
            return false;
        }
        if (item->reference) {
            continue; /* it led nowhere, which was reported */
        }
        if (item->kind == NODE_LIST && how->depth > 0) {
            if (depth == how->depth) {
                report(c, item, "wrong-type", NULL, "`%s`: lists nested deeper than %u levels",
                       how->what, how->depth);
                return false;
            }
            ok &= read_items(c, item, how, depth + 1, ret);
        } else if (node_is_string(item)) {
            push_text(c, ret, item->text);
        } else {
            ok &= refuse_item(c, item, how->what);
        }
    }
    return ok;
}

static const char *list_hint(struct compile *c, const struct node *n)
{
    if (n && n->kind == NODE_MAPPING && n->count > 0) {
        struct str key = str_sub(n->pairs[0].key->text, 0, LIMIT_NAME);
        return node_is_null(n->pairs[0].value)
                   ? arena_printf(c->arena, "write `- " STR_FMT "`, each on its line", STR_ARG(key))
                   : "begin each item with `- `; one with `: ` in it needs quotes, too";
    }
    return node_is_string(n) ? arena_printf(c->arena, "write it as a list: [" STR_FMT "]",
                                            STR_ARG(str_sub(n->text, 0, LIMIT_NAME)))
                             : NULL;
}

bool read_texts(struct compile *c, const struct node *n, struct read_texts how, struct texts *ret)
{
    struct texts t = {0};
    if (how.single && node_is_string(n)) {
        push_text(c, &t, n->text);
        *ret = t;
        return true;
    }
    if (!n || n->kind != NODE_LIST) {
        const char *wanted = how.single ? "a text or a list of texts" : "a list of texts";
        const char *hint = list_hint(c, n);
        report(c, n, "wrong-type", hint, "`%s` must be %s, found %s", how.what, wanted,
               node_what(n));
        return false;
    }
    if (!read_items(c, n, &how, 1, &t)) {
        return false;
    }
    if (how.max > 0 && t.count > how.max) {
        report(c, n, "limit", NULL, "`%s` has %zu entries, more than %zu", how.what, t.count,
               how.max);
        return false;
    }
    *ret = t;
    return true;
}

bool read_exit_codes(struct compile *c, const struct node *n, int32_t **ret, size_t *ret_count)
{
    bool list = n->kind == NODE_LIST;
    size_t count = list ? n->count : 1;
    int32_t *codes = arena_array(c->arena, count + 1, sizeof(*codes));
    for (size_t i = 0; i < count; i++) {
        int64_t v;
        if (!read_number(c, list ? n->items[i] : n, "exit_codes", 0, 255, &v)) {
            return false;
        }
        codes[i] = (int32_t)v;
    }
    *ret = codes;
    *ret_count = count;
    return true;
}

static void report_unknown(struct compile *c, const struct node *key, enum scope scope)
{
    const char *hint = str_eqz(key->text, "<<") ? "`<<` merges mappings; this is none"
                                                : suggest_keyword(c, key->text, scope);
    enum scope other = keyword_elsewhere(key->text);
    if (!hint && other != SCOPE_COUNT) {
        hint = arena_printf(c->arena, "`" STR_FMT "` belongs %s", STR_ARG(key->text),
                            scope_text(other));
    }
    report(c, key, "unknown-keyword", hint, "unknown keyword `" STR_FMT "` %s", STR_ARG(key->text),
           scope_text(scope));
}

void note_checked(struct compile *c, const struct node *key, const char *name)
{
    report_warning(c, key, "not-acted-on", NULL,
                   "`%s` is checked, but nothing acts on it yet: the job will fail", name);
    for (size_t i = 0; i < c->unsupported.count; i++) {
        if (str_eqz(c->unsupported.items[i], name)) {
            return;
        }
    }
    push_text(c, &c->unsupported, str_from(name));
}

bool read_keys(struct compile *c, const struct node *n, enum scope scope, const char *what)
{
    if (!n || n->kind != NODE_MAPPING) {
        return refuse_type(c, n, what, "a mapping");
    }
    for (uint32_t i = 0; i < n->count; i++) {
        const struct pair *p = &n->pairs[i];
        const struct keyword *k = keyword_find(scope, p->key->text);
        if (!k) {
            report_unknown(c, p->key, scope);
        } else if (k->support == CHECKED && !c->below_checked && !node_is_null(p->value)) {
            bool whole = scope == SCOPE_JOB || scope == SCOPE_DEFAULT;
            note_checked(c, p->key,
                         whole ? k->name.p : arena_printf(c->arena, "%s:%s", what, k->name.p));
        }
    }
    return true;
}

const struct node *key_of(const struct node *m, const char *what)
{
    const char *colon = strrchr(what, ':');
    const struct node *n = node_get(m, colon ? colon + 1 : what);
    return node_is_null(n) ? NULL : n;
}

bool read_texts_of(struct compile *c, const struct node *m, struct read_texts how,
                   struct texts *ret)
{
    const struct node *n = key_of(m, how.what);
    return !n || read_texts(c, n, how, ret);
}

bool read_keep_of(struct compile *c, const struct node *m, const char *what, Pb__ArtifactWhen *ret)
{
    static const char *const names[] = {"on_success", "on_failure", "always"};
    static const Pb__ArtifactWhen values[] = {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS,
                                              PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE,
                                              PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS};
    const struct node *n = key_of(m, what);
    size_t i = 0;
    if (n && !read_choice(c, n, what, names, ARRAY_LEN(names), &i)) {
        return false;
    }
    *ret = values[i];
    return true;
}

bool read_text_of(struct compile *c, const struct node *m, const char *what, struct str *ret)
{
    const struct node *n = key_of(m, what);
    return !n || read_text(c, n, what, ret);
}

bool read_name_of(struct compile *c, const struct node *m, const char *what, struct str *ret)
{
    const struct node *n = key_of(m, what);
    return !n || read_name(c, n, what, ret);
}

bool read_bool_of(struct compile *c, const struct node *m, const char *what, bool *ret)
{
    const struct node *n = key_of(m, what);
    return !n || read_bool(c, n, what, ret);
}

bool read_when(struct compile *c, const struct node *n, bool allow_never, bool *ret_never,
               Pb__When *ret)
{
    static const char *const names[] = {"on_success", "on_failure", "always",
                                        "manual",     "delayed",    "never"};
    static const Pb__When values[] = {WHEN_ON_SUCCESS, WHEN_ON_FAILURE, WHEN_ALWAYS,
                                      WHEN_MANUAL,     WHEN_DELAYED,    WHEN_ALWAYS};
    size_t i;
    if (!read_choice(c, n, "when", names, ARRAY_LEN(names) - !allow_never, &i)) {
        return false;
    }
    *ret_never = i == ARRAY_LEN(names) - 1;
    *ret = values[i];
    return true;
}

ProtobufCBinaryData *texts_to_bytes(struct arena *a, struct texts t)
{
    ProtobufCBinaryData *all = arena_array(a, t.count + 1, sizeof(*all));
    for (size_t i = 0; i < t.count; i++) {
        all[i] = pb_bytes_ref(t.items[i]);
    }
    return all;
}

char **texts_to_strings(struct arena *a, struct texts t)
{
    char **all = arena_array(a, t.count + 1, sizeof(*all));
    for (size_t i = 0; i < t.count; i++) {
        all[i] = arena_strdup(a, t.items[i]);
    }
    return all;
}
