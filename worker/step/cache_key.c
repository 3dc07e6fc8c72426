#include "common/base.h"

#include "worker/step/cache.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/step/git_view.h"
#include "worker/step/select.h"

#define KEY_HASH_HEX  40u
#define COMMIT_MAX    128u
#define SHALLOW_BYTES ((size_t)1 * MIB)

/* Protected refs have caches of their own: what a job of any branch wrote must not get into one
 * that may deploy. */
static struct str suffixed(struct step *s, const Pb__CacheSpec *spec, struct str key)
{
    bool own = s->spec->ref_protected && !spec->unprotect;
    return str_from(
        arena_printf(&s->arena, STR_FMT "-%s", STR_ARG(key), own ? "protected" : "non_protected"));
}

static bool is_usable(struct str key, struct buf *why)
{
    if (key.n > LIMIT_CACHE_KEY) {
        buf_addf(why, "its key has more than %u bytes", LIMIT_CACHE_KEY);
        return false;
    }
    bool control = false;
    for (size_t i = 0; i < key.n; i++) {
        control = control || (uint8_t)key.p[i] < ' ' || key.p[i] == 0x7f;
    }
    if (control || !str_is_utf8(key, NULL)) {
        buf_addz(why, "its key is no line of text");
        return false;
    }
    return true;
}

/* The commit that last changed a file. Where the history here does not reach so far back, git names
 * the commit at its end, which moves with every fetch: STR_NULL then. */
static struct str last_commit(struct step *s, struct str shallow, const char *path)
{
    const char *literal = arena_printf(&s->arena, ":(literal)%s", path);
    const char *words[] = {"log", "-1", "--format=%H", "--", literal, NULL};
    struct buf out = BUF_INIT;
    struct str commit = STR_NULL;
    if (git_view_run(s, words, COMMIT_MAX, &out) == 0) {
        commit = arena_str(&s->arena, str_trim(buf_str(&out)));
    }
    buf_release(&out);
    return commit.n > 0 && str_find(shallow, commit) < 0 ? commit : STR_NULL;
}

/* Adds what stands for one file. False: it is none that counts. */
static bool add_file(struct step *s, bool commits, struct str shallow, const char *path,
                     struct sha256 *hash)
{
    uint8_t digest[SHA256_BYTES];
    uint64_t size;
    int fd;
    struct str commit = commits ? last_commit(s, shallow, path) : STR_NULL;
    if (commit.n > 0) {
        sha256_add(hash, commit.p, commit.n);
        return true;
    }
    if (step_open_project_file(s, path, &fd) < 0) {
        return false;
    }
    int r = step_file_digest(fd, digest, &size);
    close(fd);
    if (r == 0) {
        sha256_add(hash, path, strlen(path) + 1);
        sha256_add(hash, digest, sizeof(digest));
    }
    return r == 0;
}

/* The hash of the files that the patterns name; "default" where there are none. */
static struct str hash_files(struct step *s, const Pb__CacheSpec *spec)
{
    struct selection sel;
    struct buf shallow = BUF_INIT;
    struct sha256 *hash = sha256_new();
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    size_t count = 0;
    bool commits = spec->key_files_commits && os_exists(".git");
    if (commits) {
        (void)step_read_project_file(s, ".git/shallow", SHALLOW_BYTES, &shallow);
    }
    selection_init(&sel, s);
    sel.quiet = true;
    selection_add_all(&sel, spec->key_files, spec->n_key_files, false);
    for (size_t i = 0; i < MIN(sel.count, LIMIT_KEY_FILES); i++) {
        count += add_file(s, commits, buf_str(&shallow), sel.paths[i], hash);
    }
    sha256_end(hash, digest);
    sha256_free(hash);
    selection_release(&sel);
    buf_release(&shallow);
    str_to_hex(digest, sizeof(digest), hex);
    return count > 0 ? arena_str(&s->arena, str_of(hex, KEY_HASH_HEX)) : STR("default");
}

int cache_key(struct step *s, const Pb__CacheSpec *spec, struct str *ret, struct buf *why)
{
    struct str key = pb_str(spec->key);
    if (spec->n_key_files > 0) {
        struct str prefix = pb_str(spec->key_prefix);
        struct str hash = hash_files(s, spec);
        key = str_from(arena_printf(&s->arena, STR_FMT "%s" STR_FMT, STR_ARG(prefix),
                                    prefix.n > 0 ? "-" : "", STR_ARG(hash)));
    } else if (key.n == 0) {
        key = STR("default");
    }
    key = suffixed(s, spec, key);
    if (!is_usable(key, why)) {
        return -E_INVALID;
    }
    *ret = key;
    return 0;
}

/* CACHE_FALLBACK_KEY may be written with the ending that its cache has; one of protected refs is
 * for jobs of such refs alone. */
static bool global_fallback(struct step *s, const Pb__CacheSpec *spec, struct str *ret)
{
    struct str key = step_var(s, "CACHE_FALLBACK_KEY", "");
    bool whole = str_ends(key, STR("-protected")) || str_ends(key, STR("-non_protected"));
    if (key.n == 0) {
        return false;
    }
    if (str_ends(key, STR("-protected")) && !s->spec->ref_protected) {
        step_warn("CACHE_FALLBACK_KEY names a cache of protected refs: not used");
        return false;
    }
    *ret = whole ? key : suffixed(s, spec, key);
    return true;
}

size_t cache_fallback_keys(struct step *s, const Pb__CacheSpec *spec, struct str **ret)
{
    struct buf why = BUF_INIT;
    struct str *keys = arena_array(&s->arena, spec->n_fallback_keys + 1, sizeof(*keys));
    struct str global;
    size_t count = 0;
    for (size_t i = 0; i < spec->n_fallback_keys; i++) {
        struct str key = pb_str(spec->fallback_keys[i]);
        struct str whole = suffixed(s, spec, key);
        if (key.n > 0 && is_usable(whole, &why)) {
            keys[count++] = whole;
        }
    }
    if (global_fallback(s, spec, &global) && is_usable(global, &why)) {
        keys[count++] = global;
    }
    buf_release(&why);
    *ret = keys;
    return count;
}
