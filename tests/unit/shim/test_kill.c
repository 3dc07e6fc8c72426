/* Every test with one method of killing a tree: test_kill cgroup | namespace | sweep. */
#include "common/base.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"
#include "tests/unit/shim/fixture.h"

static const char *method;

static void the_forced_method_is_used(void **state)
{
    struct fixture *f = *state;
    struct shim_status s = job_run_script(f, "true");
    char *text = job_wait_file(f, "method");
    assert_step(&s, 0, "script", "exit", 0);
    assert_true(str_starts(str_from(text), str_from(method)));
    if (strcmp(method, "cgroup") == 0) {
        assert_false(os_exists(text + strlen("cgroup ")));
    }
    free(text);
}

static void the_empty_cgroup_of_a_dead_shim_goes(void **state)
{
    struct fixture *f = *state;
    struct fixture *g;
    if (strcmp(method, "cgroup") != 0) {
        skip();
    }
    job_run_script(f, "true");
    char *text = job_wait_file(f, "method");
    struct buf dead = BUF_INIT;
    struct buf alive = BUF_INIT;
    struct buf other = BUF_INIT;
    uint64_t start;
    assert_int_equal(os_process_start_time(getpid(), &start), 0);
    *strrchr(text, '/') = '\0';
    buf_addf(&dead, "%s/davit-%d-%" PRIu64, text + strlen("cgroup "), (int)getpid(), start + 1);
    buf_addf(&alive, "%s/davit-%d-%" PRIu64, text + strlen("cgroup "), (int)getpid(), start);
    buf_addf(&other, "%s/davit-x%d", text + strlen("cgroup "), (int)getpid());
    assert_int_equal(mkdir(dead.p, 0755), 0);
    assert_int_equal(mkdir(alive.p, 0755), 0);
    assert_int_equal(mkdir(other.p, 0755), 0);
    fixture_setup((void **)&g);
    job_run_script(g, "true");
    fixture_teardown((void **)&g);
    assert_false(os_exists(dead.p));
    assert_int_equal(rmdir(alive.p), 0);
    assert_int_equal(rmdir(other.p), 0);
    buf_release(&dead);
    buf_release(&alive);
    buf_release(&other);
    free(text);
}

static void exit_codes_and_signals_are_told(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 1000, 30000);
    job_step(f, "one", "main", "exit 0");
    job_step(f, "script", "main", "exit 42");
    job_step(f, "never", "main", "echo never");
    job_step(f, "after_script", "after", "kill -SEGV $$");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "one", "exit", 0);
    assert_step(&s, 1, "script", "exit", 42);
    assert_step(&s, 2, "never", "skipped", 0);
    assert_step(&s, 3, "after_script", "signal", SIGSEGV);
    assert_int_equal(s.leftovers, 0);
}

static void a_daemon_in_a_session_of_its_own_is_killed(void **state)
{
    struct fixture *f = *state;
    struct shim_status s = job_run_script(
        f, "(setsid bash -c '(trap \"\" TERM HUP; exec sleep 1000) & exit' >/dev/null 2>&1 &) ; "
           "sleep 0.05; echo done");
    assert_step(&s, 0, "script", "exit", 0);
    assert_true(s.leftovers >= 1);
    assert_log_has(f, &s, "that script left running");
    assert_int_equal(shim_kill_leftovers(f->folder), 0);
}

static void a_fork_loop_is_killed(void **state)
{
    struct fixture *f = *state;
    struct shim_status s = job_run_script(
        f, "hop() { sleep 0.002; (hop &) ; exit; }; "
           "for i in 1 2 3 4 5 6 7 8; do (hop >/dev/null 2>&1 &) ; done; sleep 0.05");
    assert_step(&s, 0, "script", "exit", 0);
    assert_int_equal(shim_kill_leftovers(f->folder), 0);
}

static void a_background_process_that_holds_the_pipe_does_not_hold_the_job(void **state)
{
    struct fixture *f = *state;
    uint64_t begin_ms = os_monotonic_ms();
    struct shim_status s = job_run_script(f, "sleep 1000 & echo done");
    uint64_t took_ms = os_monotonic_ms() - begin_ms;
    assert_step(&s, 0, "script", "exit", 0);
    assert_int_equal(s.leftovers, 1);
    assert_true(took_ms >= 1900 && took_ms < 10000);
    assert_log_has(f, &s, "done\n");
}

