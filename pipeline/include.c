/* include: other files, merged in order, the including file over them. */
#include "common/base.h"

#include "common/crypto.h"
#include "pipeline/front.h"
#include "pipeline/yaml.h"

static const struct node *merge_includes(struct compile *c, const struct node *file,
                                         const struct source *source);

/* The file's mapping with its values in it and its own includes merged; NULL: reported, or empty.
 */
static const struct node *read_file(struct compile *c, struct str text, const struct source *source,
                                    const struct given *given)
{
    struct yaml_file yaml = {0};
    struct names names = {0};
    size_t count = c->diags->count;
    int r = yaml_read(c->arena, source->file, text, c->diags, &yaml);
    for (size_t i = count; i < c->diags->count; i++) {
        trail_add(c, &c->diags->items[i]);
    }
    if (r < 0) {
        c->incomplete = true;
        return NULL;
    }
    bool ok = true;
    if (yaml.header) {
        ok = header_read(c, yaml.header, source, given, &names);
    } else if (given->values && given->values->count > 0) {
        const struct node *key = given->values->pairs[0].key;
        report(c, key, "input-unknown", "spec: { inputs: { NAME: { default: ... } } }",
               "`%s` takes no inputs: it has no `spec:` header", source->file);
    }
    if (!yaml.body) {
        return NULL;
    }
    if (yaml.body->kind != NODE_MAPPING) {
        report(c, yaml.body, "wrong-type", NULL, "a pipeline file must be a mapping, found %s",
               node_what(yaml.body));
        c->incomplete = true;
        return NULL;
    }
    if (!ok) { /* without its values the file would give errors that are none */
        c->incomplete = true;
        return NULL;
    }
    if (yaml.header) {
        size_t errors = c->diags->errors;
        yaml.body = interpolate(c, yaml.body, &names);
        c->incomplete |= c->diags->errors > errors;
    } else {
        interpolate_warn(c, yaml.body);
    }
    return merge_includes(c, yaml.body, source);
}

static bool is_inside(const struct source *source, const char *file)
{
    for (; source; source = source->outer) {
        if (strcmp(source->file, file) == 0) {
            return true;
        }
    }
    return false;
}

static void refuse_missing(struct compile *c, const struct node *at, const struct include_ref *ref,
                           const char *file, int r, const char *why)
{
    struct str name = str_from(file);
    c->incomplete = true;
    if (r == -E_UNSUPPORTED) {
        report(c, at, "include-offline", NULL, "`" STR_FMT "` cannot be fetched here%s%.300s",
               STR_ARG(name), why ? ": " : "", why ? why : "");
    } else if (r != -E_NOT_FOUND) {
        report(c, at, "include-failed", NULL, "`" STR_FMT "`: %.300s", STR_ARG(name),
               why ? why : err_text(r));
    } else if (ref->kind == INCLUDE_LOCAL) {
        include_refuse(c, at, "include-not-found", "paths begin at the root of the repository",
                       name, "is not in the repository");
    } else {
        report(c, at, "include-not-found", NULL, "`" STR_FMT "` is not there%s%.300s",
               STR_ARG(name), why ? ": " : "", why ? why : "");
    }
}

static bool integrity_fits(const struct entry *e, struct str text)
{
    uint8_t digest[SHA256_BYTES];
    struct buf want = BUF_INIT;
    if (e->integrity.n == 0) {
        return true;
    }
    crypto_sha256(text.p, text.n, digest);
    buf_addz(&want, "sha256-");
    crypto_to_base64(str_of(digest, sizeof(digest)), &want);
    bool same = str_eq(buf_str(&want), e->integrity);
    buf_release(&want);
    return same;
}

