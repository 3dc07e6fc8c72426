/* The commit of a git repository in the working folder, kept between jobs where that is wanted. */
#include "common/base.h"

#include "worker/step/step.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/step/git_modules.h"

#define DEPTH_USUAL    20u
#define ATTEMPTS_USUAL 3u
#define ATTEMPTS_MAX   10u
#define LISTING_MAX    ((size_t)64 * MIB)
#define SHA1_HEX       40u
#define SHA256_HEX     64u

enum voice { QUIET, LOUD };

struct checkout {
    struct step *s;
    const char *url;
    const char *sha;
    const char *ref; /* for people; "" where it is not a name that git takes */
    const char *ref_spec;
    uint64_t depth; /* 0: everything */
    bool fresh;     /* the repository was made just now */
};

static int git_run(enum voice voice, const char *const *argv)
{
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    int status;
    int null_fd = -1;
    if (voice == QUIET) {
        null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        spawn.stdout_fd = null_fd;
        spawn.stderr_fd = null_fd;
    }
    int r = os_run(&spawn, 0, NULL, &status);
    if (null_fd >= 0) {
        close(null_fd);
    }
    if (r < 0) {
        step_error("cannot run git: %s", strerror(errno));
        return r;
    }
    return status == 0 ? 0 : -E_FAILED;
}
#define GIT(voice, ...) git_run((voice), (const char *[]){"git", __VA_ARGS__, NULL})

static bool is_local(const char *url)
{
    return str_starts(str_from(url), STR("file://"));
}

/* A global configuration of our own, which the programs that git starts see too: the user's, and
 * what a job needs. Nothing may ask, nothing may stay behind in the background, and it does not
 * matter who owns a repository that the job is told to use. */
