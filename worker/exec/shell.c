/* The shell executor: the job's lines in the host's bash or sh, as the worker's own user. */
#include "common/base.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/environment.h"
#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"
#include "worker/exec/script.h"
#include "worker/exec/workspace.h"

#define LOG_TAIL_BYTES  (4ull * MIB)
#define LOG_MARK_BYTES  (4ull * KIB) /* of what was left out */
#define LOG_HEAD_BYTES  (LIMIT_LOG_BYTES - LOG_TAIL_BYTES - LOG_MARK_BYTES)
#define AFTER_SCRIPT_MS (5ull * 60 * 1000)
#define RESULT_MS       (60ull * 1000) /* for each step that only reads what the job left */

struct shell {
    const char *path;
    bool bash;
};

static const struct shell shells[] = {
    {"/usr/local/bin/bash", true}, {"/usr/bin/bash", true}, {"/bin/bash", true},
    {"/usr/bin/sh", false},        {"/bin/sh", false},
};

/* What one job's preparation works on. */
struct preparation {
    const struct exec_context *cx;
    const Pb__JobSpec *spec;
    const struct shell *shell;
    char *project_dir;
    struct arena arena;
    struct vars vars;
    struct shim_conf *conf;
    struct buf *why;
};

static const struct shell *find_shell(void)
{
    for (size_t i = 0; i < ARRAY_LEN(shells); i++) {
        if (access(shells[i].path, X_OK) == 0) {
            return &shells[i];
        }
    }
    return NULL;
}

static bool shell_usable(struct buf *why)
{
    if (find_shell() == NULL) {
        buf_addz(why, "there is neither bash nor sh");
        return false;
    }
    return true;
}

/* The last guard: the scheduler should not have sent it here. */
static int refuse_containers(const Pb__JobSpec *spec, struct buf *why)
{
    if (spec->image != NULL && spec->image->name[0] != '\0') {
        buf_addf(why,
                 "job `%s` asks for image `%s`: the shell executor starts no containers; take it "
                 "out with `image: null`, in a file that includes this one, say",
                 spec->name, spec->image->name);
        return -E_UNSUPPORTED;
    }
    if (spec->n_services > 0) {
        const Pb__Image *image = spec->services[0]->image;
        buf_addf(why,
                 "job `%s` asks for service `%s`: the shell executor starts no containers; take "
                 "it out with `services: []`, in a file that includes this one, say",
                 spec->name, image != NULL ? image->name : "");
        return -E_UNSUPPORTED;
    }
    return 0;
}

static uint64_t variable_duration_ms(const struct preparation *p, struct str name, uint64_t usual)
{
    uint64_t ms;
    const struct var *var = vars_get(&p->vars, name);
    return var != NULL && str_to_duration_ms(var->value, &ms) == 0 && ms > 0 ? ms : usual;
}

/* A step that davit-worker itself runs. */
static void add_own_step(struct preparation *p, const char *name, const char *kind,
                         uint64_t timeout_ms)
{
    shim_conf_step(p->conf, name, kind, timeout_ms, p->project_dir);
    shim_conf_arg(p->conf, p->cx->step_program);
    shim_conf_arg(p->conf, "step");
    shim_conf_arg(p->conf, name);
    shim_conf_arg(p->conf, p->cx->job_dir);
    environment_to_conf(&p->vars, p->conf);
    shim_conf_env(p->conf, STR("DAVIT_API_URL"), str_from(p->cx->api_url));
    shim_conf_env(p->conf, STR("DAVIT_CACHE_DIR"), str_from(p->cx->cache_dir));
    if (p->cx->ca_file != NULL) {
        shim_conf_env(p->conf, STR("DAVIT_CA_FILE"), str_from(p->cx->ca_file));
    }
}

static int add_script(struct preparation *p, const char *name, const char *kind, const char *cwd,
                      uint64_t timeout_ms, const ProtobufCBinaryData *lines, size_t count)
{
    struct buf text = BUF_INIT;
    struct buf path = BUF_INIT;
    const struct var *trace = vars_get(&p->vars, STR("CI_DEBUG_TRACE"));
    struct script_style style = {
        .bash = p->shell->bash,
        .after = strcmp(kind, "after") == 0,
        .trace = trace != NULL && str_eqz(trace->value, "true"),
    };
    buf_addf(&path, "%s/%s.sh", p->cx->job_dir, name);
    int r = script_write(lines, count, style, &text);
    if (r < 0) {
        buf_addf(p->why, "`%s` of job `%s` holds a NUL byte", name, p->spec->name);
    } else {
        r = os_put_file(path.p, text.p, text.n, 0600);
    }
    shim_conf_step(p->conf, name, kind, timeout_ms, cwd);
    shim_conf_arg(p->conf, p->shell->path);
    shim_conf_arg(p->conf, path.p);
    environment_to_conf(&p->vars, p->conf);
    buf_release(&text);
    buf_release(&path);
    return r;
}

static void count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(size_t *)ctx;
}

/* Each step costs the start of a program: only those that have something to do are added. Without
 * sources that is to empty the folder, which it often is. */
static bool needs_source(const struct preparation *p)
{
    const Pb__Source *source = p->spec->source;
    size_t names = 0;
    bool from = source != NULL && source->from_case != PB__SOURCE__FROM__NOT_SET;
    return from || p->spec->n_pre_get_sources > 0 ||
           os_list_dir(p->project_dir, count_name, &names) < 0 || names > 0;
}

