/* From the shim's status to the job's outcome: the first main step that did not end well decides.
 */
#include "common/base.h"

#include "common/mask_forms.h"
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

/* Lines of the user's: the exit code is theirs. */
static bool is_script(const struct shim_step_status *s)
{
    return is(s->name, "script") || is(s->name, "pre_get_sources");
}

/* A main step that ended with another code than 0. */
static Pb__Reason exit_reason(const struct shim_step_status *s)
{
    if (is_script(s)) {
        return REASON_SCRIPT_FAILURE;
    }
    switch (s->code) {
    case STEP_EXIT_SOURCE:
        return REASON_SOURCE_FAILURE;
    case STEP_EXIT_ARTIFACT:
        return REASON_ARTIFACT_MISSING;
    case STEP_EXIT_IMAGE:
        return REASON_IMAGE_PULL_FAILURE;
    case STEP_EXIT_CONFIG:
        return REASON_CONFIG_ERROR;
    default:
        return REASON_SYSTEM_FAILURE;
    }
}

/* A step that ran the script elsewhere says so when it was not the script that failed. */
static bool failed_itself(const struct exec_context *cx, const struct shim_step_status *s,
                          struct arena *arena, Pb__Outcome *o)
{
    Pb__Outcome *part;
    if (!is_script(s) || prepared_part_read(cx->job_dir, s->name, arena, &part) < 0 ||
        part->reason == REASON_NONE) {
        return false;
    }
    set(o, JOB_FAILED, (Pb__Reason)part->reason, 0, part->detail);
    return true;
}

static void main_failed(const struct exec_context *cx, const struct shim_step_status *s,
                        const Pb__JobSpec *spec, struct arena *arena, Pb__Outcome *o)
{
    struct str name = str_from(s->name);
    if (is(s->result, "canceled") || is(s->result, "killed")) {
        set(o, JOB_CANCELED, REASON_NONE, 0,
            arena_printf(arena, "ended in " STR_FMT, STR_ARG(name)));
    } else if (is(s->result, "timeout")) {
        set(o, JOB_FAILED, REASON_JOB_TIMEOUT, 0,
            arena_printf(arena, STR_FMT " ran out of time: the job may take %" PRIu64 " s",
                         STR_ARG(name), spec->timeout_ms / 1000));
    } else if (is(s->result, "exit") && failed_itself(cx, s, arena, o)) {
        return;
    } else if (is(s->result, "exit")) {
        int code = is_script(s) ? s->code : 0;
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

/* The steps behind the script, in their order. Only what a job promises can fail it then: that a
 * cache was not kept, or the coverage not found, changes nothing; nor does after_script. */
static const struct after_step {
    const char *name;
    bool adds;     /* leaves a part of the outcome */
    bool promised; /* the job is not good without it */
    const char *what;
    int exit_code;     /* with which it says that it failed for a reason in the job itself ... */
    Pb__Reason reason; /* ... and what this and running out of time mean */
} after_steps[] = {
    {"after_script", .adds = false},
    {"container_end", .adds = false},
    {"cache_out", .adds = false},
    {"artifacts_out", true, true, "artifacts were not uploaded", STEP_EXIT_ARTIFACT,
     REASON_ARTIFACT_FAILURE},
    {"result", true, true, "job's results were not gathered", STEP_EXIT_RESULT,
     REASON_SCRIPT_FAILURE},
    {"coverage", .adds = true},
};

static const struct after_step *after_step(const struct shim_step_status *s)
{
    for (size_t i = 0; i < ARRAY_LEN(after_steps); i++) {
        if (is(after_steps[i].name, s->name)) {
            return &after_steps[i];
        }
    }
    return NULL;
}

/* Looked at once all main steps ended well. `detail` is what the step itself says of its failure.
 */
static void promised_failed(const struct after_step *step, const struct shim_step_status *s,
                            char *detail, struct arena *arena, Pb__Outcome *o)
{
    if (is(s->result, "killed") || is(s->result, "skipped")) {
        set(o, JOB_CANCELED, REASON_NONE, 0, arena_printf(arena, "ended before %s", step->name));
        return;
    }
    bool ours = is(s->result, "timeout") || (is(s->result, "exit") && s->code == step->exit_code);
    if (detail[0] == '\0') {
        detail = arena_printf(arena, "the %s: %s %d", step->what, s->result, s->code);
    }
    set(o, JOB_FAILED, ours ? step->reason : REASON_SYSTEM_FAILURE, 0, detail);
}

static void add_part(const Pb__Outcome *part, Pb__Outcome *o)
{
    if (part->n_artifacts > 0) {
        o->n_artifacts = part->n_artifacts;
        o->artifacts = part->artifacts;
    }
    if (part->n_dotenv > 0) {
        o->n_dotenv = part->n_dotenv;
        o->dotenv = part->dotenv;
    }
    if (part->has_coverage) {
        o->has_coverage = true;
        o->coverage_hundredths = part->coverage_hundredths;
    }
    if (part->environment_url.len > 0) {
        o->environment_url = part->environment_url;
    }
    o->release = part->release != NULL ? part->release : o->release;
    o->pages = part->pages != NULL ? part->pages : o->pages;
}

/* A step behind the script: what it adds, and whether the job was good for it. */
static void after_ended(const struct exec_context *cx, const struct shim_step_status *s,
                        struct arena *arena, Pb__Outcome *o)
{
    const struct after_step *step = after_step(s);
    Pb__Outcome *part;
    char *detail = arena_strdup(arena, STR(""));
    if (step == NULL || !step->adds) {
        return;
    }
    if (prepared_part_read(cx->job_dir, s->name, arena, &part) == 0) {
        add_part(part, o);
        detail = part->detail;
    }
    if (step->promised && !ended_well(s) && o->result == JOB_SUCCESS) {
        promised_failed(step, s, detail, arena, o);
    }
}

static int hide_variables(struct mask *mask, const Pb__JobSpec *spec)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < spec->n_variables; i++) {
        const Pb__Variable *v = spec->variables[i];
        r = v->masked ? mask_add_secret(mask, pb_str(v->value)) : 0;
    }
    return r;
}

/* The text may quote what the job's variables were put into: names of files, words for the Engine.
 * They are hidden as in the log: as they were given, and expanded. */
static char *hide(const struct exec_context *cx, const Pb__JobSpec *spec, struct arena *arena,
                  const char *text)
{
    struct mask *mask = mask_new();
    struct buf out = BUF_INIT;
    Pb__JobSpec *prepared;
    int r = mask_add_secret(mask, str_from(spec->token));
    r = r < 0 ? r : hide_variables(mask, spec);
    if (r == 0 && prepared_read(cx->job_dir, arena, &prepared) == 0) {
        r = hide_variables(mask, prepared);
    }
    if (r == 0) {
        mask_feed(mask, str_from(text), &out);
        mask_end(mask, &out);
    }
    char *shown = arena_strdup(arena, buf_str(&out)); /* nothing of it, where there are too many */
    mask_free(mask);
    buf_release(&out);
    return shown;
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
        well = after_step(s) != NULL || ended_well(s);
        if (!well) {
            main_failed(cx, s, spec, arena, ret);
        }
    }
    for (size_t i = 0; i < status->step_count; i++) {
        after_ended(cx, &status->steps[i], arena, ret);
    }
    if (ret->result != JOB_SUCCESS) {
        ret->release = NULL;
        ret->pages = NULL;
    }
    if (ret->detail[0] != '\0') {
        ret->detail = hide(cx, spec, arena, ret->detail);
    }
}
