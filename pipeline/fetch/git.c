/* Repositories in the cache, by the program git. */
#include "common/base.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"
#include "pipeline/fetch/inside.h"

#define LOCK_WAIT_MS 50u
#define KEY_BYTES    16u /* of a digest, in names of the cache */
#define SHOWN_BYTES  200u
#define OUTPUT_BYTES ((size_t)64 * KIB)
#define TAGS_BYTES   ((size_t)16 * MIB)

/* What a git around us (a hook, say) told its children about its own repository. */
static bool is_foreign_fact(const char *entry)
{
    static const char *const names[] = {"GIT_DIR=",        "GIT_WORK_TREE=",
                                        "GIT_INDEX_FILE=", "GIT_OBJECT_DIRECTORY=",
                                        "GIT_PREFIX=",     "GIT_QUARANTINE_PATH=",
                                        "GIT_COMMON_DIR=", "GIT_ALTERNATE_OBJECT_DIRECTORIES="};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_starts(str_from(entry), str_from(names[i]))) {
            return true;
        }
    }
    return false;
}

/* Nobody is there to answer questions, and only these ways lead to a repository. Heap. */
static const char **make_environment(void)
{
    size_t n = 0;
    size_t kept = 0;
    while (environ[n] != NULL) {
        n++;
    }
    const char **env = xcalloc(n + 4, sizeof(*env));
    for (size_t i = 0; i < n; i++) {
        if (!is_foreign_fact(environ[i])) {
            env[kept++] = environ[i];
        }
    }
    env[kept++] = "GIT_TERMINAL_PROMPT=0";
    env[kept++] = "GIT_ALLOW_PROTOCOL=file:git:http:https:ssh";
    env[kept] = "LC_ALL=C";
    return env;
}

bool git_run(struct fetcher *f, const char *dir, bool all, size_t limit, struct buf *out,
             const char *const *args)
{
    const char *argv[24] = {
        "git", "--git-dir", dir, "-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false"};
    size_t n = 7;
    int status = -1;
    for (size_t i = 0; args[i] != NULL; i++) {
        check(n + 1 < ARRAY_LEN(argv));
        argv[n++] = args[i];
    }
    const char **env = make_environment();
    int null_fd = all ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);
    struct os_spawn spawn = {.argv = argv,
                             .envp = env,
                             .stdin_fd = -1,
                             .stdout_fd = -1,
                             .stderr_fd = null_fd,
                             .stderr_to_stdout = all,
                             .new_session = true};
    buf_clear(out);
    int r = os_run_within(&spawn, fetch_timeout_ms(f), f->config.stop, limit, out, &status);
    if (null_fd >= 0) {
        close(null_fd);
    }
    free(env);
    return r == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#define GIT(f, dir, all, limit, out, ...) \
    git_run((f), (dir), (all), (limit), (out), (const char *const[]){__VA_ARGS__, NULL})

static bool is_sha(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!(s.p[i] >= '0' && s.p[i] <= '9') && !(s.p[i] >= 'a' && s.p[i] <= 'f')) {
            return false;
        }
    }
    return s.n == 40 || s.n == 64;
}

/* git's own rules for names of refs, as far as they matter on a command line. */
static bool is_ref(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((uint8_t)s.p[i] <= ' ' || s.p[i] == 0x7f || str_chr(STR("~^:?*[\\"), s.p[i]) >= 0) {
            return false;
        }
    }
    return s.n <= LIMIT_NAME && (s.n == 0 || (s.p[0] != '-' && s.p[0] != '+')) &&
           str_find(s, STR("..")) < 0;
}

/* A name for the cache: any text as hex digits. */
static const char *key_of(struct fetcher *f, struct str text)
{
    uint8_t digest[SHA256_BYTES];
    char hex[2 * KEY_BYTES + 1];
    crypto_sha256(text.p != NULL ? text.p : "", text.n, digest);
    str_to_hex(digest, KEY_BYTES, hex);
    return arena_strdup(&f->arena, str_from(hex));
}

static int lock(struct fetcher *f, const char *dir, int *ret_fd)
{
    const char *path = arena_printf(&f->arena, "%s.lock", dir);
    uint64_t end_ms = os_monotonic_ms() + fetch_timeout_ms(f);
    int r;
    while ((r = os_lock_file(path, ret_fd)) == -E_BUSY && os_monotonic_ms() < end_ms &&
           !fetch_is_stopped(&f->config)) {
        os_sleep_ms(LOCK_WAIT_MS);
    }
    return r;
}

