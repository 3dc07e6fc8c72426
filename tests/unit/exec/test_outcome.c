/* What each way to end means for the job. */
#include "common/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/os.h"
#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"

struct expectation {
    const char *step; /* all others ended well */
    const char *result;
    int code;
    Pb__JobState state;
    Pb__Reason reason;
    int exit_code;
};

static const char *const steps[] = {
    "pre_get_sources", "source",    "cache_in",      "artifacts_in", "script",
    "after_script",    "cache_out", "artifacts_out", "result",       "coverage",
};
_Static_assert(ARRAY_LEN(steps) <= SHIM_STEPS_MAX, "a job may need all of them");

static const struct expectation expectations[] = {
    {"", "", 0, JOB_SUCCESS, REASON_NONE, 0},
    {"pre_get_sources", "exit", 7, JOB_FAILED, REASON_SCRIPT_FAILURE, 7},
    {"pre_get_sources", "canceled", 15, JOB_CANCELED, REASON_NONE, 0},
    {"cache_in", "signal", 11, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"cache_in", "timeout", 15, JOB_FAILED, REASON_JOB_TIMEOUT, 0},
    {"cache_in", "canceled", 15, JOB_CANCELED, REASON_NONE, 0},
    {"source", "exit", STEP_EXIT_SOURCE, JOB_FAILED, REASON_SOURCE_FAILURE, 0},
    {"source", "exit", STEP_EXIT_SYSTEM, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"source", "exit", 1, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"source", "signal", 11, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"source", "timeout", 15, JOB_FAILED, REASON_JOB_TIMEOUT, 0},
    {"source", "canceled", 15, JOB_CANCELED, REASON_NONE, 0},
    {"source", "killed", 9, JOB_CANCELED, REASON_NONE, 0},
    {"artifacts_in", "exit", STEP_EXIT_ARTIFACT, JOB_FAILED, REASON_ARTIFACT_MISSING, 0},
    {"artifacts_in", "exit", STEP_EXIT_SYSTEM, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"source", "exit", STEP_EXIT_IMAGE, JOB_FAILED, REASON_IMAGE_PULL_FAILURE, 0},
    {"source", "exit", STEP_EXIT_CONFIG, JOB_FAILED, REASON_CONFIG_ERROR, 0},
    {"script", "exit", 1, JOB_FAILED, REASON_SCRIPT_FAILURE, 1},
    {"script", "exit", STEP_EXIT_SOURCE, JOB_FAILED, REASON_SCRIPT_FAILURE, STEP_EXIT_SOURCE},
    {"script", "signal", 9, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"script", "timeout", 0, JOB_FAILED, REASON_JOB_TIMEOUT, 0},
    {"script", "canceled", 0, JOB_CANCELED, REASON_NONE, 0},
    {"script", "error", ENOENT, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"script", "skipped", 0, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"after_script", "exit", 1, JOB_SUCCESS, REASON_NONE, 0},
    {"after_script", "timeout", 15, JOB_SUCCESS, REASON_NONE, 0},
    {"artifacts_out", "exit", STEP_EXIT_ARTIFACT, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0},
    {"artifacts_out", "timeout", 15, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0},
    {"artifacts_out", "exit", STEP_EXIT_SYSTEM, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"artifacts_out", "signal", 9, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"artifacts_out", "killed", 9, JOB_CANCELED, REASON_NONE, 0},
    {"cache_out", "exit", STEP_EXIT_SYSTEM, JOB_SUCCESS, REASON_NONE, 0},
    {"cache_out", "timeout", 15, JOB_SUCCESS, REASON_NONE, 0},
    {"cache_out", "signal", 11, JOB_SUCCESS, REASON_NONE, 0},
    {"result", "exit", STEP_EXIT_RESULT, JOB_FAILED, REASON_SCRIPT_FAILURE, 0},
    {"result", "exit", STEP_EXIT_SYSTEM, JOB_FAILED, REASON_SYSTEM_FAILURE, 0},
    {"result", "skipped", 0, JOB_CANCELED, REASON_NONE, 0},
    {"coverage", "exit", STEP_EXIT_SYSTEM, JOB_SUCCESS, REASON_NONE, 0},
    {"coverage", "timeout", 15, JOB_SUCCESS, REASON_NONE, 0},
};