static void output_of_a_late_writer_is_kept(void **state)
{
    struct fixture *f = *state;
    struct shim_status s = job_run_script(
        f, "exec > >(while read -r l; do sleep 0.05; echo \"< $l\"; done); echo a; echo b");
    assert_step(&s, 0, "script", "exit", 0);
    assert_int_equal(s.leftovers, 0);
    assert_log(f, &s, "< a\n< b\n");
}

static void a_canceled_script_cleans_up_in_its_trap(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 10000, 30000);
    job_step(f, "script", "main",
             "trap 'echo cleaning; sleep 0.05; echo clean; exit 7' TERM; echo $$ > ready; "
             "sleep 1000 & wait; echo not reached");
    job_step(f, "more", "main", "echo never");
    job_step(f, "after_script", "after", "echo after $DAVIT_JOB_STATUS");
    job_start(f);
    free(job_wait_file(f, "ready"));
    assert_int_equal(shim_control(f->folder, 'c'), 0);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "canceled", 7);
    assert_step(&s, 1, "more", "skipped", 0);
    assert_step(&s, 2, "after_script", "exit", 0);
    assert_log_has(f, &s, "cleaning\nclean\nafter canceled\n");
}

static void a_child_may_take_the_grace_after_its_shell_has_ended(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 10000, 30000);
    job_step(f, "script", "main",
             "bash -c 'trap \"sleep 2.2; echo unlocked; exit\" TERM; echo $$ > ready; "
             "while :; do sleep 0.02; done'; true");
    job_start(f);
    free(job_wait_file(f, "ready"));
    assert_int_equal(shim_control(f->folder, 'c'), 0);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "canceled", SIGTERM);
    assert_log_has(f, &s, "unlocked\n");
}

static void what_ignores_term_is_killed_after_the_grace(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 100, 30000);
    job_step(f, "script", "main",
             "trap '' TERM; (setsid sleep 1000 &) ; echo $$ > ready; while :; do sleep 1; done");
    job_start(f);
    free(job_wait_file(f, "ready"));
    assert_int_equal(shim_control(f->folder, 'c'), 0);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "canceled", SIGKILL);
    assert_int_equal(shim_kill_leftovers(f->folder), 0);
}

static void a_forced_end_runs_nothing_more(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 60000, 60000);
    job_step(f, "script", "main", "trap '' TERM; echo $$ > ready; while :; do sleep 1; done");
    job_step(f, "after_script", "after", "echo never");
    job_step(f, "always", "always", "echo never");
    job_start(f);
    free(job_wait_file(f, "ready"));
    assert_int_equal(shim_control(f->folder, 'c'), 0);
    assert_int_equal(shim_control(f->folder, 'k'), 0);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "killed", SIGKILL);
    assert_step(&s, 1, "after_script", "skipped", 0);
    assert_step(&s, 2, "always", "skipped", 0);
}

static void the_total_timeout_ends_main_steps_only(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 5000, 150);
    job_step(f, "source", "main", "sleep 0.05");
    job_step(f, "script", "main", "sleep 1000");
    job_step(f, "after_script", "after", "sleep 0.2; echo after $DAVIT_JOB_STATUS");
    job_step(f, "always", "always", "echo always $DAVIT_JOB_STATUS");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "source", "exit", 0);
    assert_step(&s, 1, "script", "timeout", SIGTERM);
    assert_step(&s, 2, "after_script", "exit", 0);
    assert_step(&s, 3, "always", "exit", 0);
    assert_log_has(f, &s, "after failed\nalways failed\n");
}

static void a_step_has_a_timeout_of_its_own(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 5000, 30000);
    job_step(f, "script", "main", "true");
    job_step_timed(f, "after_script", "after", 100, "sleep 1000");
    job_step(f, "always", "always", "true");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "exit", 0);
    assert_step(&s, 1, "after_script", "timeout", SIGTERM);
    assert_step(&s, 2, "always", "exit", 0);
}

