/* include: other files of the repository, merged in order, the including file over them. */
#include "common/base.h"

#include "pipeline/compile.h"
#include "pipeline/yaml.h"

static const char only_local[] = "include:local works: files of the same repository";

/* The files that are being included right now, innermost first: how a circle shows. */
struct chain {
    const char *file;
    const struct chain *outer;
};

static const struct node *merge_includes(struct compile *c, const struct node *file,
                                         const struct chain *chain);

static void check_header(struct compile *c, const struct node *header)
{
    for (uint32_t i = 0; header && i < header->count; i++) {
        const struct pair *p = &header->pairs[i];
        if (!keyword_find(SCOPE_HEADER, p->key->text)) {
            report(c, p->key, "unknown-keyword", "the header before `---` holds `spec` alone",
                   "unknown keyword `" STR_FMT "` in the header", STR_ARG(p->key->text));
        } else if (!node_is_null(p->value)) {
            read_keys(c, p->value, SCOPE_SPEC, "spec");
        }
    }
}

/* The file's mapping with its own includes merged in; NULL: reported, or empty. */
static const struct node *read_file(struct compile *c, const char *file, struct str text,
                                    const struct chain *outer)
{
    struct yaml_file yaml = {0};
    struct chain chain = {.file = file, .outer = outer};
    size_t count = c->diags->count;
    int r = yaml_read(c->arena, file, text, c->diags, &yaml);
    for (size_t i = count; i < c->diags->count; i++) {
        trail_add(c, &c->diags->items[i]);
    }
    if (r < 0) {
        c->incomplete = true;
        return NULL;
    }
    check_header(c, yaml.header);
    if (!yaml.body) {
        return NULL;
    }
    if (yaml.body->kind != NODE_MAPPING) {
        report(c, yaml.body, "wrong-type", NULL, "a pipeline file must be a mapping, found %s",
               node_what(yaml.body));
        c->incomplete = true;
        return NULL;
    }
    return merge_includes(c, yaml.body, &chain);
}

static bool is_inside(const struct chain *chain, const char *file)
{
    for (; chain; chain = chain->outer) {
        if (strcmp(chain->file, file) == 0) {
            return true;
        }
    }
    return false;
}

/* Without the file, what refers to it is no mistake. */
static void refuse(struct compile *c, const struct node *at, const char *code, const char *hint,
                   struct str what, const char *problem)
{
    c->incomplete = true;
    report(c, at, code, hint, "`" STR_FMT "` %s", STR_ARG(what), problem);
}