bool include_provide(struct compile *c, const struct entry *e, const struct include_ref *ref,
                     const struct node *at, const char *file, struct included *ret)
{
    const char *why = NULL;
    struct str name = str_from(file);
    if (++c->includes > LIMIT_INCLUDES) {
        include_refuse(c, at, "include-limit", NULL, name, "is one file too many");
        return false;
    }
    int r = !c->in->include ? -E_NOT_FOUND
            : memchr(ref->name.p, '\0', ref->name.n)
                ? -E_NOT_FOUND
                : c->in->include(c->in->include_ctx, ref, ret, &why);
    if (r < 0) {
        refuse_missing(c, at, ref, file, r, why);
        return false;
    }
    c->text_bytes += ret->text.n;
    if (c->text_bytes > LIMIT_YAML_TOTAL) {
        include_refuse(c, at, "include-limit", NULL, name, "makes the files together too big");
        return false;
    }
    if (!integrity_fits(e, ret->text)) {
        include_refuse(c, at, "include-integrity", NULL, name,
                       "is another text than its `integrity` says");
        return false;
    }
    return true;
}

/* Whose files the new file's own local includes are. A template or an artifact has no repository of
 * its own: they are those of the file that includes it. */
static void set_home(struct source *s, const struct entry *e, const struct include_ref *ref)
{
    switch (ref->kind) {
    case INCLUDE_LOCAL:
    case INCLUDE_TEMPLATE:
    case INCLUDE_ARTIFACT:
        break;
    case INCLUDE_REMOTE:
        s->home = INCLUDE_REMOTE;
        break;
    case INCLUDE_PROJECT:
        s->home = INCLUDE_PROJECT;
        s->project = ref->project;
        s->ref = ref->ref;
        break;
    case INCLUDE_COMPONENT:
        s->home = INCLUDE_PROJECT;
        s->component = true;
        s->project = e->component.project;
        s->ref = s->version = e->component.version;
        s->name = e->component.name;
        break;
    }
}

/* Merges one file of the entry into *sum. */
static void include_file(struct compile *c, const struct entry *e, const struct include_ref *ref,
                         const struct node *at, const struct source *outer, struct node **sum)
{
    struct included got = {0};
    const char *file = pipeline_include_name(c->arena, ref);
    struct source source = {.file = file,
                            .outer = outer,
                            .home = outer->home,
                            .project = outer->project,
                            .ref = outer->ref,
                            .text = &got};
    if (is_inside(outer, file)) {
        include_refuse(c, at, "include-circular", NULL, str_from(file),
                       "includes itself, directly or by others");
        return;
    }
    if (!include_provide(c, e, ref, at, file, &got)) {
        return;
    }
    set_home(&source, e, ref);
    trail_included(c, file, at);
    const struct given given = {.values = e->inputs, .at = at};
    const struct node *node = read_file(c, got.text, &source, &given);
    if (node) {
        if (!*sum) {
            *sum = node_new(c->arena, NODE_MAPPING, node);
        }
        node_merge_into(c->arena, *sum, node, &c->work);
        compile_charge(c, node->count, at);
    }
}

const char *pipeline_include_name(struct arena *arena, const struct include_ref *ref)
{
    switch (ref->kind) {
    case INCLUDE_PROJECT:
        return arena_printf(arena, "project:" STR_FMT "@" STR_FMT ":" STR_FMT,
                            STR_ARG(ref->project), STR_ARG(ref->ref), STR_ARG(ref->name));
    case INCLUDE_TEMPLATE:
        return arena_printf(arena, "template:" STR_FMT, STR_ARG(ref->name));
    case INCLUDE_COMPONENT:
        return arena_printf(arena, "component:" STR_FMT, STR_ARG(ref->name));
    case INCLUDE_ARTIFACT:
        return arena_printf(arena, "artifact:" STR_FMT ":" STR_FMT, STR_ARG(ref->job),
                            STR_ARG(ref->name));
    case INCLUDE_LOCAL:
    case INCLUDE_REMOTE:
        break;
    }
    return arena_strdup(arena, ref->name);
}

