#include "common/base.h"

#include "worker/exec/environment.h"

#include <stdlib.h>
#include <sys/utsname.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "common/mask_forms.h"
#include "common/os.h"

/* Linux takes 32 pages an entry of the environment, with its name, '=' and NUL. */
#define ENTRY_MAX ((size_t)128 * KIB)

/* Of the worker's environment; everything else stays with the worker. */
static const char *const inherited[] = {
    "HOME", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "LC_ALL", "LC_CTYPE",   "LOGNAME",     "NO_PROXY",
    "PATH", "SHELL",       "TMPDIR",     "TZ",   "USER",   "http_proxy", "https_proxy", "no_proxy",
};

static const struct {
    const char *name;
    const char *value;
} defaults[] = {
    {"HOME", "/"},
    {"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    {"SHELL", "/bin/sh"},
};

static void set_text(struct vars *vars, const char *name, const char *value)
{
    vars_set(vars, (struct var){.name = str_from(name), .value = str_from(value), .raw = true});
}

static void set_number(struct vars *vars, const char *name, uint64_t value)
{
    char text[32];
    struct buf out = BUF_INIT;
    buf_addf(&out, "%" PRIu64, value);
    check(out.n < sizeof(text));
    memcpy(text, out.p, out.n + 1);
    buf_release(&out);
    set_text(vars, name, text);
}

/* The names that gitlab-runner uses are those of Go. */
static const char *arch_name(const char *machine)
{
    if (strcmp(machine, "x86_64") == 0) {
        return "amd64";
    }
    return strcmp(machine, "aarch64") == 0 ? "arm64" : machine;
}

/* As GitLab writes it: a list in JSON. */
static void set_tags(struct vars *vars, const char *tags)
{
    struct buf list = BUF_INIT;
    struct str rest = str_from(tags);
    struct str tag;
    buf_add_char(&list, '[');
    while (str_split(&rest, ',', &tag)) {
        tag = str_trim(tag);
        if (tag.n == 0) {
            continue;
        }
        buf_addz(&list, list.n > 1 ? ", \"" : "\"");
        for (size_t i = 0; i < tag.n; i++) {
            buf_addz(&list, tag.p[i] == '"' || tag.p[i] == '\\' ? "\\" : "");
            buf_add_char(&list, tag.p[i]);
        }
        buf_add_char(&list, '"');
    }
    buf_add_char(&list, ']');
    set_text(vars, "CI_RUNNER_TAGS", list.p);
    buf_release(&list);
}

/* What only the worker knows. The spec's variables come later and win, as with gitlab-runner. */
static void set_facts(const struct exec_context *cx, const Pb__JobSpec *spec,
                      const char *project_dir, bool isolated, struct vars *vars)
{
    char now[32];
    struct utsname machine;
    set_text(vars, "CI_SERVER", "yes");
    set_text(vars, "CI_BUILDS_DIR", cx->builds_dir);
    set_text(vars, "CI_PROJECT_DIR", project_dir);
    set_number(vars, "CI_CONCURRENT_ID", cx->slot);
    set_number(vars, "CI_CONCURRENT_PROJECT_ID", cx->slot);
    set_number(vars, "CI_PROJECT_ID", spec->project_id);
    set_number(vars, "CI_RUNNER_ID", cx->worker_id);
    set_text(vars, "CI_RUNNER_DESCRIPTION", cx->worker_name);
    set_tags(vars, cx->tags);
    set_text(vars, "CI_RUNNER_VERSION", cx->worker_version);
    if (uname(&machine) == 0) {
        struct buf arch = BUF_INIT;
        buf_addf(&arch, "linux/%s", arch_name(machine.machine));
        set_text(vars, "CI_RUNNER_EXECUTABLE_ARCH", arch.p);
        buf_release(&arch);
    }
    set_text(vars, "CI_JOB_STARTED_AT", str_time(os_realtime_ms(), now, sizeof(now)));
    set_number(vars, "CI_JOB_TIMEOUT", spec->timeout_ms / 1000);
    if (isolated) {
        set_text(vars, "CI_DISPOSABLE_ENVIRONMENT", "true");
    } else {
        set_text(vars, "CI_SHARED_ENVIRONMENT", "true");
    }
    if (spec->source != NULL && spec->source->from_case == PB__SOURCE__FROM_GIT) {
        vars_set(vars, (struct var){.name = STR("CI_REPOSITORY_URL"),
                                    .value = pb_str(spec->source->git->url),
                                    .raw = true});
    }
    set_text(vars, "CI_JOB_STATUS", "running"); /* after_script is told how it went */
}

static int refuse(struct buf *why, int r, const Pb__Variable *v, const char *text)
{
    buf_addf(why, "variable `%s` %s", v->name, text);
    return r;
}

static int set_spec(const struct exec_context *cx, const Pb__JobSpec *spec, struct vars *vars,
                    struct buf *why)
{
    for (size_t i = 0; i < spec->n_variables; i++) {
        const Pb__Variable *v = spec->variables[i];
        struct var var = {
            .name = str_from(v->name),
            .value = pb_str(v->value),
            .raw = v->raw,
            .file = v->file,
            .masked = v->masked,
        };
        if (!var_name_valid(var.name)) {
            return refuse(why, -E_INVALID, v, "has no name that an environment can hold");
        }
        if (v->file) {
            struct buf path = BUF_INIT;
            buf_addf(&path, "%s/vars/%s", cx->job_dir, v->name);
            var.value = buf_str(&path);
            var.raw = true;
            vars_set(vars, var);
            buf_release(&path);
        } else if (v->value.len > 0 && memchr(v->value.data, '\0', v->value.len) != NULL) {
            return refuse(why, -E_INVALID, v, "holds a NUL byte: only a file variable can");
        } else {
            vars_set(vars, var);
        }
    }
    return 0;
}

/* The last of this name is the one that counts. */
static const Pb__Variable *find_last(const Pb__JobSpec *spec, struct str name)
{
    for (size_t i = spec->n_variables; i-- > 0;) {
        if (str_eqz(name, spec->variables[i]->name)) {
            return spec->variables[i];
        }
    }
    return NULL;
}

static int file_content(const struct vars *vars, const Pb__Variable *v, struct buf *out)
{
    if (v->raw) {
        buf_add_str(out, pb_str(v->value));
        return 0;
    }
    return vars_expand(vars, pb_str(v->value), out);
}

static int write_file(const struct vars *vars, const struct var *var, const Pb__Variable *v)
{
    struct buf content = BUF_INIT;
    char *path = str_dup(var->value);
    int r = file_content(vars, v, &content);
    if (r == 0) {
        r = os_put_file(path, buf_cstr(&content), content.n, 0600);
    }
    free(path);
    buf_release(&content);
    return r;
}

static int write_files(const struct exec_context *cx, const Pb__JobSpec *spec,
                       const struct vars *vars, struct buf *why)
{
    char *folder = os_path_join(cx->job_dir, "vars");
    int r = 0;
    for (size_t i = 0; r == 0 && i < vars->count; i++) {
        const struct var *var = &vars->items[i];
        const Pb__Variable *v = var->file ? find_last(spec, var->name) : NULL;
        if (v == NULL) {
            continue;
        }
        r = os_mkdir_p(folder, 0700);
        r = r == 0 ? write_file(vars, var, v) : r;
        if (r < 0) {
            buf_addf(why, "cannot write the file of variable `%s`: %s", v->name, err_text(r));
        }
    }
    free(folder);
    return r;
}

static int check_sizes(const struct vars *vars, struct buf *why)
{
    for (size_t i = 0; i < vars->count; i++) {
        const struct var *var = &vars->items[i];
        if (var->name.n + var->value.n + 2 > ENTRY_MAX) {
            buf_addf(why,
                     "variable `" STR_FMT "` has %zu bytes: an environment takes at most 128 KiB "
                     "each; make it a file variable",
                     STR_ARG(var->name), var->value.n);
            return -E_LIMIT;
        }
    }
    return 0;
}

int environment_variables(const struct exec_context *cx, const Pb__JobSpec *spec,
                          const char *project_dir, bool isolated, struct vars *vars,
                          struct buf *why)
{
    set_facts(cx, spec, project_dir, isolated, vars);
    int r = set_spec(cx, spec, vars, why);
    if (r < 0) {
        return r;
    }
    r = vars_expand_all(vars);
    if (r < 0) {
        buf_addf(why, "the job's variables, when expanded: %s", err_text(r));
        return r;
    }
    r = check_sizes(vars, why);
    return r < 0 ? r : write_files(cx, spec, vars, why);
}

/* What the worker and the shim tell the job's processes. Where a name stands twice in an
 * environment, programs differ in which one they take. */
static bool is_ours(struct str name)
{
    static const char *const names[] = {"DAVIT_API_URL",   "DAVIT_CACHE_BYTES", "DAVIT_CA_FILE",
                                        "DAVIT_CACHE_DIR", "DAVIT_JOB_FOLDER",  "DAVIT_JOB_STATUS",
                                        "DAVIT_JOB_TAIL",  "DAVIT_LOCAL_GIT"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eqz(name, names[i])) {
            return true;
        }
    }
    return false;
}

