/* The sandbox executor: the job's lines by the host's shell, in namespaces that bubblewrap makes.
 * They see the system read-only, a /tmp and a home of their own, and of all else the working tree
 * alone. It guards against accidents and against other jobs; it is no wall against an attack on the
 * kernel.
 *
 * The job's variables are for what runs inside alone: some, as LD_PRELOAD, have a program load what
 * they name. Bubblewrap reads them from FOLDER/NAME.args.
 *
 * Every process of the job gets SIGTERM when it is to end, bubblewrap's own two among them, whose
 * end would be that of all others at once: those ignore it, so that the job has its grace. */
#include "common/base.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/os.h"
#include "worker/exec/environment.h"
#include "worker/exec/steps.h"

#define ENV_PROGRAM "/usr/bin/env"
#define PROBE_MS    10000u
/* Bubblewrap takes 9,000 words, three for each, and needs some itself. */
#define VARIABLES_MAX 2500u

static const char *const programs[] = {"/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"};

/* The system: what of it is there. */
static const char *const shown[] = {"/usr",    "/bin", "/sbin", "/lib", "/lib32", "/lib64",
                                    "/libx32", "/etc", "/opt",  "/nix", "/gnu",   "/var/lib/dpkg"};

/* What of it is nobody's business; the worker may be root, and its jobs have root's files then. */
static const char *const hidden[] = {
    "/etc/shadow",  "/etc/shadow-",     "/etc/gshadow", "/etc/gshadow-",  "/etc/security/opasswd",
    "/etc/sudoers", "/etc/ssl/private", "/etc/ssh",     "/etc/sudoers.d", "/etc/davit",
};

static const char *find_program(void)
{
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        if (access(programs[i], X_OK) == 0) {
            return programs[i];
        }
    }
    return NULL;
}

/* A sandbox that does nothing, to see whether this machine allows one at all. */
static bool probe(const char *program, struct buf *why)
{
    const char *argv[] = {ENV_PROGRAM,  "--ignore-signal=TERM",
                          program,      "--unshare-all",
                          "--cap-drop", "ALL",
                          "--ro-bind",  "/",
                          "/",          "--",
                          ENV_PROGRAM,  "--default-signal=TERM",
                          "true",       NULL};
    struct os_spawn spawn = {.argv = argv,
                             .stdin_fd = -1,
                             .stdout_fd = -1,
                             .stderr_to_stdout = true,
                             .new_session = true};
    struct buf out = BUF_INIT;
    int status = 0;
    int r = os_run_within(&spawn, PROBE_MS, NULL, PATH_MAX, &out, &status);
    bool good = r == 0 && status == 0;
    if (!good) {
        struct str said = str_trim(buf_str(&out));
        buf_addf(why, "bubblewrap makes no sandbox here: " STR_FMT, STR_ARG(said));
    }
    buf_release(&out);
    return good;
}

static bool sandbox_usable(const struct exec_context *cx, struct buf *why)
{
    const char *program = find_program();
    if (cx->sandbox == NULL || program == NULL) {
        buf_addz(why, "there is no bwrap; it is in the package bubblewrap");
        return false;
    }
    if (host_shell() == NULL || access(ENV_PROGRAM, X_OK) < 0) {
        buf_addz(why, "there is neither bash nor sh, or no " ENV_PROGRAM);
        return false;
    }
    return probe(program, why);
}

static void arg3(struct preparation *p, const char *option, const char *a, const char *b)
{
    shim_conf_arg(p->conf, option);
    shim_conf_arg(p->conf, a);
    shim_conf_arg(p->conf, b);
}

static void arg2(struct preparation *p, const char *option, const char *a)
{
    shim_conf_arg(p->conf, option);
    shim_conf_arg(p->conf, a);
}