/* GitLab's wildcards: `**` stands for anything, `*` for anything but a slash. */
static struct regex *wildcard(struct compile *c, struct str pattern)
{
    struct buf b = BUF_INIT;
    struct regex *re = NULL;
    const char *reason;
    size_t at;
    buf_addz(&b, "^");
    for (size_t i = 0; i < pattern.n; i++) {
        if (pattern.p[i] != '*') {
            buf_addf(&b, "\\x{%02x}", (uint8_t)pattern.p[i]);
        } else if (i + 1 < pattern.n && pattern.p[i + 1] == '*') {
            buf_addz(&b, ".*");
            i++;
        } else {
            buf_addz(&b, "[^/]*");
        }
    }
    buf_addz(&b, "$");
    int r = regex_compile(c->arena, buf_str(&b), STR(""), &re, &reason, &at);
    buf_release(&b);
    return r < 0 ? NULL : re;
}

static void include_wildcard(struct compile *c, const struct entry *e,
                             const struct include_ref *ref, const struct node *at,
                             const struct source *source, struct node **sum)
{
    struct regex *re = wildcard(c, ref->name);
    for (size_t i = 0; re && i < c->in->path_count && compile_charge(c, 1, at); i++) {
        const struct include_ref one = {.kind = INCLUDE_LOCAL, .name = c->in->paths[i]};
        bool found = false;
        if (regex_search(re, one.name, &found) == 0 && found && c->includes <= LIMIT_INCLUDES) {
            include_file(c, e, &one, at, source, sum);
        }
    }
}

static void include_entry(struct compile *c, const struct node *n, const struct source *source,
                          struct node **sum)
{
    struct entry e;
    if (!entry_read(c, n, source, &e)) {
        return;
    }
    if (e.inputs && e.inputs->kind != NODE_MAPPING) {
        report(c, e.inputs, "wrong-type", NULL, "`inputs` must be a mapping, found %s",
               node_what(e.inputs));
        c->incomplete = true;
        return;
    }
    for (size_t i = 0; i < e.count && compile_charge(c, 1, n); i++) {
        if (e.refs[i].kind == INCLUDE_LOCAL && str_chr(e.refs[i].name, '*') >= 0) {
            include_wildcard(c, &e, &e.refs[i], e.at[i], source, sum);
        } else {
            include_file(c, &e, &e.refs[i], e.at[i], source, sum);
        }
    }
}

/* A new mapping without the key. */
static const struct node *without(struct compile *c, const struct node *m, struct str key)
{
    struct node *rest = node_new(c->arena, NODE_MAPPING, m);
    for (uint32_t i = 0; i < m->count; i++) {
        if (!str_eq(m->pairs[i].key->text, key)) {
            node_set(c->arena, rest, m->pairs[i].key, m->pairs[i].value);
        }
    }
    compile_charge(c, m->count, m);
    return rest;
}

static const struct node *merge_includes(struct compile *c, const struct node *file,
                                         const struct source *source)
{
    const struct node *include = node_get(file, "include");
    struct node *sum = NULL; /* of what is included, nobody else's yet */
    if (!include) {
        return file;
    }
    if (include->has_reference) {
        include_refuse(c, include, "include-invalid", NULL, STR("include"),
                       "comes before !reference, which cannot stand in it");
        return without(c, file, STR("include"));
    }
    if (include->kind == NODE_LIST) {
        for (uint32_t i = 0; i < include->count; i++) {
            include_entry(c, include->items[i], source, &sum);
        }
    } else if (!node_is_null(include)) {
        include_entry(c, include, source, &sum);
    }
    const struct node *own = without(c, file, STR("include"));
    if (!sum) {
        return own;
    }
    node_merge_into(c->arena, sum, own, &c->work);
    return sum;
}

const struct node *include_all(struct compile *c)
{
    const struct source root = {.file = c->in->file, .home = INCLUDE_LOCAL};
    const struct given given = {.values = inputs_submitted(c), .loose = true};
    c->text_bytes = c->in->text.n;
    return read_file(c, c->in->text, &root, &given);
}