/* Merges the file at `path` over *sum. */
static void include_file(struct compile *c, struct str path, const struct node *at,
                         const struct chain *chain, const struct node **sum)
{
    const struct include_ref ref = {.kind = INCLUDE_LOCAL, .name = path};
    const char *file = pipeline_include_name(c->arena, &ref);
    const char *why = NULL;
    struct included got = {0};
    if (is_inside(chain, file)) {
        refuse(c, at, "include-circular", NULL, path, "includes itself, directly or by others");
        return;
    }
    if (++c->includes > LIMIT_INCLUDES) {
        refuse(c, at, "include-limit", NULL, path, "is one file too many");
        return;
    }
    if (path.n != strlen(file) || !c->in->include ||
        c->in->include(c->in->include_ctx, &ref, &got, &why) < 0) {
        refuse(c, at, "include-not-found", "paths begin at the root of the repository", path,
               "is not in the repository");
        return;
    }
    c->text_bytes += got.text.n;
    if (c->text_bytes > LIMIT_YAML_TOTAL) {
        refuse(c, at, "include-limit", NULL, path, "makes the files together too big");
        return;
    }
    trail_included(c, file, at);
    const struct node *node = read_file(c, file, got.text, chain);
    if (node) {
        *sum = *sum ? node_merge(c->arena, *sum, node, &c->work) : node;
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

static void include_wildcard(struct compile *c, struct str path, const struct node *at,
                             const struct chain *chain, const struct node **sum)
{
    struct regex *re = wildcard(c, path);
    for (size_t i = 0; re && i < c->in->path_count && compile_charge(c, 1, at); i++) {
        struct str candidate = c->in->paths[i];
        bool found = false;
        if (regex_search(re, candidate, &found) == 0 && found && c->includes <= LIMIT_INCLUDES) {
            include_file(c, candidate, at, chain, sum);
        }
    }
}

static void include_local(struct compile *c, const struct node *at, const struct chain *chain,
                          const struct node **sum)
{
    struct str path;
    if (!read_text(c, at, "include:local", &path)) {
        c->incomplete = true;
        return;
    }
    path = expand_text(c, &c->outer, path, 0);
    while (path.n > 0 && path.p[0] == '/') {
        path = str_sub(path, 1, path.n);
    }
    if (!str_ends(path, STR(".yml")) && !str_ends(path, STR(".yaml"))) {
        refuse(c, at, "include-invalid", NULL, path, "does not end in .yml or .yaml");
    } else if (str_chr(path, '*') >= 0) {
        include_wildcard(c, path, at, chain, sum);
    } else {
        include_file(c, path, at, chain, sum);
    }
}

static bool is_url(struct str s)
{
    return str_starts(s, STR("https://")) || str_starts(s, STR("http://"));
}

static bool rules_say_no(struct compile *c, const struct node *entry)
{
    const struct node *n = node_get(entry, "rules");
    struct rules rules = {0};
    if (node_is_null(n) || (n->kind == NODE_LIST && n->count == 0)) {
        return false;
    }
    size_t errors = c->diags->errors;
    rules_read(c, n, SCOPE_INCLUDE_RULE, &rules);
    if (c->diags->errors > errors) {
        c->incomplete = true;
        return true;
    }
    const struct rule *rule = rules_match(c, &rules, &c->outer);
    return !rule || rule->never;
}

static void include_mapping(struct compile *c, const struct node *entry, const struct chain *chain,
                            const struct node **sum)
{
    static const char *const foreign[] = {"remote", "project", "template", "component", "artifact"};
    if (rules_say_no(c, entry)) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        struct pair *p = node_find(entry, str_from(foreign[i]));
        if (p && !node_is_null(p->value)) {
            refuse(c, p->key, "include-not-supported", only_local, p->key->text,
                   "in `include` is not supported yet");
            return;
        }
    }
    size_t errors = c->diags->errors;
    read_keys(c, entry, SCOPE_INCLUDE, "include");
    c->incomplete |= c->diags->errors > errors;
    const struct node *local = node_get(entry, "local");
    if (node_is_null(local)) {
        refuse(c, entry, "include-invalid", "include: { local: path/of/file.yml }", STR("include"),
               "names no file");
        return;
    }
    include_local(c, local, chain, sum);
}

static void include_entry(struct compile *c, const struct node *entry, const struct chain *chain,
                          const struct node **sum)
{
    if (entry->kind == NODE_MAPPING) {
        include_mapping(c, entry, chain, sum);
    } else if (node_is_string(entry) && is_url(entry->text)) {
        refuse(c, entry, "include-not-supported", only_local, entry->text,
               "is not in this repository: that is not supported yet");
    } else {
        include_local(c, entry, chain, sum);
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
                                         const struct chain *chain)
{
    const struct node *include = node_get(file, "include");
    const struct node *sum = NULL;
    if (!include) {
        return file;
    }
    if (include->has_reference) {
        refuse(c, include, "include-invalid", NULL, STR("include"),
               "comes before !reference, which cannot stand in it");
        return without(c, file, STR("include"));
    }
    if (include->kind == NODE_LIST) {
        for (uint32_t i = 0; i < include->count; i++) {
            include_entry(c, include->items[i], chain, &sum);
        }
    } else if (!node_is_null(include)) {
        include_entry(c, include, chain, &sum);
    }
    const struct node *own = without(c, file, STR("include"));
    return sum ? node_merge(c->arena, sum, own, &c->work) : own;
}

const struct node *include_all(struct compile *c)
{
    c->text_bytes = c->in->text.n;
    return read_file(c, c->in->file, c->in->text, NULL);
}
