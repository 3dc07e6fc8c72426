#include "common/base.h"

#include "worker/exec/steps.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/environment.h"
#include "worker/exec/prepared.h"
#include "worker/exec/script.h"
#include "worker/exec/workspace.h"

#define AFTER_SCRIPT_MS (5ull * 60 * 1000)
#define RESULT_MS       (60ull * 1000) /* for each step that only reads what the job left */

static uint64_t variable_duration_ms(const struct preparation *p, struct str name, uint64_t usual)
{
    uint64_t ms;
    const struct var *var = vars_get(&p->vars, name);
    return var != NULL && str_to_duration_ms(var->value, &ms) == 0 && ms > 0 ? ms : usual;
}

void steps_add_own(struct preparation *p, const char *name, const char *kind, uint64_t timeout_ms)
{
    shim_conf_step(p->conf, name, kind, timeout_ms, p->project_dir);
    shim_conf_arg(p->conf, p->cx->step_program);
    shim_conf_arg(p->conf, "step");
    shim_conf_arg(p->conf, name);
    shim_conf_arg(p->conf, p->cx->job_dir);
    if (p->way->isolated) {
        environment_to_conf(NULL, p->conf);
        environment_git_to_conf(&p->vars, p->conf);
    } else {
        environment_to_conf(&p->vars, p->conf);
    }
    shim_conf_env(p->conf, STR("DAVIT_API_URL"), str_from(p->cx->api_url));
    shim_conf_env(p->conf, STR("DAVIT_CACHE_DIR"), str_from(p->cx->cache_dir));
    if (p->cx->cache_bytes > 0) {
        char number[24];
        snprintf(number, sizeof(number), "%" PRIu64, p->cx->cache_bytes);
        shim_conf_env(p->conf, STR("DAVIT_CACHE_BYTES"), str_from(number));
    }
    if (p->cx->local_git) {
        shim_conf_env(p->conf, STR("DAVIT_LOCAL_GIT"), STR("yes"));
    }
    if (p->cx->ca_file != NULL) {
        shim_conf_env(p->conf, STR("DAVIT_CA_FILE"), str_from(p->cx->ca_file));
    }
}

int steps_write_script(struct preparation *p, const struct script_step *s, bool bash,
                       char **ret_path)
{
    struct buf text = BUF_INIT;
    struct buf path = BUF_INIT;
    const struct var *trace = vars_get(&p->vars, STR("CI_DEBUG_TRACE"));
    struct script_style style = {
        .bash = bash,
        .after = strcmp(s->kind, "after") == 0,
        .trace = trace != NULL && str_eqz(trace->value, "true"),
    };
    buf_addf(&path, "%s/%s.sh", p->cx->job_dir, s->name);
    int r = script_write(s->lines, s->count, style, &text);
    if (r < 0) {
        buf_addf(p->why, "`%s` of job `%s` holds a NUL byte", s->name, p->spec->name);
    } else {
        r = os_put_file(path.p, text.p, text.n, 0600);
    }
    *ret_path = buf_take(&path);
    buf_release(&text);
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
    if (p->way->add_first != NULL) {
        p->way->add_first(p);
    }
    if (spec->n_pre_get_sources > 0) {
        struct script_step hook = {
            .name = "pre_get_sources",
            .kind = "main",
            .cwd = p->way->isolated ? p->project_dir : p->cx->builds_dir,
            .lines = spec->pre_get_sources,
            .count = spec->n_pre_get_sources,
        };
        r = p->way->add_script(p, &hook);
    }
    if (needs_source(p)) {
        steps_add_own(p, "source", "main", 0);
    }
    if (spec->n_caches > 0) {
        steps_add_own(p, "cache_in", "main", 0);
    }
    if (spec->n_artifacts_in > 0) {
        steps_add_own(p, "artifacts_in", "main", 0);
    }
    return r;
}