static struct shim_status status_of(const struct expectation *e)
{
    struct shim_status s = {0};
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        struct shim_step_status *step = &s.steps[s.step_count++];
        bool is_it = strcmp(steps[i], e->step) == 0;
        snprintf(step->name, sizeof(step->name), "%s", steps[i]);
        snprintf(step->result, sizeof(step->result), "%s", is_it ? e->result : "exit");
        step->code = is_it ? e->code : 0;
    }
    return s;
}

static void every_way_to_end_has_its_outcome(void **state)
{
    (void)state;
    struct exec_context cx = {.job_dir = "/nowhere"};
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    for (size_t i = 0; i < ARRAY_LEN(expectations); i++) {
        const struct expectation *e = &expectations[i];
        struct shim_status s = status_of(e);
        struct arena arena;
        Pb__Outcome o;
        arena_init(&arena, 0);
        exec_outcome(&cx, &spec, &s, &arena, &o);
        if (o.result != (uint32_t)e->state || o.reason != (uint32_t)e->reason ||
            o.exit_code != e->exit_code) {
            fail_msg("%s %s %d gave %u %u %d: %s", e->step, e->result, e->code, o.result, o.reason,
                     o.exit_code, o.detail);
        }
        arena_release(&arena);
    }
}

/* The first main step that failed decides, whatever came after. */
static void the_first_failure_is_the_reason(void **state)
{
    (void)state;
    struct exec_context cx = {.job_dir = "/nowhere"};
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    const struct expectation script = {.step = "script", .result = "exit", .code = 1};
    const struct expectation upload = {.step = "artifacts_out", .result = "timeout", .code = 15};
    struct shim_status s = status_of(&script);
    struct shim_status later = status_of(&upload);
    struct arena arena;
    Pb__Outcome o;
    memcpy(s.steps + 5, later.steps + 5, 5 * sizeof(*s.steps));
    arena_init(&arena, 0);
    exec_outcome(&cx, &spec, &s, &arena, &o);
    assert_int_equal(o.reason, REASON_SCRIPT_FAILURE);
    s.step_count = 0;
    exec_outcome(&cx, &spec, &s, &arena, &o);
    assert_int_equal(o.reason, REASON_SYSTEM_FAILURE);
    arena_release(&arena);
}

/* What ran the script elsewhere says that it was not the script which failed. */
static void a_script_that_was_killed_where_it_ran_is_no_failure_of_its_own(void **state)
{
    char folder[] = "/tmp/davit-outcome-test-XXXXXX";
    const struct expectation script = {.step = "script", .result = "exit", .code = 103};
    const struct expectation late = {.step = "script", .result = "timeout", .code = 15};
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    Pb__Outcome part = PB__OUTCOME__INIT;
    Pb__Outcome o;
    struct arena arena;
    (void)state;
    assert_non_null(mkdtemp(folder));
    struct exec_context cx = {.job_dir = folder};
    struct shim_status s = status_of(&script);
    arena_init(&arena, 0);
    part.reason = REASON_SYSTEM_FAILURE;
    part.detail = (char *)(uintptr_t) "out of memory";
    assert_int_equal(prepared_part_write(folder, "script", &part), 0);
    exec_outcome(&cx, &spec, &s, &arena, &o);
    assert_int_equal(o.result, JOB_FAILED);
    assert_int_equal(o.reason, REASON_SYSTEM_FAILURE);
    assert_int_equal(o.exit_code, 0);
    assert_string_equal(o.detail, "out of memory");
    s = status_of(&late);
    exec_outcome(&cx, &spec, &s, &arena, &o);
    assert_int_equal(o.reason, REASON_JOB_TIMEOUT);
    arena_release(&arena);
    os_remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_to_end_has_its_outcome),
        cmocka_unit_test(the_first_failure_is_the_reason),
        cmocka_unit_test(a_script_that_was_killed_where_it_ran_is_no_failure_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
