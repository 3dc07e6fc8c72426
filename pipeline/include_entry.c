/* One entry of `include`: which files it names. */
#include "common/base.h"

#include "common/crypto.h"
#include "pipeline/front.h"

static const struct {
    const char *key;
    enum include_kind kind;
} kinds[] = {
    {"local", INCLUDE_LOCAL},         {"project", INCLUDE_PROJECT},
    {"remote", INCLUDE_REMOTE},       {"template", INCLUDE_TEMPLATE},
    {"component", INCLUDE_COMPONENT}, {"artifact", INCLUDE_ARTIFACT},
};

/* Keys that belong to one kind alone. */
static const struct {
    const char *key;
    enum include_kind kind;
} belongings[] = {
    {"file", INCLUDE_PROJECT}, {"ref", INCLUDE_PROJECT},      {"job", INCLUDE_ARTIFACT},
    {"cache", INCLUDE_REMOTE}, {"integrity", INCLUDE_REMOTE},
};

void include_refuse(struct compile *c, const struct node *at, const char *code, const char *hint,
                    struct str what, const char *problem)
{
    c->incomplete = true;
    report(c, at, code, hint, "`" STR_FMT "` %s", STR_ARG(what), problem);
}

static bool is_url(struct str s)
{
    return str_starts(s, STR("https://")) || str_starts(s, STR("http://"));
}

static bool is_yaml(struct str path)
{
    char end[6] = "";
    size_t n = MIN(path.n, sizeof(end) - 1);
    for (size_t i = 0; i < n; i++) {
        char ch = path.p[path.n - n + i];
        end[i] = (char)(ch >= 'A' && ch <= 'Z' ? ch - 'A' + 'a' : ch);
    }
    struct str s = str_of(end, n);
    return (path.n > 4 && str_ends(s, STR(".yml"))) || (path.n > 5 && str_ends(s, STR(".yaml")));
}

static struct str without_slashes(struct str path)
{
    while (path.n > 0 && path.p[0] == '/') {
        path = str_sub(path, 1, path.n);
    }
    return path;
}

/* A text with its variables in it; false: reported. */
static bool read_expanded(struct compile *c, const struct node *n, const char *what,
                          struct str *ret)
{
    struct str text;
    if (!read_text(c, n, what, &text)) {
        c->incomplete = true;
        return false;
    }
    *ret = expand_text(c, &c->outer, text, 0);
    if (ret->n == 0 || ret->n > LIMIT_INCLUDE_NAME || !str_is_utf8(*ret, NULL)) {
        include_refuse(c, n, "include-invalid", NULL, str_from(what),
                       ret->n == 0 ? "is empty once its variables are in it" : "is no name");
        return false;
    }
    return true;
}

static void push(struct compile *c, struct entry *e, const struct include_ref *ref,
                 const struct node *at)
{
    if ((e->count & (e->count + 1)) == 0) {
        struct include_ref *refs = arena_array(c->arena, 2 * e->count + 2, sizeof(*refs));
        const struct node **places = arena_array(c->arena, 2 * e->count + 2, sizeof(*places));
        if (e->count > 0) {
            memcpy(refs, e->refs, e->count * sizeof(*refs));
            memcpy(places, e->at, e->count * sizeof(*places));
        }
        e->refs = refs;
        e->at = places;
    }
    e->refs[e->count] = *ref;
    e->at[e->count++] = at;
}

static bool add_path(struct compile *c, struct entry *e, struct include_ref ref,
                     const struct node *at, struct str path)
{
    ref.name = without_slashes(path);
    if (!is_yaml(path)) {
        include_refuse(c, at, "include-invalid", NULL, path, "does not end in .yml or .yaml");
        return false;
    }
    if (ref.kind != INCLUDE_LOCAL && str_chr(path, '*') >= 0) {
        include_refuse(c, at, "include-invalid", NULL, path,
                       "has a wildcard: that works in the pipeline's own repository alone");
        return false;
    }
    push(c, e, &ref, at);
    return true;
}

/* A path of the repository that the including file is from. */
static bool add_local(struct compile *c, struct entry *e, const struct source *source,
                      const struct node *at, struct str path)
{
    struct include_ref ref = {.kind = source->home};
    if (source->home == INCLUDE_REMOTE) {
        include_refuse(c, at, "include-invalid", "give the whole URL: `remote: https://...`", path,
                       "is a path in a file from a URL, which is of no repository");
        return false;
    }
    if (source->home == INCLUDE_PROJECT) {
        ref.project = source->project;
        ref.ref = source->ref;
    }
    return add_path(c, e, ref, at, path);
}