static int write_config(struct checkout *c)
{
    struct buf text = BUF_INIT;
    const char *user = getenv("GIT_CONFIG_GLOBAL");
    const char *path = arena_printf(&c->s->arena, "%s/gitconfig", c->s->folder);
    if (user != NULL && user[0] != '\0') {
        buf_addf(&text, "[include]\n\tpath = %s\n", user);
    } else {
        buf_addz(&text, "[include]\n\tpath = ~/.config/git/config\n\tpath = ~/.gitconfig\n");
    }
    buf_addz(&text, "[safe]\n\tdirectory = *\n"
                    "[gc]\n\tauto = 0\n\tautoDetach = false\n"
                    "[maintenance]\n\tauto = false\n"
                    "[fetch]\n\trecurseSubmodules = false\n"
                    "[submodule]\n\tactive = .\n" /* their own word for it is gone */
                    "[init]\n\tdefaultBranch = davit\n"
                    "[advice]\n\tdetachedHead = false\n");
    /* Of a job that may not have them, submodules neither; ext:: runs any command. */
    buf_addf(&text, "[protocol \"file\"]\n\tallow = %s\n[protocol \"ext\"]\n\tallow = never\n",
             is_local(c->url) ? "always" : "never");
    int r = os_put_file(path, text.p, text.n, 0600);
    if (r < 0) {
        step_error("cannot write %s: %s", path, err_text(r));
    }
    setenv("GIT_CONFIG_GLOBAL", path, 1);
    setenv("GIT_TERMINAL_PROMPT", "0", 1);
    setenv("GCM_INTERACTIVE", "never", 1);
    setenv("GIT_SSH_COMMAND", "ssh -oBatchMode=yes", 0);
    setenv("GIT_HTTP_LOW_SPEED_LIMIT", "100", 0);
    setenv("GIT_HTTP_LOW_SPEED_TIME", "60", 0);
    buf_release(&text);
    return r;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* What an interrupted git left, and what a job may have put there for the next one: a configuration
 * and hooks, or those of elsewhere, attributes of files, objects of others; and links, through
 * which git would write. */
static void tidy_repository(void)
{
    static const char *const unwanted[] = {
        ".git/index.lock",
        ".git/shallow.lock",
        ".git/HEAD.lock",
        ".git/config.lock",
        ".git/packed-refs.lock",
        ".git/hooks",
        ".git/config",
        ".git/config.worktree",
        ".git/commondir",
        ".git/info",
        ".git/objects/info/alternates",
    };
    for (size_t i = 0; i < ARRAY_LEN(unwanted); i++) {
        os_remove_tree(unwanted[i]);
    }
    git_tidy_links();
    git_tidy_modules();
}

static int open_repository(struct checkout *c, bool reuse)
{
    c->fresh = !reuse || !is_folder(".git");
    if (c->fresh) {
        int r = step_empty_folder(c->s);
        if (r < 0) {
            return r;
        }
    } else {
        tidy_repository();
    }
    if (GIT(LOUD, "init", "--quiet", "--template=", ".") < 0 ||
        GIT(LOUD, "config", "remote.origin.url", c->url) < 0 ||
        GIT(LOUD, "config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*") < 0) {
        return -E_CORRUPT;
    }
    step_say(c->fresh ? "Created a fresh repository." : "Using the repository of the job before.");
    return 0;
}

static bool has_commit(struct checkout *c)
{
    const char *object = arena_printf(&c->s->arena, "%s^{commit}", c->sha);
    return GIT(QUIET, "cat-file", "-e", object) == 0;
}

static int fetch_all(enum voice voice)
{
    const char *whole = os_exists(".git/shallow") ? "--unshallow" : "--force";
    return GIT(voice, "fetch", "--quiet", "--force", whole, "--tags", "origin",
               "+refs/heads/*:refs/remotes/origin/*");
}

/* From little to all: servers differ in whether they give a commit by its name, and a commit may
 * have left its branch, or the branch have gone. The last try is the one that may complain. */
static bool fetch(struct checkout *c)
{
    const char *sha_spec = arena_printf(&c->s->arena, "+%s:refs/davit/commit", c->sha);
    const char *depth = arena_printf(&c->s->arena, "--depth=%" PRIu64, c->depth);
    if (c->depth > 0) {
        if (c->ref[0] != '\0' && GIT(QUIET, "fetch", "--quiet", "--force", "--no-tags", depth,
                                     "origin", sha_spec, c->ref_spec) == 0) {
            return true;
        }
        if (GIT(QUIET, "fetch", "--quiet", "--force", "--no-tags", depth, "origin", sha_spec) ==
            0) {
            return true;
        }
        if (c->ref[0] != '\0' &&
            GIT(QUIET, "fetch", "--quiet", "--force", "--no-tags", depth, "origin", c->ref_spec) ==
                0 &&
            has_commit(c)) {
            return true;
        }
    }
    int r = fetch_all(LOUD);
    if (r == 0 && !has_commit(c)) {
        /* No branch or tag holds it (any more). */
        GIT(QUIET, "fetch", "--quiet", "--force", "origin", sha_spec);
    }
    return has_commit(c);
}

static int clean(struct checkout *c)
{
    size_t count;
    char **flags = step_var_words(c->s, "GIT_CLEAN_FLAGS", "-ffdx", &count);
    if (count == 0 || strcmp(flags[0], "none") == 0) {
        return 0;
    }
    const char **argv = arena_array(&c->s->arena, count + 3, sizeof(*argv));
    argv[0] = "git";
    argv[1] = "clean";
    memcpy(argv + 2, flags, (count + 1) * sizeof(*argv));
    return git_run(LOUD, argv);
}

/* `git update-index --skip-worktree` and --assume-unchanged: a checkout leaves such files as the
 * job before has made them. The mark before each name is `H`, or something else where git overlooks
 * a file. */
static bool index_overlooks_files(void)
{
    static const char *const argv[] = {"git", "ls-files", "-v", "-z", NULL};
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    struct buf out = BUF_INIT;
    struct str entry;
    int status;
    int r = os_run(&spawn, LISTING_MAX, &out, &status);
    struct str rest = buf_str(&out);
    bool overlooks = r < 0 || status != 0;
    while (!overlooks && str_split(&rest, '\0', &entry)) {
        overlooks = entry.n > 0 && entry.p[0] != 'H';
    }
    buf_release(&out);
    return overlooks;
}

static int check_out(struct checkout *c)
{
    if (step_var_is(c->s, "GIT_CHECKOUT", "false")) {
        step_say("Leaving the working tree as it is (GIT_CHECKOUT: false)");
        return 0;
    }
    step_say("Checking out %.8s as detached HEAD%s%s%s...", c->sha,
             c->ref[0] != '\0' ? " (ref is " : "", c->ref, c->ref[0] != '\0' ? ")" : "");
    if (!c->fresh && index_overlooks_files()) {
        unlink(".git/index");
    }
    int r = GIT(LOUD, "-c", "submodule.recurse=false", "checkout", "--force", "--quiet", "--detach",
                c->sha);
    return r < 0 ? r : clean(c);
}

static int update_submodules(struct checkout *c, bool recursive)
{
    struct arena *arena = &c->s->arena;
    size_t path_count;
    const char *depth = arena_printf(
        arena, "--depth=" STR_FMT,
        STR_ARG(step_var(c->s, "GIT_SUBMODULE_DEPTH", arena_printf(arena, "%" PRIu64, c->depth))));
    char **paths = step_var_words(c->s, "GIT_SUBMODULE_PATHS", "", &path_count);
    const char **argv = arena_array(arena, path_count + 16, sizeof(*argv));
    size_t n = 0;
    argv[n++] = "git";
    argv[n++] = "submodule";
    argv[n++] = "--quiet";
    argv[n++] = "update";
    argv[n++] = "--init";
    argv[n++] = "--force";
    if (recursive) {
        argv[n++] = "--recursive";
    }
    if (strcmp(depth, "--depth=0") != 0) {
        argv[n++] = depth;
    }
    argv[n++] = "--";
    memcpy(argv + n, paths, (path_count + 1) * sizeof(*argv));
    return git_run(LOUD, argv);
}

static int submodules(struct checkout *c)
{
    bool recursive = step_var_is(c->s, "GIT_SUBMODULE_STRATEGY", "recursive");
    if ((!recursive && !step_var_is(c->s, "GIT_SUBMODULE_STRATEGY", "normal")) ||
        !os_exists(".gitmodules")) {
        return 0;
    }
    step_say("Updating submodules%s...", recursive ? " recursively" : "");
    int r = c->fresh ? 0 : git_tidy_submodules();
    if (r == 0) {
        r = recursive ? GIT(LOUD, "submodule", "--quiet", "sync", "--recursive")
                      : GIT(LOUD, "submodule", "--quiet", "sync");
    }
    if (r == 0) {
        r = update_submodules(c, recursive);
    }
    if (r == 0) {
        const char *sweep = "git clean -ffdx && git reset --hard --quiet";
        r = recursive ? GIT(QUIET, "submodule", "foreach", "--recursive", sweep)
                      : GIT(QUIET, "submodule", "foreach", sweep);
    }
    return r;
}

static int get_once(struct checkout *c, bool reuse)
{
    int r = open_repository(c, reuse);
    if (r < 0) {
        return r;
    }
    if (c->depth > 0) {
        step_say("Fetching changes at %.8s with depth %" PRIu64 "...", c->sha, c->depth);
    } else {
        step_say("Fetching changes at %.8s...", c->sha);
    }
    if (!fetch(c)) {
        /* Only when the other side answers is it the repository here that is at fault. */
        return GIT(QUIET, "ls-remote", "--quiet", "origin", "HEAD") == 0 ? -E_CORRUPT
                                                                         : -E_UNREACHABLE;
    }
    r = check_out(c);
    if (r == 0) {
        r = submodules(c);
    }
    return r < 0 ? -E_CORRUPT : 0;
}

static int get(struct checkout *c, bool reuse)
{
    int r = get_once(c, reuse);
    if (r == -E_CORRUPT && !c->fresh) {
        step_warn("the repository here is of no use any more: cloning anew");
        r = get_once(c, false);
    }
    return r;
}

static uint64_t number(const struct step *s, const char *name, uint64_t usual)
{
    uint64_t value;
    return str_to_u64(step_var(s, name, ""), &value) == 0 ? value : usual;
}

static bool sha_valid(const char *sha)
{
    size_t n = strlen(sha);
    return (n == SHA1_HEX || n == SHA256_HEX) && strspn(sha, "0123456789abcdef") == n;
}

/* A line break in it would be one in what git asks a credential helper. */
static bool is_plain(const char *url)
{
    for (; *url != '\0'; url++) {
        if ((unsigned char)*url <= ' ' || *url == 0x7f) {
            return false;
        }
    }
    return true;
}

/* Any other kind would have git run programs (ext::, ssh's options), or read what the job may not.
 */
static int check_source(const struct checkout *c)
{
    struct str url = str_from(c->url);
    bool remote = str_starts(url, STR("http://")) || str_starts(url, STR("https://"));
    if (!is_plain(c->url) || (!remote && !is_local(c->url)) || !sha_valid(c->sha)) {
        step_error("a git source needs a file://, http:// or https:// URL and a full commit id");
        return -E_INVALID;
    }
    if (is_local(c->url) && getenv("DAVIT_LOCAL_GIT") == NULL) {
        step_error("this worker reads no repositories of its own machine: %s is refused "
                   "(davit-worker --allow-local-git would allow it)",
                   c->url);
        return -E_FORBIDDEN;
    }
    return 0;
}

/* Which branch or tag to fetch along, and under which name it is known here. */
static void set_ref(struct checkout *c, const char *ref)
{
    struct arena *arena = &c->s->arena;
    bool full = strncmp(ref, "refs/", strlen("refs/")) == 0;
    bool tag = step_var(c->s, "CI_COMMIT_TAG", "").n > 0;
    const char *name = full ? ref : arena_printf(arena, "refs/%s/%s", tag ? "tags" : "heads", ref);
    c->ref = "";
    c->ref_spec = "";
    if (ref[0] == '\0' || GIT(QUIET, "check-ref-format", name) < 0) {
        return;
    }
    c->ref = ref;
    if (full) {
        c->ref_spec = arena_printf(arena, "+%s:refs/davit/ref", name);
    } else if (tag) {
        c->ref_spec = arena_printf(arena, "+%s:%s", name, name);
    } else {
        c->ref_spec = arena_printf(arena, "+%s:refs/remotes/origin/%s", name, ref);
    }
}

static int strategy(const struct step *s, bool *ret_reuse)
{
    struct str value = step_var(s, "GIT_STRATEGY", "fetch");
    if (!str_eqz(value, "fetch") && !str_eqz(value, "clone")) {
        step_error("GIT_STRATEGY: `" STR_FMT "` is none of fetch, clone, none, empty",
                   STR_ARG(value));
        return -E_INVALID;
    }
    *ret_reuse = str_eqz(value, "fetch");
    return 0;
}

int step_source_git(struct step *s, const Pb__GitSource *git)
{
    struct checkout c = {
        .s = s,
        .url = arena_strdup(&s->arena, pb_str(git->url)),
        .sha = arena_strdup(&s->arena, pb_str(git->sha)),
        .depth = number(s, "GIT_DEPTH", DEPTH_USUAL),
    };
    uint64_t attempts = MIN(number(s, "GET_SOURCES_ATTEMPTS", ATTEMPTS_USUAL), ATTEMPTS_MAX);
    bool reuse;
    int r = check_source(&c);
    r = r < 0 ? r : strategy(s, &reuse);
    if (r == 0) {
        r = write_config(&c);
    }
    if (r < 0) {
        return r;
    }
    set_ref(&c, arena_strdup(&s->arena, pb_str(git->ref)));
    r = get(&c, reuse);
    for (uint64_t tries = 1; r < 0 && tries < attempts; tries++) {
        step_warn("getting the sources failed (attempt %" PRIu64 " of %" PRIu64 "), trying again",
                  tries, attempts);
        os_sleep_ms(1000 * tries);
        r = get(&c, reuse);
    }
    if (r < 0) {
        step_error("commit %.8s cannot be had from the repository", c.sha);
    }
    return r;
}