/* The last line of what git said. */
static const char *complaint(struct fetcher *f, const struct buf *out)
{
    struct str rest = str_trim(buf_str(out));
    struct str line = STR("git failed");
    struct str next;
    while (str_split(&rest, '\n', &next)) {
        if (str_starts(next, STR("fatal: ")) || str_starts(next, STR("error: "))) {
            line = str_sub(next, 7, next.n);
        }
    }
    return arena_strdup(&f->arena, str_sub(line, 0, SHOWN_BYTES));
}

static int refuse_ref(struct fetcher *f, const struct version *v, const char **ret_why)
{
    *ret_why = arena_printf(&f->arena, "%s has no branch, tag or commit `" STR_FMT "`", v->url,
                            STR_ARG(v->ref));
    return -E_NOT_FOUND;
}

/* What the ref that stands in the cache is; false: it is not there. */
static bool read_commit(struct fetcher *f, struct version *v, const char *name)
{
    struct buf out = BUF_INIT;
    const char *what = arena_printf(&f->arena, "%s^{commit}", name);
    bool ok = GIT(f, v->dir, false, OUTPUT_BYTES, &out, "rev-parse", "--verify", "-q", what) &&
              is_sha(str_trim(buf_str(&out)));
    if (ok) {
        v->sha = arena_strdup(&f->arena, str_trim(buf_str(&out)));
    }
    buf_release(&out);
    return ok;
}

/* `~latest`, `1` or `1.2`: asks for the tags. */
static int pick_tag(struct fetcher *f, struct version *v, const char **ret_why)
{
    struct buf out = BUF_INIT;
    struct str tag = STR_NULL;
    int r = 0;
    if (!GIT(f, v->dir, false, TAGS_BYTES, &out, "ls-remote", "--tags", "--refs", "--", v->url)) {
        *ret_why = arena_printf(&f->arena, "cannot ask %s for its tags", v->url);
        r = -E_UNREACHABLE;
    } else if (!semver_pick(buf_str(&out), v->ref, &tag)) {
        *ret_why = arena_printf(&f->arena, "%s has no version `" STR_FMT "`", v->url,
                                STR_ARG(v->ref));
        r = -E_NOT_FOUND;
    } else {
        v->name = arena_str(&f->arena, tag);
    }
    buf_release(&out);
    return r;
}

/* A git that was killed leaves its own locks behind. Ours is held, so nobody else is at work. */
static bool is_broken(const struct buf *out)
{
    return str_find(buf_str(out), STR(".lock': File exists")) >= 0 ||
           str_find(buf_str(out), STR("not a git repository")) >= 0;
}

/* -E_CORRUPT: the cached repository has to be made anew. */
static int fetch_name(struct fetcher *f, struct version *v, const char *local, const char **ret_why)
{
    struct buf out = BUF_INIT;
    const char *name = v->name.n > 0 ? arena_strdup(&f->arena, v->name) : "HEAD";
    const char *spec = arena_printf(&f->arena, "+%s:%s", name, local);
    int r = 0;
    if (!GIT(f, v->dir, true, OUTPUT_BYTES, &out, "fetch", "-q", "--depth=1", "--no-tags",
             "--no-write-fetch-head", "--", v->url, spec)) {
        bool missing = str_find(buf_str(&out), STR("find remote ref")) >= 0 ||
                       str_find(buf_str(&out), STR("not our ref")) >= 0;
        *ret_why = complaint(f, &out);
        r = missing ? -E_NOT_FOUND : is_broken(&out) ? -E_CORRUPT : -E_UNREACHABLE;
    }
    buf_release(&out);
    return r;
}