static bool add_remote(struct compile *c, struct entry *e, const struct node *at, struct str url)
{
    const struct include_ref ref = {.kind = INCLUDE_REMOTE, .name = url};
    size_t end = 0;
    while (end < url.n && url.p[end] != '?' && url.p[end] != '#') {
        end++;
    }
    if (!is_url(url) || !is_yaml(str_sub(url, 0, end))) {
        include_refuse(c, at, "include-invalid", "https://HOST/PATH.yml", url,
                       is_url(url) ? "does not end in .yml or .yaml" : "is no URL");
        return false;
    }
    push(c, e, &ref, at);
    return true;
}

static bool add_project(struct compile *c, struct entry *e, const struct node *entry,
                        const struct node *project)
{
    struct include_ref ref = {.kind = INCLUDE_PROJECT};
    const struct node *at = node_get(entry, "ref");
    const struct node *file = node_get(entry, "file");
    struct str path;
    if (!read_expanded(c, project, "include:project", &ref.project) ||
        (!node_is_null(at) && !read_expanded(c, at, "include:ref", &ref.ref))) {
        return false;
    }
    ref.project = without_slashes(ref.project);
    if (node_is_null(file)) {
        include_refuse(c, project, "include-invalid", "file: path/of/file.yml", ref.project,
                       "needs `file`: which of its files");
        return false;
    }
    bool list = file->kind == NODE_LIST;
    for (uint32_t i = 0; i < (list ? file->count : 1); i++) {
        const struct node *one = list ? file->items[i] : file;
        if (!read_expanded(c, one, "include:file", &path) || !add_path(c, e, ref, one, path)) {
            return false;
        }
    }
    return true;
}

static bool add_template(struct compile *c, struct entry *e, const struct node *at, struct str name)
{
    const struct include_ref ref = {.kind = INCLUDE_TEMPLATE, .name = name};
    if (!str_ends(name, STR(".gitlab-ci.yml"))) {
        include_refuse(c, at, "include-invalid", NULL, name, "does not end in .gitlab-ci.yml");
        return false;
    }
    push(c, e, &ref, at);
    return true;
}

/* The part before the last `sep`, and the one behind it. */
static bool split_last(struct str s, char sep, struct str *ret_before, struct str *ret_after)
{
    for (size_t i = s.n; i > 0; i--) {
        if (s.p[i - 1] == sep) {
            *ret_before = str_sub(s, 0, i - 1);
            *ret_after = str_sub(s, i, s.n);
            return true;
        }
    }
    return false;
}

static bool is_own_server(const struct compile *c, struct str host)
{
    static const char *const names[] = {"CI_SERVER_FQDN", "CI_SERVER_HOST"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct var *v = vars_get(&c->outer, str_from(names[i]));
        if (v && str_eq(v->value, host)) {
            return true;
        }
    }
    return host.n == 0;
}

static bool add_component(struct compile *c, struct entry *e, const struct node *at,
                          struct str address)
{
    struct component *k = &e->component;
    struct str path;
    struct str host;
    struct str rest = STR_NULL;
    struct str project = STR_NULL;
    bool ok = split_last(address, '@', &path, &k->version) && k->version.n > 0;
    rest = ok ? path : STR_NULL;
    ok = ok && str_split(&rest, '/', &host) && split_last(rest, '/', &project, &k->name) &&
         k->name.n > 0 && str_chr(project, '/') > 0;
    if (!ok) {
        include_refuse(c, at, "include-invalid", "$CI_SERVER_FQDN/GROUP/PROJECT/NAME@VERSION",
                       address, "is no address of a component");
        return false;
    }
    /* What the own server is called differs between a laptop and the broker. */
    bool own = is_own_server(c, host);
    k->project = own ? project : str_sub(path, 0, host.n + 1 + project.n);
    k->address = own ? str_sub(address, host.n, address.n) : address;
    const struct include_ref ref = {.kind = INCLUDE_COMPONENT, .name = k->address};
    push(c, e, &ref, at);
    return true;
}

static bool add_artifact(struct compile *c, struct entry *e, const struct node *entry,
                         const struct node *at, struct str path)
{
    struct include_ref ref = {.kind = INCLUDE_ARTIFACT, .name = without_slashes(path)};
    const struct node *job = node_get(entry, "job");
    if (!c->in->origin || strcmp(c->in->origin, "parent_pipeline") != 0) {
        include_refuse(c, at, "include-invalid",
                       "trigger: { include: [{ artifact: ..., job: ... }] }", path,
                       "is an artifact: only child pipelines can include those");
        return false;
    }
    if (node_is_null(job)) {
        include_refuse(c, at, "include-invalid", "job: NAME", path, "needs `job`: whose artifact");
        return false;
    }
    if (!read_expanded(c, job, "include:job", &ref.job)) {
        return false;
    }
    push(c, e, &ref, at);
    return true;
}