/* `after`, not `always`: before the script, the tree is that of some job before. The broker's own
 * timeout (job_deadline_ms in broker/core/attempt.c) counts on the times that are given here. */
static void add_steps_behind(struct preparation *p)
{
    const Pb__JobSpec *spec = p->spec;
    if (spec->n_caches > 0) {
        steps_add_own(p, "cache_out", "after", spec->timeout_ms);
    }
    if (has_uploads(spec)) {
        steps_add_own(p, "artifacts_out", "after", spec->timeout_ms);
    }
    if (spec->release != NULL || spec->environment_url.len > 0) {
        steps_add_own(p, "result", "after", RESULT_MS);
    }
    if (spec->coverage.len > 0) {
        steps_add_own(p, "coverage", "after", RESULT_MS);
    }
}

static int add_steps(struct preparation *p)
{
    const Pb__JobSpec *spec = p->spec;
    uint64_t after_ms = variable_duration_ms(p, STR("RUNNER_AFTER_SCRIPT_TIMEOUT"),
                                             AFTER_SCRIPT_MS);
    struct script_step script = {
        .name = "script",
        .kind = "main",
        .cwd = p->project_dir,
        .timeout_ms = variable_duration_ms(p, STR("RUNNER_SCRIPT_TIMEOUT"), 0),
        .lines = spec->script,
        .count = spec->n_script,
    };
    struct script_step after = {
        .name = "after_script",
        .kind = "after",
        .cwd = p->project_dir,
        .timeout_ms = MIN(after_ms, MAX(spec->timeout_ms, AFTER_SCRIPT_MS)),
        .lines = spec->after_script,
        .count = spec->n_after_script,
    };
    int r = add_steps_before(p);
    if (r == 0) {
        r = p->way->add_script(p, &script);
    }
    if (r == 0 && spec->n_after_script > 0) {
        r = p->way->add_script(p, &after);
    }
    if (p->way->add_behind_scripts != NULL) {
        p->way->add_behind_scripts(p);
    }
    add_steps_behind(p);
    return r;
}

static int prepare_all(struct preparation *p)
{
    const struct exec_context *cx = p->cx;
    int r = workspace_make(cx->builds_dir, cx->slot, p->spec->ref_protected, p->spec->project,
                           &p->project_dir, p->why);
    if (r < 0) {
        return r;
    }
    r = environment_variables(cx, p->spec, p->project_dir, p->way->isolated, &p->vars, p->why);
    if (r < 0) {
        return r;
    }
    p->conf = shim_conf_new(STEPS_LOG_HEAD_BYTES, STEPS_LOG_TAIL_BYTES, cx->cancel_grace_ms,
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

int steps_prepare(const struct exec_context *cx, const Pb__JobSpec *spec,
                  const struct steps_way *way, struct buf *why)
{
    struct preparation p = {.cx = cx, .spec = spec, .way = way, .why = why};
    arena_init(&p.arena, 0);
    vars_init(&p.vars, &p.arena);
    int r = prepare_all(&p);
    if (r < 0 && why->n == 0) {
        buf_addf(why, "cannot prepare the job: %s", err_text(r));
    }
    free(p.project_dir);
    arena_release(&p.arena);
    return r;
}

int steps_start(const struct exec_context *cx, pid_t *ret_pid)
{
    return shim_start(cx->shim_program, cx->job_dir, ret_pid);
}

int steps_cancel(const struct exec_context *cx, bool force)
{
    return shim_control(cx->job_dir, force ? 'k' : 'c');
}

bool steps_alive(const struct exec_context *cx)
{
    return shim_alive(cx->job_dir);
}

bool steps_cleanup(const struct exec_context *cx)
{
    struct shim_status status;
    bool gone = shim_status_read(cx->job_dir, &status) == 0 ||
                shim_kill_leftovers_soon(cx->job_dir);
    environment_remove_files(cx->job_dir);
    prepared_remove(cx->job_dir);
    return gone;
}
