/* The steps that bring caches in before the script and keep them behind it. A cache that cannot be
 * had or kept is a warning: the job must be right without it. */
#include "common/base.h"

#include "worker/step/cache.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/step/upload.h"

#define PATIENCE_MS 30000u /* with a broker that is away, for each request */
#define NOTES_MAX   ((size_t)1 * MIB)

enum policy { POLICY_PULL = 1, POLICY_PUSH = 2 };

/* What cache_in leaves for cache_out: the script may change the files that the key depends on. */
struct note {
    struct str key;
    bool restored; /* from that key, with this digest */
    uint8_t digest[SHA256_BYTES];
};

static unsigned policy_of(const Pb__CacheSpec *spec, bool *ret_known)
{
    struct str policy = str_trim(pb_str(spec->policy));
    *ret_known = true;
    if (str_eqz(policy, "pull")) {
        return POLICY_PULL;
    }
    if (str_eqz(policy, "push")) {
        return POLICY_PUSH;
    }
    *ret_known = policy.n == 0 || str_eqz(policy, "pull-push");
    return POLICY_PULL | POLICY_PUSH;
}

static const char *store_dir(void)
{
    const char *dir = getenv("DAVIT_CACHE_DIR");
    return dir != NULL ? dir : ".";
}

static int unpack(struct step *s, struct str key, int fd, const char *from, struct buf *why)
{
    struct archive_info info;
    if (lseek(fd, 0, SEEK_SET) < 0) {
        return -E_IO;
    }
    int r = archive_unpack(fd, s->project_dir, LIMIT_ARTIFACT_FILES, LIMIT_ARTIFACT_BYTES, &info,
                           why);
    if (r == 0) {
        step_say("Restored cache " STR_FMT " from %s: %" PRIu64 " files, %s", STR_ARG(key), from,
                 info.file_count, step_size_text(s, info.content_bytes));
    }
    return r;
}

static int restore_from_broker(struct step *s, struct str key, uint8_t *ret_digest, struct buf *why)
{
    struct cache_file file;
    uint64_t size;
    const char *dir = store_dir();
    int r = cache_file_new(dir, &file);
    if (r < 0) {
        buf_addf(why, "cannot make a file in %s: %s", dir, err_text(r));
        return r;
    }
    r = step_cache_get(s, key, file.fd, PATIENCE_MS, ret_digest, &size, why);
    if (r == 0) {
        cache_file_keep(&file, dir, ret_digest, size);
        r = unpack(s, key, file.fd, "the broker", why);
    }
    cache_file_release(&file);
    return r;
}

/* -E_NOT_FOUND: there is nothing under the key. */
static int restore(struct step *s, struct str key, uint8_t *ret_digest, struct buf *why)
{
    int fd;
    int r = step_cache_look(s, key, PATIENCE_MS, ret_digest, why);
    if (r < 0) {
        return r;
    }
    if (cache_store_open(store_dir(), ret_digest, &fd) < 0) {
        return restore_from_broker(s, key, ret_digest, why);
    }
    r = unpack(s, key, fd, "this worker's own copy", why);
    close(fd);
    return r;
}

/* Patience was in vain once: it would be for the next request. */
static bool is_away(int r)
{
    return r == -E_UNREACHABLE || r == -E_TIMEOUT;
}

/* False: the broker is away, and no other key will be had. */
static bool try_key(struct step *s, struct str key, struct note *note, bool *ret_restored)
{
    struct buf why = BUF_INIT;
    uint8_t digest[SHA256_BYTES];
    step_say("Checking cache for " STR_FMT "...", STR_ARG(key));
    int r = restore(s, key, digest, &why);
    if (r == 0) {
        note->restored = str_eq(key, note->key);
        memcpy(note->digest, digest, sizeof(digest));
        *ret_restored = true;
    } else if (r != -E_NOT_FOUND) {
        step_warn("cache " STR_FMT " cannot be had: %s", STR_ARG(key),
                  why.n > 0 ? buf_cstr(&why) : err_text(r));
    }
    buf_release(&why);
    return !is_away(r);
}

static bool pull(struct step *s, const Pb__CacheSpec *spec, struct note *note)
{
    struct str *others;
    bool restored = false;
    bool there = try_key(s, note->key, note, &restored);
    size_t count = cache_fallback_keys(s, spec, &others);
    for (size_t i = 0; there && !restored && i < count; i++) {
        there = try_key(s, others[i], note, &restored);
    }
    if (there && !restored) {
        step_say("No cache found for " STR_FMT, STR_ARG(note->key));
    }
    return there;
}

static void write_notes(struct step *s, const struct note *notes)
{
    struct buf text = BUF_INIT;
    const char *path = arena_printf(&s->arena, "%s/caches", s->folder);
    for (size_t i = 0; i < s->spec->n_caches; i++) {
        char hex[2 * SHA256_BYTES + 1] = "-";
        if (notes[i].restored) {
            str_to_hex(notes[i].digest, SHA256_BYTES, hex);
        }
        buf_addf(&text, "%s " STR_FMT "\n", hex, STR_ARG(notes[i].key));
    }
    int r = os_put_file(path, buf_cstr(&text), text.n, 0600);
    if (r < 0) {
        step_warn("cannot write %s: %s: no cache will be kept", path, err_text(r));
    }
    buf_release(&text);
}

