/* cache: files that jobs of later pipelines find again. */
#include "common/base.h"

#include "pipeline/compile.h"

/* A key becomes part of a path; GitLab looks at it as a URL would write it. */
static struct str unescape(struct compile *c, struct str text)
{
    struct buf b = BUF_INIT;
    uint8_t byte;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '%' && str_from_hex(str_sub(text, i + 1, 2), &byte, 1) == 0) {
            buf_add(&b, &byte, 1);
            i += 2;
        } else {
            buf_add_char(&b, text.p[i]);
        }
    }
    struct str s = arena_str(c->arena, buf_str(&b));
    buf_release(&b);
    return s;
}

static bool read_key_text(struct compile *c, const struct node *n, const char *what,
                          ProtobufCBinaryData *ret)
{
    struct str text;
    if (!read_text(c, n, what, &text)) {
        return false;
    }
    struct str plain = unescape(c, text);
    if (str_chr(plain, '/') >= 0 || str_eqz(plain, ".") || str_eqz(plain, "..")) {
        report(c, n, "bad-value", NULL, "`%s` cannot hold a `/`, nor be `.` or `..`", what);
        return false;
    }
    if (text.n > LIMIT_CACHE_KEY) {
        report(c, n, "limit", NULL, "`%s` has more than %u bytes", what, LIMIT_CACHE_KEY);
        return false;
    }
    *ret = pb_bytes_ref(text);
    return true;
}

/* The hash of at most two files, behind an optional prefix. */
static void read_key_of_files(struct compile *c, const struct node *n, Pb__CacheSpec *spec)
{
    static const char *const names[] = {"cache:key:files", "cache:key:files_commits"};
    const struct node *prefix = key_of(n, "prefix");
    struct texts files = {0};
    if (!read_keys(c, n, SCOPE_CACHE_KEY, "cache:key")) {
        return;
    }
    bool commits = key_of(n, "files_commits") != NULL;
    if (commits == (key_of(n, "files") != NULL)) {
        report(c, n, commits ? "keyword-conflict" : "missing-key", NULL,
               "`cache:key` needs one of `files` and `files_commits`%s",
               commits ? ", found both" : "");
        return;
    }
    if (!read_texts_of(
            c, n,
            (struct read_texts){.what = names[commits], .depth = 10, .max = LIMIT_CACHE_KEY_FILES},
            &files)) {
        return;
    }
    if (files.count == 0) {
        report(c, n, "bad-value", NULL, "`%s` is empty", names[commits]);
    }
    spec->key_files = texts_to_bytes(c->arena, files);
    spec->n_key_files = files.count;
    spec->key_files_commits = commits;
    if (prefix) {
        read_key_text(c, prefix, "cache:key:prefix", &spec->key_prefix);
    }
}

static void read_policy(struct compile *c, const struct node *n, Pb__CacheSpec *spec)
{
    static const char *const names[] = {"pull-push", "pull", "push"};
    size_t i;
    /* The worker knows the last variables. */
    if (node_is_string(n) && str_chr(n->text, '$') >= 0) {
        spec->policy = pb_bytes_ref(n->text);
    } else if (read_choice(c, n, "cache:policy", names, ARRAY_LEN(names), &i)) {
        spec->policy = pb_bytes_ref(str_from(names[i]));
    }
}

static void read_fallback_keys(struct compile *c, const struct node *n, Pb__CacheSpec *spec)
{
    struct texts keys = {0};
    if (read_texts_of(c, n,
                      (struct read_texts){.what = "cache:fallback_keys",
                                          .depth = 10,
                                          .max = LIMIT_CACHE_FALLBACK_KEYS},
                      &keys)) {
        spec->fallback_keys = texts_to_bytes(c->arena, keys);
        spec->n_fallback_keys = keys.count;
    }
}

static Pb__CacheSpec *read_cache(struct compile *c, const struct node *n)
{
    Pb__CacheSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    struct texts paths = {0};
    bool untracked = false;
    bool unprotect = false;
    pb__cache_spec__init(spec);
    if (n->kind != NODE_MAPPING) {
        report(c, n, "wrong-type", "cache: { paths: [FOLDER] }",
               "`cache` must be a mapping, or a list of them, found %s", node_what(n));
        return spec;
    }
    read_keys(c, n, SCOPE_CACHE, "cache");
    const struct node *key = key_of(n, "key");
    if (key && key->kind == NODE_MAPPING) {
        read_key_of_files(c, key, spec);
    } else if (key) {
        read_key_text(c, key, "cache:key", &spec->key);
    }
    read_texts_of(c, n, (struct read_texts){.what = "cache:paths", .depth = 10}, &paths);
    read_bool_of(c, n, "cache:untracked", &untracked);
    read_bool_of(c, n, "cache:unprotect", &unprotect);
    read_keep_of(c, n, "cache:when", &spec->when);
    if (key_of(n, "policy")) {
        read_policy(c, key_of(n, "policy"), spec);
    }
    read_fallback_keys(c, n, spec);
    spec->paths = texts_to_bytes(c->arena, paths);
    spec->n_paths = paths.count;
    spec->untracked = untracked;
    spec->unprotect = unprotect;
    return spec;
}

/* An empty list or mapping turns off what `default` says. */
void cache_read(struct compile *c, const struct node *n, struct job *job)
{
    size_t count = n->kind == NODE_LIST ? n->count : 1;
    if (count > LIMIT_CACHES) {
        report(c, n, "limit", NULL, "more than %u caches", LIMIT_CACHES);
        return;
    }
    job->plan.n_caches = 0;
    job->plan.caches = arena_array(c->arena, count + 1, sizeof(Pb__CacheSpec *));
    for (size_t i = 0; i < count; i++) {
        Pb__CacheSpec *spec = read_cache(c, n->kind == NODE_LIST ? n->items[i] : n);
        if (spec->n_paths > 0 || spec->untracked) { /* else there is nothing to keep */
            job->plan.caches[job->plan.n_caches++] = spec;
        }
    }
}