static bool read_integrity(struct compile *c, const struct node *entry, struct str *ret)
{
    const struct node *n = node_get(entry, "integrity");
    struct buf digest = BUF_INIT;
    struct str text;
    if (node_is_null(n)) {
        return true;
    }
    if (!read_text(c, n, "integrity", &text)) {
        return false;
    }
    bool ok = str_starts(text, STR("sha256-")) &&
              crypto_from_base64(str_sub(text, 7, text.n), &digest) == 0 &&
              digest.n == SHA256_BYTES;
    buf_release(&digest);
    if (!ok) {
        include_refuse(c, n, "include-invalid", "sha256- and the digest in base64", text,
                       "is no `integrity`");
    }
    *ret = text;
    return ok;
}

/* Where the entry has keys of another kind, or two kinds, it is not clear what is meant. */
static bool keys_fit(struct compile *c, const struct node *entry, enum include_kind kind)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct pair *p = node_find(entry, str_from(kinds[i].key));
        if (p && !node_is_null(p->value) && kinds[i].kind != kind) {
            include_refuse(c, p->key, "include-invalid", "make two entries of it", p->key->text,
                           "and another kind of file in one `include`");
            return false;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(belongings); i++) {
        const struct pair *p = node_find(entry, str_from(belongings[i].key));
        if (p && !node_is_null(p->value) && belongings[i].kind != kind) {
            const char *owner = kinds[belongings[i].kind].key;
            include_refuse(c, p->key, "include-invalid", NULL, p->key->text,
                           arena_printf(c->arena, "goes with `%s`", owner));
            return false;
        }
    }
    const struct pair *cache = node_find(entry, STR("cache"));
    uint64_t ms;
    if (cache && !node_is_null(cache->value) &&
        (cache->value->type == SCALAR_BOOL || read_duration(c, cache->value, "cache", &ms))) {
        report_warning(c, cache->key, "no-effect", NULL,
                       "`cache` is not needed: a remote file is fetched once per pipeline");
    }
    return true;
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

static bool read_kind(struct compile *c, const struct node *entry, const struct source *source,
                      enum include_kind kind, const struct node *value, struct entry *ret)
{
    struct str text = STR_NULL;
    if (kind != INCLUDE_PROJECT &&
        !read_expanded(c, value, arena_printf(c->arena, "include:%s", kinds[kind].key), &text)) {
        return false;
    }
    switch (kind) {
    case INCLUDE_LOCAL:
        return add_local(c, ret, source, value, text);
    case INCLUDE_PROJECT:
        return add_project(c, ret, entry, value);
    case INCLUDE_REMOTE:
        return read_integrity(c, entry, &ret->integrity) && add_remote(c, ret, value, text);
    case INCLUDE_TEMPLATE:
        return add_template(c, ret, value, text);
    case INCLUDE_COMPONENT:
        return add_component(c, ret, value, text);
    case INCLUDE_ARTIFACT:
        return add_artifact(c, ret, entry, value, text);
    }
    return false;
}

static bool read_mapping(struct compile *c, const struct node *entry, const struct source *source,
                         struct entry *ret)
{
    size_t errors = c->diags->errors;
    if (rules_say_no(c, entry)) {
        return false;
    }
    read_keys(c, entry, SCOPE_INCLUDE, "include");
    if (c->diags->errors > errors) {
        c->incomplete = true;
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct node *value = node_get(entry, kinds[i].key);
        if (!node_is_null(value)) {
            check(kinds[i].kind == (enum include_kind)i);
            const struct node *inputs = node_get(entry, "inputs");
            ret->inputs = node_is_null(inputs) ? NULL : inputs;
            return keys_fit(c, entry, kinds[i].kind) &&
                   read_kind(c, entry, source, kinds[i].kind, value, ret);
        }
    }
    include_refuse(c, entry, "include-invalid", "include: { local: path/of/file.yml }",
                   STR("include"), "names no file");
    return false;
}

bool entry_read(struct compile *c, const struct node *n, const struct source *source,
                struct entry *ret)
{
    struct str text;
    *ret = (struct entry){0};
    if (n->kind == NODE_MAPPING) {
        return read_mapping(c, n, source, ret);
    }
    if (!read_expanded(c, n, "include", &text)) {
        return false;
    }
    return is_url(text) ? add_remote(c, ret, n, text) : add_local(c, ret, source, n, text);
}