/* With the lock held. */
static int fetch_version(struct fetcher *f, struct version *v, const char *local,
                         const char **ret_why)
{
    struct buf out = BUF_INIT;
    int r = 0;
    const char *head = arena_printf(&f->arena, "%s/HEAD", v->dir);
    if (!os_exists(head) && !GIT(f, v->dir, false, OUTPUT_BYTES, &out, "init", "-q", "--bare")) {
        *ret_why = arena_printf(&f->arena, "git cannot make %s", v->dir);
        r = -E_IO;
    }
    buf_release(&out);
    bool latest = str_eqz(v->ref, "~latest");
    if (r == 0 && !latest) {
        r = fetch_name(f, v, local, ret_why);
    }
    if ((r == 0 && latest) || (r == -E_NOT_FOUND && semver_is_partial(v->ref))) {
        r = pick_tag(f, v, ret_why);
        r = r < 0 ? r : fetch_name(f, v, local, ret_why);
    }
    if (r == -E_NOT_FOUND && !semver_is_partial(v->ref)) {
        return refuse_ref(f, v, ret_why);
    }
    return r < 0 ? r : read_commit(f, v, local) ? 0 : refuse_ref(f, v, ret_why);
}

static bool is_on_this_machine(const char *url)
{
    return url[0] == '/' || str_starts(str_from(url), STR("file://"));
}

/* The version's commit, from the cache or from where it is. */
static int settle(struct fetcher *f, struct version *v, const char **ret_why)
{
    const char *local = arena_printf(&f->arena, "refs/davit/%s", key_of(f, v->ref));
    int fd = -1;
    if (is_sha(v->ref) && os_exists(v->dir) && read_commit(f, v, arena_strdup(&f->arena, v->ref))) {
        return 0;
    }
    if (f->config.offline && !is_on_this_machine(v->url)) {
        if (os_exists(v->dir) && read_commit(f, v, local)) {
            return 0;
        }
        *ret_why = "it is not in the cache, and --offline allows no fetching";
        return -E_UNSUPPORTED;
    }
    if (os_mkdir_p(f->config.cache, 0700) < 0 || lock(f, v->dir, &fd) < 0) {
        *ret_why = arena_printf(&f->arena, "cannot lock %s", v->dir);
        return -E_IO;
    }
    int r = fetch_version(f, v, local, ret_why);
    if (r == -E_CORRUPT && os_remove_tree(v->dir) == 0) {
        r = fetch_version(f, v, local, ret_why);
    }
    close(fd);
    return r;
}

int version_find(struct fetcher *f, const char *url, struct str ref, const struct version **ret,
                 const char **ret_why)
{
    for (const struct version *v = f->versions; v; v = v->next) {
        if (strcmp(v->url, url) == 0 && str_eq(v->ref, ref)) {
            *ret = v;
            return 0;
        }
    }
    struct version *v = arena_alloc(&f->arena, sizeof(*v));
    v->url = url;
    v->ref = v->name = arena_str(&f->arena, ref);
    v->dir = arena_printf(&f->arena, "%s/git-%s", f->config.cache, key_of(f, str_from(url)));
    if (!is_ref(ref) && !str_eqz(ref, "~latest")) {
        return refuse_ref(f, v, ret_why);
    }
    int r = settle(f, v, ret_why);
    if (r < 0) {
        return r;
    }
    v->next = f->versions;
    f->versions = v;
    *ret = v;
    return 0;
}

int version_read(struct fetcher *f, const struct version *v, struct str path, struct str *ret,
                 const char **ret_why)
{
    struct buf out = BUF_INIT;
    const char *what = arena_printf(&f->arena, "%s:" STR_FMT, v->sha, STR_ARG(path));
    uint64_t size = 0;
    int r = 0;
    if (!GIT(f, v->dir, false, OUTPUT_BYTES, &out, "cat-file", "-s", what) ||
        str_to_u64(str_trim(buf_str(&out)), &size) < 0) {
        *ret_why = arena_printf(&f->arena, "%s has no file " STR_FMT " at %.12s", v->url,
                                STR_ARG(path), v->sha);
        r = -E_NOT_FOUND;
    } else if (size > LIMIT_YAML_BYTES) {
        *ret_why = "the file is too big";
        r = -E_TOO_BIG;
    } else if (!GIT(f, v->dir, false, LIMIT_YAML_BYTES, &out, "cat-file", "blob", what)) {
        *ret_why = arena_printf(&f->arena, STR_FMT " is no file", STR_ARG(path));
        r = -E_NOT_FOUND;
    } else {
        *ret = arena_str(&f->arena, buf_str(&out));
    }
    buf_release(&out);
    return r;
}