/* resolv.conf is often a link into /run. */
static void show_resolver(struct preparation *p)
{
    char *real = os_absolute_path("/etc/resolv.conf");
    if (real != NULL && strncmp(real, "/etc/", strlen("/etc/")) != 0) {
        arg3(p, "--ro-bind-try", real, real);
    }
    free(real);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void hide(struct preparation *p, const char *path)
{
    char *real = path != NULL ? os_absolute_path(path) : NULL;
    if (real != NULL && is_folder(real)) {
        arg2(p, "--tmpfs", real);
    } else if (real != NULL) {
        arg3(p, "--ro-bind", "/dev/null", real);
    }
    free(real);
}

static void show_system(struct preparation *p)
{
    const struct sandbox_settings *o = p->cx->sandbox;
    for (size_t i = 0; i < ARRAY_LEN(shown); i++) {
        arg3(p, "--ro-bind-try", shown[i], shown[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(hidden); i++) {
        hide(p, hidden[i]);
    }
    arg2(p, "--proc", "/proc");
    arg2(p, "--dev", "/dev");
    arg2(p, "--tmpfs", "/tmp");
    arg2(p, "--tmpfs", "/run");
    arg2(p, "--tmpfs", "/var/tmp");
    if (o->network) {
        show_resolver(p);
    }
    for (size_t i = 0; i < o->n_read; i++) {
        arg3(p, "--ro-bind", o->read[i], o->read[i]);
    }
    for (size_t i = 0; i < o->n_write; i++) {
        arg3(p, "--bind", o->write[i], o->write[i]);
    }
    /* These may lie in any of those. */
    for (size_t i = 0; i < ARRAY_LEN(o->hidden); i++) {
        hide(p, o->hidden[i]);
    }
    arg2(p, "--tmpfs", o->state);
}

static int write_variables(struct preparation *p, const char *path)
{
    struct buf words = BUF_INIT;
    int r = 0;
    if (environment_to_words(&p->vars, "--setenv", &words) > VARIABLES_MAX) {
        buf_addf(p->why, "the job has %zu variables: a sandbox takes at most %u", p->vars.count,
                 VARIABLES_MAX);
        r = -E_LIMIT;
    } else {
        r = os_put_file(path, buf_cstr(&words), words.n, 0600);
    }
    crypto_wipe(words.p, words.n);
    buf_release(&words);
    return r;
}

static void add_sandbox(struct preparation *p, const struct script_step *s, const char *script,
                        const char *variables)
{
    char *files = os_path_join(p->cx->job_dir, "vars");
    arg2(p, ENV_PROGRAM, "--ignore-signal=TERM");
    arg3(p, host_shell()->path, "-c", "exec 3<\"$0\" && exec \"$@\"");
    arg2(p, variables, find_program());
    arg2(p, "--args", "3");
    shim_conf_arg(p->conf, "--die-with-parent");
    shim_conf_arg(p->conf, "--unshare-all");
    arg2(p, "--cap-drop", "ALL");
    if (p->cx->sandbox->network) {
        shim_conf_arg(p->conf, "--share-net");
    }
    show_system(p);
    arg3(p, "--bind", p->project_dir, p->project_dir);
    arg3(p, "--ro-bind-try", files, files);
    arg3(p, "--ro-bind", script, script);
    if (vars_get(&p->vars, STR("HOME")) == NULL) {
        arg3(p, "--setenv", "HOME", "/tmp");
    }
    if (vars_get(&p->vars, STR("TMPDIR")) == NULL) {
        arg2(p, "--unsetenv", "TMPDIR");
    }
    arg2(p, "--chdir", s->cwd);
    shim_conf_arg(p->conf, "--");
    arg2(p, ENV_PROGRAM, "--default-signal=TERM");
    shim_conf_arg(p->conf, host_shell()->path);
    shim_conf_arg(p->conf, script);
    free(files);
}

static int add_script(struct preparation *p, const struct script_step *s)
{
    char *path;
    int r = steps_write_script(p, s, host_shell()->bash, &path);
    const char *variables = arena_printf(&p->arena, "%s/%s.args", p->cx->job_dir, s->name);
    r = r < 0 ? r : write_variables(p, variables);
    shim_conf_step(p->conf, s->name, s->kind, s->timeout_ms, s->cwd);
    add_sandbox(p, s, path, variables);
    environment_to_conf(NULL, p->conf);
    free(path);
    return r;
}

static const struct steps_way way = {.isolated = true, .add_script = add_script};

static int sandbox_prepare(const struct exec_context *cx, const Pb__JobSpec *spec, struct buf *why)
{
    int r = steps_refuse_containers(spec, "sandbox", why);
    if (r == 0 && (cx->sandbox == NULL || find_program() == NULL || host_shell() == NULL)) {
        buf_addz(why, "this worker has no bubblewrap, or no shell");
        r = -E_UNSUPPORTED;
    }
    return r < 0 ? r : steps_prepare(cx, spec, &way, why);
}

const struct executor executor_sandbox = {
    .name = "sandbox",
    .usable = sandbox_usable,
    .prepare = sandbox_prepare,
    .start = steps_start,
    .cancel = steps_cancel,
    .alive = steps_alive,
    .cleanup = steps_cleanup,
};
