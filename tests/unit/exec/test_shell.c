#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/exec/fixture.h"
#include "worker/exec/script.h"

static void each_line_is_shown_and_run_in_one_shell(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "x=1", "  cd /tmp  ", "echo \"it's $x in $PWD\"", "", "if true\nthen echo two\nfi");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_string_equal(f->log, "\033[32;1m$ x=1\033[0;m\n"
                                "\033[32;1m$ cd /tmp\033[0;m\n"
                                "\033[32;1m$ echo \"it's $x in $PWD\"\033[0;m\n"
                                "it's 1 in /tmp\n"
                                "\033[32;1m$ if true # collapsed multi-line command\033[0;m\n"
                                "two\n");
}

/* Without sources, what the job before left is taken away; the program that does it is started only
 * where something is there. */
static void a_job_without_sources_starts_in_an_empty_folder(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "touch left .hidden; ls -A");
    run_job(f);
    assert_not_in_log(f, "Starting in an empty folder");
    fixture_new_job(f);
    SCRIPT(f, "echo [$(ls -A)]");
    run_job(f);
    assert_in_log(f, "Starting in an empty folder\n");
    assert_in_log(f, "\n[]\n");
}

/* What a job of any ref leaves behind, a git hook say, is not where one of a protected ref works.
 */
static void a_protected_ref_has_a_tree_of_its_own(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "mkdir -p .git/hooks; touch .git/hooks/post-checkout");
    run_job(f);
    char *theirs = run_command(f, "find builds -name post-checkout");
    assert_string_equal(
        theirs, arena_printf(&f->arena, "builds/3/%s/.git/hooks/post-checkout", f->spec.project));
    fixture_new_job(f);
    f->spec.ref_protected = true;
    SCRIPT(f, "echo in [$PWD]; touch kept");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(
        f, arena_printf(&f->arena, "\nin [%s/builds/3-protected/%s]\n", f->root, f->spec.project));
    assert_not_in_log(f, "Starting in an empty folder");
    assert_string_equal(run_command(f, "find builds -name kept | grep -c -- -protected/"), "1");
}

static void a_hook_runs_before_the_sources_in_the_builds_folder(void **state)
{
    struct fixture *f = *state;
    ProtobufCBinaryData hook[] = {pb_bytes(&f->arena, STR("x=1")),
                                  pb_bytes(&f->arena, STR("echo hook $x in $PWD"))};
    f->spec.pre_get_sources = hook;
    f->spec.n_pre_get_sources = 2;
    SCRIPT(f, "echo script [$x]");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, arena_printf(&f->arena, "\nhook 1 in %s/builds\n", f->root));
    assert_in_log(f, "\nscript []\n");
    assert_true(strstr(f->log, "hook 1") < strstr(f->log, "Starting in an empty folder"));
}

static void a_failing_hook_fails_the_job_before_its_sources(void **state)
{
    struct fixture *f = *state;
    ProtobufCBinaryData hook = pb_bytes(&f->arena, STR("exit 4"));
    f->spec.pre_get_sources = &hook;
    f->spec.n_pre_get_sources = 1;
    SCRIPT(f, "echo never");
    spec_after_script(f, "echo never after");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 4);
    assert_not_in_log(f, "never");
}

static void services_are_refused(void **state)
{
    struct fixture *f = *state;
    Pb__Image image = PB__IMAGE__INIT;
    Pb__Service service = PB__SERVICE__INIT;
    Pb__Service *list[] = {&service};
    image.name = arena_strdup(&f->arena, STR("postgres:16"));
    service.image = &image;
    f->spec.services = list;
    f->spec.n_services = 1;
    SCRIPT(f, "true");
    assert_int_equal(run_prepare(f), -E_UNSUPPORTED);
    assert_non_null(strstr(f->why, "asks for service `postgres:16`"));
    assert_non_null(strstr(f->why, "starts no containers"));
}

static void the_first_failure_ends_the_script(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "echo a", "(exit 3)", "echo b");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 3);
    assert_in_log(f, "\na\n");
    assert_not_in_log(f, "\nb\n");
    assert_in_log(f, "ERROR: the script ended with exit code 3");
}

static void a_failure_in_a_pipe_counts(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "(exit 4) | cat");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 4);
}

static void a_closed_pipe_ends_its_writer_as_in_a_clean_shell(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "set +o pipefail", "yes | head -1", "set -o pipefail", "yes | head -1");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 141);
}

/* As with gitlab-runner: the line `make test && make lint` must not hide that the tests failed. */
static void a_last_line_that_errexit_lets_fail_fails_the_script(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "(exit 3) && echo there");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 3);
    fixture_new_job(f);
    SCRIPT(f, "[ -e /nowhere ] && echo there", "echo the last line counts");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
}

static void after_script_knows_how_the_script_ended(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "false");
    spec_after_script(f, "echo after: $CI_JOB_STATUS");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 1);
    assert_in_log(f, "\nafter: failed\n");
    fixture_new_job(f);
    SCRIPT(f, "true");
    spec_after_script(f, "echo after: $CI_JOB_STATUS; false");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\nafter: success\n");
}