static void inherit(const struct vars *vars, struct shim_conf *conf, const char *name,
                    const char *value)
{
    bool set = vars != NULL && vars_get(vars, str_from(name)) != NULL;
    if (value != NULL && value[0] != '\0' && !set) {
        shim_conf_env(conf, str_from(name), str_from(value));
    }
}

void environment_variables_to_conf(const struct vars *vars, struct shim_conf *conf)
{
    for (size_t i = 0; i < vars->count; i++) {
        if (!is_ours(vars->items[i].name)) {
            shim_conf_env(conf, vars->items[i].name, vars->items[i].value);
        }
    }
}

size_t environment_to_words(const struct vars *vars, const char *option, struct buf *out)
{
    size_t count = 0;
    for (size_t i = 0; i < vars->count; i++) {
        const struct var *var = &vars->items[i];
        if (!is_ours(var->name)) {
            buf_add(out, option, strlen(option) + 1);
            buf_add_str(out, var->name);
            buf_add_char(out, '\0');
            buf_add_str(out, var->value);
            buf_add_char(out, '\0');
            count++;
        }
    }
    return count;
}

void environment_to_conf(const struct vars *vars, struct shim_conf *conf)
{
    for (size_t i = 0; i < ARRAY_LEN(inherited); i++) {
        inherit(vars, conf, inherited[i], getenv(inherited[i]));
    }
    for (size_t i = 0; i < ARRAY_LEN(defaults); i++) {
        if (getenv(defaults[i].name) == NULL) {
            inherit(vars, conf, defaults[i].name, defaults[i].value);
        }
    }
    if (vars != NULL) {
        environment_variables_to_conf(vars, conf);
    }
}