int step_cache_in(struct step *s)
{
    struct note *notes = arena_array(&s->arena, s->spec->n_caches, sizeof(*notes));
    bool there = true;
    for (size_t i = 0; i < s->spec->n_caches; i++) {
        const Pb__CacheSpec *spec = s->spec->caches[i];
        struct buf why = BUF_INIT;
        bool known;
        unsigned policy = policy_of(spec, &known);
        if (!known) {
            step_warn("cache policy `" STR_FMT "` is none of pull, push, pull-push: taken as the "
                      "last",
                      STR_ARG(pb_str(spec->policy)));
        }
        if (cache_key(s, spec, &notes[i].key, &why) < 0) {
            step_warn("cache %zu is not used: %s", i + 1, buf_cstr(&why));
        } else if (there && (policy & POLICY_PULL) != 0) {
            there = pull(s, spec, &notes[i]);
        }
        buf_release(&why);
    }
    write_notes(s, notes);
    return 0;
}

/* In the order of the caches; a key of no bytes: the cache is not used. */
static struct note *read_notes(struct step *s)
{
    struct note *notes = arena_array(&s->arena, s->spec->n_caches, sizeof(*notes));
    struct buf text = BUF_INIT;
    struct str line;
    int r = os_read_file(arena_printf(&s->arena, "%s/caches", s->folder), NOTES_MAX, &text);
    struct str rest = arena_str(&s->arena, buf_str(&text));
    for (size_t i = 0; r == 0 && i < s->spec->n_caches && str_split(&rest, '\n', &line); i++) {
        struct str hex;
        if (str_split(&line, ' ', &hex)) {
            notes[i].restored = str_from_hex(hex, notes[i].digest, SHA256_BYTES) == 0;
            notes[i].key = line;
        }
    }
    buf_release(&text);
    return notes;
}

static bool is_same(struct step *s, const struct note *note, const uint8_t *digest)
{
    uint8_t theirs[SHA256_BYTES];
    struct buf why = BUF_INIT;
    bool same = note->restored && memcmp(note->digest, digest, SHA256_BYTES) == 0;
    if (!same && step_cache_look(s, note->key, PATIENCE_MS, theirs, &why) == 0) {
        same = memcmp(theirs, digest, sizeof(theirs)) == 0;
    }
    buf_release(&why);
    return same;
}

static int send(struct step *s, struct str key, int fd, const struct archive_info *info,
                struct buf *why)
{
    int r = step_upload(s, fd, info->size, info->digest, PATIENCE_MS, why);
    return r < 0 ? r : step_cache_set(s, key, info->digest, info->size, PATIENCE_MS, why);
}

static int keep(struct step *s, const struct note *note, const struct selection *sel,
                struct cache_file *file, struct buf *why)
{
    struct archive_info info;
    int r = upload_pack(s, sel, s->project_dir, file->fd, &info, why);
    if (r < 0) {
        return r;
    }
    if (is_same(s, note, info.digest)) {
        step_say("Cache " STR_FMT " is unchanged", STR_ARG(note->key));
        return 0;
    }
    step_say("Uploading cache " STR_FMT ": %" PRIu64 " files, %s (%s packed)...",
             STR_ARG(note->key), info.file_count, step_size_text(s, info.content_bytes),
             step_size_text(s, info.size));
    r = send(s, note->key, file->fd, &info, why);
    if (r == -E_CONFLICT) { /* a broker that began anew in between does not know who sent it */
        buf_clear(why);
        r = send(s, note->key, file->fd, &info, why);
    }
    if (r == 0) {
        cache_file_keep(file, store_dir(), info.digest, info.size);
    }
    return r;
}

/* False: the broker is away. */
static bool push(struct step *s, const Pb__CacheSpec *spec, const struct note *note)
{
    struct selection sel;
    struct cache_file file;
    struct buf why = BUF_INIT;
    int r = 0;
    selection_init(&sel, s);
    selection_add_all(&sel, spec->paths, spec->n_paths, spec->untracked);
    if (sel.count == 0) {
        /* Never a reason to forget what is there. */
        step_warn("cache " STR_FMT ": no files to keep", STR_ARG(note->key));
    } else {
        r = cache_file_new(store_dir(), &file);
        if (r == 0) {
            r = keep(s, note, &sel, &file, &why);
            cache_file_release(&file);
        }
    }
    if (r < 0) {
        step_warn("cache " STR_FMT " is not kept: %s", STR_ARG(note->key),
                  why.n > 0 ? buf_cstr(&why) : err_text(r));
    }
    selection_release(&sel);
    buf_release(&why);
    return !is_away(r);
}

int step_cache_out(struct step *s)
{
    const char *status = getenv("DAVIT_JOB_STATUS");
    const struct note *notes = read_notes(s);
    if (status != NULL && strcmp(status, "canceled") == 0) {
        return 0; /* half of a tree would take the place of a whole one */
    }
    bool there = true;
    for (size_t i = 0; there && i < s->spec->n_caches; i++) {
        const Pb__CacheSpec *spec = s->spec->caches[i];
        bool known;
        bool pushes = (policy_of(spec, &known) & POLICY_PUSH) != 0;
        if (pushes && notes[i].key.n > 0 && step_is_wanted(spec->when)) {
            there = push(s, spec, &notes[i]);
        }
    }
    return 0;
}