static bool has_uploads(const Pb__JobSpec *spec)
{
    const Pb__ArtifactSpec *a = spec->artifacts;
    return spec->pages != NULL ||
           (a != NULL && (a->n_paths > 0 || a->untracked || a->n_reports > 0));
}

static int add_steps_before(struct preparation *p)
{
    const Pb__JobSpec *spec = p->spec;
    int r = 0;
    if (spec->n_pre_get_sources > 0) {
        r = add_script(p, "pre_get_sources", "main", p->cx->builds_dir, 0, spec->pre_get_sources,
                       spec->n_pre_get_sources);
    }
    if (needs_source(p)) {
        add_own_step(p, "source", "main", 0);
    }
    if (spec->n_caches > 0) {
        add_own_step(p, "cache_in", "main", 0);
    }
    if (spec->n_artifacts_in > 0) {
        add_own_step(p, "artifacts_in", "main", 0);
    }
    return r;
}

/* `after`, not `always`: before the script, the tree is that of some job before. The broker's own
 * timeout (job_deadline_ms in broker/core/attempt.c) counts on the times that are given here. */
static void add_steps_behind(struct preparation *p)
{
    const Pb__JobSpec *spec = p->spec;
    if (spec->n_caches > 0) {
        add_own_step(p, "cache_out", "after", spec->timeout_ms);
    }
    if (has_uploads(spec)) {
        add_own_step(p, "artifacts_out", "after", spec->timeout_ms);
    }
    if (spec->release != NULL || spec->environment_url.len > 0) {
        add_own_step(p, "result", "after", RESULT_MS);
    }
    if (spec->coverage.len > 0) {
        add_own_step(p, "coverage", "after", RESULT_MS);
    }
}

static int add_steps(struct preparation *p)
{
    const Pb__JobSpec *spec = p->spec;
    uint64_t script_ms = variable_duration_ms(p, STR("RUNNER_SCRIPT_TIMEOUT"), 0);
    uint64_t after_ms = variable_duration_ms(p, STR("RUNNER_AFTER_SCRIPT_TIMEOUT"),
                                             AFTER_SCRIPT_MS);
    after_ms = MIN(after_ms, MAX(spec->timeout_ms, AFTER_SCRIPT_MS));
    int r = add_steps_before(p);
    if (r == 0) {
        r = add_script(p, "script", "main", p->project_dir, script_ms, spec->script,
                       spec->n_script);
    }
    if (r == 0 && spec->n_after_script > 0) {
        r = add_script(p, "after_script", "after", p->project_dir, after_ms, spec->after_script,
                       spec->n_after_script);
    }
    add_steps_behind(p);
    return r;
}

static int prepare_all(struct preparation *p)
{
    const struct exec_context *cx = p->cx;
    int r = workspace_make(cx->builds_dir, cx->slot, p->spec->project, &p->project_dir, p->why);
    if (r < 0) {
        return r;
    }
    r = environment_variables(cx, p->spec, p->project_dir, &p->vars, p->why);
    if (r < 0) {
        return r;
    }
    p->conf = shim_conf_new(LOG_HEAD_BYTES, LOG_TAIL_BYTES, cx->cancel_grace_ms,
                            p->spec->timeout_ms);
    if (cx->open_files > 0) {
        shim_conf_files(p->conf, cx->open_files);
    }
    int masked = environment_mask(&p->vars, p->spec, p->conf, p->why);
    int steps = masked < 0 ? masked : add_steps(p);
    r = shim_conf_write(p->conf, cx->job_dir);
    r = steps < 0 ? steps : r;
    return r < 0 ? r : prepared_write(cx->job_dir, p->spec, &p->vars);
}

static int shell_prepare(const struct exec_context *cx, const Pb__JobSpec *spec, struct buf *why)
{
    struct preparation p = {.cx = cx, .spec = spec, .shell = find_shell(), .why = why};
    int r = refuse_containers(spec, why);
    if (r < 0) {
        return r;
    }
    if (!shell_usable(why)) {
        return -E_UNSUPPORTED;
    }
    arena_init(&p.arena, 0);
    vars_init(&p.vars, &p.arena);
    r = prepare_all(&p);
    if (r < 0 && why->n == 0) {
        buf_addf(why, "cannot prepare the job: %s", err_text(r));
    }
    free(p.project_dir);
    arena_release(&p.arena);
    return r;
}

static int shell_start(const struct exec_context *cx, pid_t *ret_pid)
{
    return shim_start(cx->shim_program, cx->job_dir, ret_pid);
}

static int shell_cancel(const struct exec_context *cx, bool force)
{
    return shim_control(cx->job_dir, force ? 'k' : 'c');
}

static bool shell_alive(const struct exec_context *cx)
{
    return shim_alive(cx->job_dir);
}

static bool shell_cleanup(const struct exec_context *cx)
{
    struct shim_status status;
    bool gone = shim_status_read(cx->job_dir, &status) == 0 ||
                shim_kill_leftovers_soon(cx->job_dir);
    environment_remove_files(cx->job_dir);
    prepared_remove(cx->job_dir);
    return gone;
}

const struct executor executor_shell = {
    .name = "shell",
    .usable = shell_usable,
    .prepare = shell_prepare,
    .start = shell_start,
    .cancel = shell_cancel,
    .alive = shell_alive,
    .cleanup = shell_cleanup,
};