void environment_git_to_conf(const struct vars *vars, struct shim_conf *conf)
{
    /* None of them names a program or a file. */
    static const char *const names[] = {
        "GIT_HTTP_LOW_SPEED_LIMIT", "GIT_HTTP_LOW_SPEED_TIME", "GIT_HTTP_USER_AGENT",
        "GIT_SSL_NO_VERIFY",        "GIT_LFS_SKIP_SMUDGE",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct var *var = vars_get(vars, str_from(names[i]));
        if (var != NULL) {
            shim_conf_env(conf, var->name, var->value);
        }
    }
}

/* The forms as the shim will take them, counted by a mask of our own so that it does not fail. */
struct hiding {
    struct shim_conf *conf;
    struct mask *mask;
};

static int hide_form(void *ctx, enum mask_kind kind, struct str form)
{
    struct hiding *h = ctx;
    shim_conf_mask(h->conf, kind, form);
    return mask_add(h->mask, kind, form);
}

/* A file variable holds a path: what is secret of it is what it was given as, and what was written
 * of that. */
static int hide_variable(struct hiding *h, const struct vars *vars, const struct var *var,
                         const Pb__JobSpec *spec)
{
    const Pb__Variable *v = var->file ? find_last(spec, var->name) : NULL;
    struct buf content = BUF_INIT;
    int r = mask_forms(v != NULL ? pb_str(v->value) : var->value, hide_form, h);
    if (r == 0 && v != NULL && !v->raw) {
        r = file_content(vars, v, &content);
        r = r < 0 ? r : mask_forms(buf_str(&content), hide_form, h);
    }
    crypto_wipe(content.p, content.n);
    buf_release(&content);
    return r;
}

int environment_mask(const struct vars *vars, const Pb__JobSpec *spec, struct shim_conf *conf,
                     struct buf *why)
{
    struct hiding h = {.conf = conf, .mask = mask_new()};
    int r = mask_forms(str_from(spec->token), hide_form, &h);
    for (size_t i = 0; r == 0 && i < vars->count; i++) {
        if (vars->items[i].masked) {
            r = hide_variable(&h, vars, &vars->items[i], spec);
        }
    }
    mask_free(h.mask);
    if (r == -E_LIMIT) {
        buf_addz(why, "the job's masked variables are too many, or too long, to be looked for in "
                      "its output");
    }
    return r;
}

void environment_remove_files(const char *job_dir)
{
    char *folder = os_path_join(job_dir, "vars");
    os_remove_tree(folder);
    free(folder);
}