static void a_canceled_job_cleans_up_and_is_canceled(void **state)
{
    struct fixture *f = *state;
    char *ready = fixture_path(f, "ready");
    spec_variable(f, "READY", ready);
    SCRIPT(f, "trap 'echo trapped' EXIT", "touch $READY", "sleep 1000");
    spec_after_script(f, "echo after: $CI_JOB_STATUS");
    assert_int_equal(run_prepare(f), 0);
    run_start(f);
    wait_for_file(ready);
    assert_int_equal(executor_shell.cancel(&f->cx, false), 0);
    run_finish(f);
    assert_outcome(f, JOB_CANCELED, REASON_NONE, 0);
    assert_in_log(f, "\nafter: canceled\n");
}

static void a_job_that_takes_too_long_has_timed_out(void **state)
{
    struct fixture *f = *state;
    f->spec.timeout_ms = 300;
    SCRIPT(f, "sleep 1000");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_JOB_TIMEOUT, 0);
}

static void a_script_killed_from_outside_is_a_system_failure(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "kill -KILL $$");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SYSTEM_FAILURE, 0);
}

static void variables_are_expanded_and_come_whole(void **state)
{
    struct fixture *f = *state;
    struct buf big = BUF_INIT;
    for (size_t i = 0; i < 100000; i++) {
        buf_add_char(&big, (char)('a' + i % 26));
    }
    buf_addz(&big, "end");
    spec_variable(f, "BASE", "base");
    spec_variable(f, "NESTED", "<$BASE/${CI_PROJECT_DIR}>");
    spec_variable(f, "LINES", "one\n'two'\n\"$BASE\" `x`\\\n");
    spec_variable_bytes(f, "RAW", STR("$BASE"))->raw = true;
    spec_variable_bytes(f, "BIG", buf_str(&big));
    SCRIPT(f, "echo \"$NESTED\" | sed \"s|$PWD|HERE|\"", "printf '[%s]\\n' \"$LINES\"",
           "echo \"$RAW ${#BIG} ${BIG:100000}\"");
    run_job(f);
    buf_release(&big);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\n<base/HERE>\n");
    assert_in_log(f, "\n[one\n'two'\n\"base\" `x`\\\n]\n");
    assert_in_log(f, "\n$BASE 100003 end\n");
}

static void a_file_variable_is_a_private_file(void **state)
{
    struct fixture *f = *state;
    spec_variable(f, "WHO", "world");
    spec_variable_bytes(f, "KEY", STR("hello $WHO\0!\n"))->file = true;
    spec_variable(f, "KEY_PATH", "at $KEY");
    SCRIPT(f, "stat -c %a \"$KEY\"", "od -An -c \"$KEY\"", "[ \"$KEY_PATH\" = \"at $KEY\" ]");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\n600\n");
    assert_in_log(f, "h   e   l   l   o       w   o   r   l   d  \\0   !  \\n\n");
    assert_false(os_exists(fixture_path(f, "job/vars")));
    assert_false(os_exists(fixture_path(f, "job/prepared.pb")));
}

static void the_environment_is_clean_and_tells_of_the_worker(void **state)
{
    struct fixture *f = *state;
    setenv("SECRET_OF_THE_WORKER", "leak", 1);
    f->spec.project_id = 12;
    SCRIPT(
        f, "env | grep -c SECRET_OF_THE_WORKER || true", "echo $CI_PROJECT_DIR",
        "echo \"$CI_RUNNER_ID|$CI_RUNNER_DESCRIPTION|$CI_RUNNER_TAGS|$CI_RUNNER_VERSION|$CI_SERVER|"
        "$CI_CONCURRENT_ID|$CI_PROJECT_ID|$CI_JOB_STATUS\"",
        "echo \"$CI_JOB_STARTED_AT\" | grep -Ec '^20..-..-..T..:..:..Z$'", "umask", "ulimit -c");
    run_job(f);
    unsetenv("SECRET_OF_THE_WORKER");
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\n0\n");
    assert_in_log(f, arena_printf(&f->arena, "\n%s/builds/3/group/project\n", f->root));
    assert_in_log(f, "\n7|w1|[\"linux\", \"gcc\"]|1.2.3|yes|3|12|running\n");
    assert_in_log(f, "\n1\n");
    assert_in_log(f, "\n0022\n");
    fixture_new_job(f);
    f->cx.tags = "";
    SCRIPT(f, "echo \"tags: $CI_RUNNER_TAGS\"");
    run_job(f);
    assert_in_log(f, "\ntags: []\n");
}

