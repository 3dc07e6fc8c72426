/* From the shim's status to the job's outcome: the first main step that did not end well decides.
 */
#include "common/base.h"

#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"

static void set(Pb__Outcome *o, Pb__JobState result, Pb__Reason reason, int exit_code, char *detail)
{
    o->result = result;
    o->reason = reason;
    o->exit_code = exit_code;
    o->detail = detail;
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static bool ended_well(const struct shim_step_status *s)
{
    return is(s->result, "exit") && s->code == 0;
}

/* A main step that ended with another code than 0. */
static Pb__Reason exit_reason(const struct shim_step_status *s)
{
    if (is(s->name, "script")) {
        return REASON_SCRIPT_FAILURE;
    }
    if (s->code == STEP_EXIT_SOURCE) {
        return REASON_SOURCE_FAILURE;
    }
    return s->code == STEP_EXIT_ARTIFACT ? REASON_ARTIFACT_MISSING : REASON_SYSTEM_FAILURE;
}

static void main_failed(const struct shim_step_status *s, const Pb__JobSpec *spec,
                        struct arena *arena, Pb__Outcome *o)
{
    struct str name = str_from(s->name);
    if (is(s->result, "canceled") || is(s->result, "killed")) {
        set(o, JOB_CANCELED, REASON_NONE, 0,
            arena_printf(arena, "ended in " STR_FMT, STR_ARG(name)));
    } else if (is(s->result, "timeout")) {
        set(o, JOB_FAILED, REASON_JOB_TIMEOUT, 0,
            arena_printf(arena, STR_FMT " ran out of time: the job may take %" PRIu64 " s",
                         STR_ARG(name), spec->timeout_ms / 1000));
    } else if (is(s->result, "exit")) {
        int code = is(s->name, "script") ? s->code : 0;
        set(o, JOB_FAILED, exit_reason(s), code,
            arena_printf(arena, STR_FMT " ended with exit code %d", STR_ARG(name), s->code));
    } else if (is(s->result, "signal")) {
        set(o, JOB_FAILED, REASON_SYSTEM_FAILURE, 0,
            arena_printf(arena, STR_FMT " was ended by signal %d", STR_ARG(name), s->code));
    } else if (is(s->result, "error")) {
        set(o, JOB_FAILED, REASON_SYSTEM_FAILURE, 0,
            arena_printf(arena, STR_FMT " could not be run or ended (error %d)", STR_ARG(name),
                         s->code));
    } else {
        set(o, JOB_FAILED, REASON_SYSTEM_FAILURE, 0,
            arena_printf(arena, STR_FMT " did not run", STR_ARG(name)));
    }
}

/* Looked at once all main steps ended well. A failing after_script changes nothing. */
static void upload_ended(const struct shim_step_status *s, struct arena *arena, Pb__Outcome *o)
{
    if (!is(s->name, "artifacts_out") || ended_well(s)) {
        return;
    }
    if (is(s->result, "killed") || is(s->result, "skipped")) {
        set(o, JOB_CANCELED, REASON_NONE, 0,
            arena_printf(arena, "ended before the artifacts were"));
        return;
    }
    bool ours = is(s->result, "exit") && s->code == STEP_EXIT_ARTIFACT;
    set(o, JOB_FAILED,
        ours || is(s->result, "timeout") ? REASON_ARTIFACT_FAILURE : REASON_SYSTEM_FAILURE, 0,
        arena_printf(arena, "the artifacts were not uploaded: %s %d", s->result, s->code));
}

static void add_artifacts(const struct exec_context *cx, struct arena *arena, Pb__Outcome *o)
{
    Pb__ArtifactOut *artifact;
    if (prepared_artifacts_read(cx->job_dir, arena, &artifact) == 0) {
        o->artifacts = arena_array(arena, 1, sizeof(*o->artifacts));
        o->artifacts[0] = artifact;
        o->n_artifacts = 1;
    }
}

static bool is_after(const struct shim_step_status *s)
{
    return is(s->name, "after_script") || is(s->name, "artifacts_out");
}

void exec_outcome(const struct exec_context *cx, const Pb__JobSpec *spec,
                  const struct shim_status *status, struct arena *arena, Pb__Outcome *ret)
{
    pb__outcome__init(ret);
    set(ret, JOB_SUCCESS, REASON_NONE, 0, arena_strdup(arena, STR("")));
    bool well = status->step_count > 0;
    if (!well) {
        set(ret, JOB_FAILED, REASON_SYSTEM_FAILURE, 0, arena_printf(arena, "nothing ran"));
    }
    for (size_t i = 0; well && i < status->step_count; i++) {
        const struct shim_step_status *s = &status->steps[i];
        well = is_after(s) || ended_well(s);
        if (!well) {
            main_failed(s, spec, arena, ret);
        }
    }
    for (size_t i = 0; well && i < status->step_count; i++) {
        upload_ended(&status->steps[i], arena, ret);
    }
    add_artifacts(cx, arena, ret);
}