static void what_a_killed_shim_leaves_is_found_and_killed(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 1000, 30000);
    job_step(f, "script", "main",
             "(trap '' TERM HUP; setsid sleep 1000 >/dev/null 2>&1 &) ; sleep 1000 & "
             "env -i PATH=$PATH bash -c 'sleep 1001; true' & "
             "sleep 0.05; echo ready > ready; wait");
    job_start(f);
    free(job_wait_file(f, "ready"));
    kill(f->shim_pid, SIGKILL);
    wait_gone(f->shim_pid);
    assert_false(shim_alive(f->folder));
    int killed = shim_kill_leftovers(f->folder);
    /* The death of a namespace's init takes all with it; otherwise some are left for us. */
    assert_true(killed > 0 || strcmp(method, "namespace") == 0);
    assert_int_equal(shim_kill_leftovers(f->folder), 0);
    struct shim_status s;
    assert_int_equal(shim_status_read(f->folder, &s), -E_NOT_FOUND);
    assert_int_equal(shim_control(f->folder, 'c'), -E_NOT_FOUND);
}

static void a_script_killed_from_outside_is_told_as_a_signal(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 1000, 30000);
    job_step(f, "script", "main", "echo $$ > ready; kill -KILL $$");
    job_step(f, "after_script", "after", "echo after $DAVIT_JOB_STATUS");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "signal", SIGKILL);
    assert_log_has(f, &s, "ERROR: script was ended by signal 9 (Killed)");
    assert_log_has(f, &s, "after failed\n");
}

static void the_process_table_of_a_job_is_sane(void **state)
{
    struct fixture *f = *state;
    struct shim_status s = job_run_script(
        f, "[ -d /proc/$$ ] && [ \"$(readlink /proc/self/cwd)\" = \"$PWD\" ] && echo seen; "
           "sleep 1000 & kill -0 $! && kill $!; wait $!; echo $?; id -u; stat -c %u /");
    assert_step(&s, 0, "script", "exit", 0);
    struct buf expected = BUF_INIT;
    buf_addf(&expected, "seen\n143\n%u\n0\n", (unsigned)getuid());
    assert_log(f, &s, expected.p);
    buf_release(&expected);
}

/* A shim that cannot use the wanted method does not start. */
static bool method_usable(void)
{
    void *state;
    struct shim_status s;
    fixture_setup(&state);
    struct fixture *f = state;
    job_limits(f, PLENTY, 0, 1000, 30000);
    job_step(f, "script", "main", "true");
    assert_int_equal(shim_conf_write(f->conf, f->folder), 0);
    bool usable = shim_start(getenv("DAVIT_SHIM"), f->folder, &f->shim_pid) == 0;
    if (usable) {
        s = job_wait(f);
        usable = s.step_count == 1;
    }
    fixture_teardown(&state);
    return usable;
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_forced_method_is_used),
        TEST(the_empty_cgroup_of_a_dead_shim_goes),
        TEST(exit_codes_and_signals_are_told),
        TEST(a_daemon_in_a_session_of_its_own_is_killed),
        TEST(a_fork_loop_is_killed),
        TEST(a_background_process_that_holds_the_pipe_does_not_hold_the_job),
        TEST(output_of_a_late_writer_is_kept),
        TEST(a_canceled_script_cleans_up_in_its_trap),
        TEST(a_child_may_take_the_grace_after_its_shell_has_ended),
        TEST(what_ignores_term_is_killed_after_the_grace),
        TEST(a_forced_end_runs_nothing_more),
        TEST(the_total_timeout_ends_main_steps_only),
        TEST(a_step_has_a_timeout_of_its_own),
        TEST(what_a_killed_shim_leaves_is_found_and_killed),
        TEST(a_script_killed_from_outside_is_told_as_a_signal),
        TEST(the_process_table_of_a_job_is_sane),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: test_kill METHOD\n");
        return 64;
    }
    method = argv[1];
    setenv("DAVIT_SHIM_METHOD", method, 1);
    if (!method_usable()) {
        fprintf(stderr, "this machine cannot kill by %s: skipped\n", method);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