static void a_posix_shell_runs_the_lines_too(void **state)
{
    struct fixture *f = *state;
    struct buf text = BUF_INIT;
    ProtobufCBinaryData lines[] = {pb_bytes(&f->arena, STR("echo 'a\\nb' | cat; x=1")),
                                   pb_bytes(&f->arena, STR("echo \"$x $CI_JOB_STATUS\"")),
                                   pb_bytes(&f->arena, STR("false")),
                                   pb_bytes(&f->arena, STR("echo never"))};
    struct script_style style = {.after = true};
    assert_int_equal(script_write(lines, ARRAY_LEN(lines), style, &text), 0);
    assert_int_equal(os_put_file(fixture_path(f, "script"), text.p, text.n, 0600), 0);
    buf_release(&text);
    char *out = run_command(f, "DAVIT_JOB_STATUS=failed /bin/sh script || echo ended with $?");
    assert_non_null(strstr(out, "$ echo 'a\\nb' | cat; x=1\033[0;m\n"));
    assert_non_null(strstr(out, "\n1 failed\n"));
    assert_non_null(strstr(out, "\nended with 1"));
    assert_null(strstr(out, "never"));
}

static void an_image_is_refused_with_what_to_do(void **state)
{
    struct fixture *f = *state;
    Pb__Image image = PB__IMAGE__INIT;
    image.name = arena_strdup(&f->arena, STR("gcc:13"));
    f->spec.image = &image;
    SCRIPT(f, "true");
    assert_int_equal(run_prepare(f), -E_UNSUPPORTED);
    assert_string_equal(f->why,
                        "job `build` asks for image `gcc:13`: the shell executor starts no "
                        "containers; take it out with `image: null`, in a file that includes this "
                        "one, say");
}

static void what_no_environment_can_hold_is_refused(void **state)
{
    struct fixture *f = *state;
    struct buf big = BUF_INIT;
    buf_space(&big, 140000);
    memset(big.p, 'x', 140000);
    buf_advance(&big, 140000);
    SCRIPT(f, "true");
    spec_variable_bytes(f, "BIG", buf_str(&big));
    assert_int_equal(run_prepare(f), -E_LIMIT);
    buf_release(&big);
    fixture_new_job(f);
    spec_variable_bytes(f, "NUL", STR("a\0b"));
    assert_int_equal(run_prepare(f), -E_INVALID);
    fixture_new_job(f);
    spec_variable(f, "not-a-name", "x");
    assert_int_equal(run_prepare(f), -E_INVALID);
}

static void a_project_cannot_leave_the_builds_folder(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"..", "a/../../b", "/etc", "a//b", "", "a/"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        f->spec.project = arena_strdup(&f->arena, str_from(bad[i]));
        assert_int_equal(run_prepare(f), -E_INVALID);
    }
}

static void a_link_in_the_way_of_the_working_folder_is_not_followed(void **state)
{
    struct fixture *f = *state;
    run_command(f, "mkdir -p builds/3 victim/project && echo precious > victim/project/file && "
                   "ln -s ../../victim builds/3/group");
    SCRIPT(f, "ls -a");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_string_equal(run_command(f, "cat victim/project/file"), "precious");
}

static void a_step_that_cannot_run_is_a_system_failure(void **state)
{
    struct fixture *f = *state;
    Pb__SnapshotSource snapshot = PB__SNAPSHOT_SOURCE__INIT;
    f->source.from_case = PB__SOURCE__FROM_SNAPSHOT;
    f->source.snapshot = &snapshot;
    f->cx.step_program = "/nowhere/davit-worker";
    SCRIPT(f, "true");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SYSTEM_FAILURE, 0);
    assert_in_log(f, "cannot run /nowhere/davit-worker for source: No such file or directory");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_line_is_shown_and_run_in_one_shell),
        TEST(a_job_without_sources_starts_in_an_empty_folder),
        TEST(a_protected_ref_has_a_tree_of_its_own),
        TEST(a_hook_runs_before_the_sources_in_the_builds_folder),
        TEST(a_failing_hook_fails_the_job_before_its_sources),
        TEST(services_are_refused),
        TEST(the_first_failure_ends_the_script),
        TEST(a_failure_in_a_pipe_counts),
        TEST(a_closed_pipe_ends_its_writer_as_in_a_clean_shell),
        TEST(a_last_line_that_errexit_lets_fail_fails_the_script),
        TEST(after_script_knows_how_the_script_ended),
        TEST(a_canceled_job_cleans_up_and_is_canceled),
        TEST(a_job_that_takes_too_long_has_timed_out),
        TEST(a_script_killed_from_outside_is_a_system_failure),
        TEST(variables_are_expanded_and_come_whole),
        TEST(a_file_variable_is_a_private_file),
        TEST(the_environment_is_clean_and_tells_of_the_worker),
        TEST(a_posix_shell_runs_the_lines_too),
        TEST(an_image_is_refused_with_what_to_do),
        TEST(what_no_environment_can_hold_is_refused),
        TEST(a_project_cannot_leave_the_builds_folder),
        TEST(a_link_in_the_way_of_the_working_folder_is_not_followed),
        TEST(a_step_that_cannot_run_is_a_system_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
