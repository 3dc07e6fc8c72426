/* The order of steps, what they find, what the worker sees of the shim. */
#include "common/base.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"
#include "tests/unit/shim/fixture.h"
#include "worker/shim/proc.h"
#include "worker/shim/record.h"

static void after_needs_a_script_and_always_does_not(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 1000, 30000);
    job_step(f, "source", "main", "exit 101");
    job_step(f, "script", "main", "echo never");
    job_step(f, "after_script", "after", "echo never");
    job_step(f, "always", "always", "echo always $DAVIT_JOB_STATUS");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_int_equal(s.step_count, 4);
    assert_step(&s, 0, "source", "exit", 101);
    assert_step(&s, 1, "script", "skipped", 0);
    assert_step(&s, 2, "after_script", "skipped", 0);
    assert_step(&s, 3, "always", "exit", 0);
    assert_log(f, &s, "always failed\n");
}

/* The C library does not let go of its own two signals, 32 and 33: they stay as they came. */
static void a_step_finds_a_clean_process(void **state)
{
    struct fixture *f = *state;
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct shim_status s = job_run_script(
        f, "grep -cE '^Sig(Blk|Ign):.0000000[01][08]0000000$' /proc/self/status; "
           "ls /proc/self/fd | wc -l; readlink /proc/self/fd/0; ulimit -c; umask; pwd; env | grep "
           "-vE '^(_|SHLVL)=' | sort");
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    signal(SIGPIPE, SIG_DFL);
    struct buf expected = BUF_INIT;
    buf_addf(&expected,
             "2\n4\n/dev/null\n0\n0022\n%s\n"
             "DAVIT_JOB_FOLDER=%s\nPATH=/usr/bin:/bin\nPWD=%s\n",
             f->folder, f->folder, f->folder);
    assert_log(f, &s, expected.p);
    buf_release(&expected);
}

static void a_job_dies_before_the_worker_when_memory_is_out(void **state)
{
    struct fixture *f = *state;
    struct buf own = BUF_INIT;
    uint64_t score;
    uint64_t job_score;
    assert_int_equal(os_read_file("/proc/self/oom_score_adj", 64, &own), 0);
    struct shim_status s = job_run_script(f, "cat /proc/self/oom_score_adj");
    char *log = job_log(f, &s);
    if (str_to_u64(str_trim(buf_str(&own)), &score) == 0) {
        assert_int_equal(str_to_u64(str_trim(str_from(log)), &job_score), 0);
        assert_int_equal(job_score, MIN(score + 500, 1000));
    }
    free(log);
    buf_release(&own);
}

static void what_cannot_be_run_is_an_error(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 1000, 30000);
    shim_conf_step(f->conf, "script", "main", 0, f->folder);
    shim_conf_arg(f->conf, "/nowhere/bash");
    job_step(f, "always", "always", "echo $DAVIT_JOB_STATUS");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "error", ENOENT);
    assert_step(&s, 1, "always", "exit", 0);
    assert_log_has(f, &s, "cannot run /nowhere/bash for script: No such file or directory");
}

static void a_missing_working_folder_is_an_error(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 1000, 30000);
    shim_conf_step(f->conf, "script", "main", 0, "/nowhere");
    shim_conf_arg(f->conf, "/bin/true");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "error", ENOENT);
}

static void a_folder_is_run_once(void **state)
{
    struct fixture *f = *state;
    pid_t pid = 1234;
    job_limits(f, PLENTY, 0, 1000, 30000);
    job_step(f, "script", "main", "echo x; echo $$ > ready; sleep 1000");
    job_start(f);
    free(job_wait_file(f, "ready"));
    assert_int_equal(shim_start(getenv("DAVIT_SHIM"), f->folder, &pid), -E_FAILED);
    assert_int_equal(pid, 1234);
    assert_true(shim_alive(f->folder));
    assert_int_equal(shim_control(f->folder, 'k'), 0);
    struct shim_status s = job_wait(f);
    assert_int_equal(shim_start(getenv("DAVIT_SHIM"), f->folder, &pid), -E_FAILED);
    assert_log_has(f, &s, "x\n");
    char *errors = job_wait_file(f, "errors");
    assert_non_null(strstr(errors, "exists already"));
    free(errors);
}

static void a_folder_without_a_good_conf_is_not_run(void **state)
{
    struct fixture *f = *state;
    const struct str bad[] = {
        STR(""),
        STR("limits\0001\0"),
        STR("nonsense\0\0"),
        STR("limits\0001\0002\0003\0\0timeout\0005\0\0"),                          /* no step */
        STR("limits\0001\0002\0003\0\0timeout\0005\0\0step\0a\0main\0000\0/\0\0"), /* no argv */
        STR("limits\0001\0002\0003\0\0timeout\0005\0\0step\0a\0maybe\0000\0/\0\0arg\0x\0\0"),
    };
    pid_t pid;
    char *path = job_path(f, "shim.conf");
    assert_int_equal(shim_start(getenv("DAVIT_SHIM"), f->folder, &pid), -E_FAILED);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(os_write_file(path, bad[i].p, bad[i].n, 0600), 0);
        assert_int_equal(shim_start(getenv("DAVIT_SHIM"), f->folder, &pid), -E_FAILED);
        assert_false(shim_alive(f->folder));
    }
    free(path);
}

static void the_shim_outlives_who_started_it(void **state)
{
    struct fixture *f = *state;
    struct proc p;
    uint64_t start;
    job_limits(f, PLENTY, 0, 1000, 30000);
    job_step(f, "script", "main", "until [ -e go ]; do sleep 0.01; done; echo done");
    assert_int_equal(shim_conf_write(f->conf, f->folder), 0);
    pid_t starter = fork();
    if (starter == 0) {
        setsid();
        _exit(shim_start(getenv("DAVIT_SHIM"), f->folder, &f->shim_pid) == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(starter, &status, 0), starter);
    assert_int_equal(status, 0);
    kill(-starter, SIGKILL); /* all that was left of its session */
    assert_true(shim_alive(f->folder));
    char *pid_text = job_wait_file(f, "pid");
    f->shim_pid = (pid_t)strtol(pid_text, NULL, 10);
    free(pid_text);
    assert_int_equal(proc_read(f->shim_pid, &p, &start), 0);
    assert_int_not_equal(p.parent, getpid());
    assert_int_equal(getsid(f->shim_pid), f->shim_pid);
    assert_int_equal(waitpid(-1, &status, WNOHANG), -1); /* nothing for us to reap */
    char *go = job_path(f, "go");
    assert_int_equal(os_write_file(go, "", 0, 0600), 0);
    free(go);
    struct shim_status s = job_wait(f);
    assert_log(f, &s, "done\n");
}

static void another_process_with_the_same_pid_is_not_the_shim(void **state)
{
    struct fixture *f = *state;
    uint64_t start;
    struct buf text = BUF_INIT;
    char *path = job_path(f, "pid");
    assert_false(shim_alive(f->folder));
    assert_int_equal(os_process_start_time(getpid(), &start), 0);
    buf_addf(&text, "%d %" PRIu64 "\n", (int)getpid(), start + 1);
    assert_int_equal(os_write_file(path, text.p, text.n, 0600), 0);
    assert_false(shim_alive(f->folder));
    buf_clear(&text);
    buf_addf(&text, "%d %" PRIu64 "\n", (int)getpid(), start);
    assert_int_equal(os_write_file(path, text.p, text.n, 0600), 0);
    assert_true(shim_alive(f->folder));
    unlink(path);
    free(path);
    buf_release(&text);
}

static void a_cancel_between_steps_is_told_by_the_next(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 5000, 30000);
    /* The first step itself gives the order as the last thing it does: it may end well before. */
    job_step(f, "source", "main", "trap '' TERM; printf c > ctl");
    job_step(f, "script", "main", "echo never");
    job_step(f, "after_script", "after", "echo never");
    job_start(f);
    struct shim_status s = job_wait(f);
    bool in_first = strcmp(s.steps[0].result, "canceled") == 0;
    assert_step(&s, 1, "script", in_first ? "skipped" : "canceled", 0);
    assert_step(&s, 2, "after_script", "skipped", 0);
}

static void a_cancel_leaves_after_steps_alone(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 5000, 30000);
    job_step(f, "script", "main", "true");
    job_step(f, "after_script", "after",
             "echo $$ > ready; until [ -e go ]; do sleep 0.01; done; echo cleaned");
    job_start(f);
    free(job_wait_file(f, "ready"));
    assert_int_equal(shim_control(f->folder, 'c'), 0);
    char *go = job_path(f, "go");
    assert_int_equal(os_write_file(go, "", 0, 0600), 0);
    free(go);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "exit", 0);
    assert_step(&s, 1, "after_script", "exit", 0);
    assert_log(f, &s, "cleaned\n");
}

static void a_machine_that_goes_down_ends_the_job_by_a_signal(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 5000, 30000);
    job_step(f, "script", "main",
             "trap 'echo saved; exit 0' TERM; echo $$ > ready; sleep 1000 & wait");
    job_step(f, "after_script", "after", "echo never");
    job_start(f);
    free(job_wait_file(f, "ready"));
    kill(f->shim_pid, SIGTERM);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "signal", SIGTERM);
    assert_step(&s, 1, "after_script", "skipped", 0);
    assert_log_has(f, &s, "saved\n");
}

static void records_hold_any_bytes_and_end_where_they_end(void **state)
{
    (void)state;
    struct buf text = BUF_INIT;
    struct str record;
    record_addz(&text, "one");
    record_addz(&text, "a\nb \"c\"");
    record_end(&text);
    record_addz(&text, "two");
    record_add_int(&text, -3);
    record_end(&text);
    struct str rest = buf_str(&text);
    int number;
    assert_true(record_next(&rest, &record));
    assert_string_equal(record_field(&record), "one");
    assert_string_equal(record_field(&record), "a\nb \"c\"");
    assert_null(record_field(&record));
    assert_true(record_next(&rest, &record));
    assert_string_equal(record_field(&record), "two");
    assert_true(record_field_int(&record, &number));
    assert_int_equal(number, -3);
    assert_false(record_next(&rest, &record));
    assert_int_equal(rest.n, 0);
    for (size_t cut = 1; cut < text.n; cut++) {
        struct str part = str_of(text.p, cut);
        size_t records = 0;
        while (record_next(&part, &record)) {
            records++;
        }
        assert_true(records == (cut >= 13) && (part.n > 0 || cut == 13));
    }
    buf_release(&text);
}

/* Whatever the worker has taken for itself. */
static void a_step_may_open_as_many_files_as_its_conf_says(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 1000, 10000);
    shim_conf_files(f->conf, 123);
    job_step(f, "script", "main", "ulimit -Sn; [ $(ulimit -Hn) != 123 ]");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "exit", 0);
    assert_log_has(f, &s, "123\n");
}

/* As a container's first process: the folder is all that it is given. */
static void a_shim_that_stays_runs_the_job_and_ends_with_it(void **state)
{
    struct fixture *f = *state;
    char own[] = "PATH=/usr/bin:/bin";
    char image[] = "FROM_IMAGE=yes";
    char both[] = "BOTH=image";
    const char *argv[] = {getenv("DAVIT_SHIM"), "--stay", f->folder, NULL};
    const char *envp[] = {own, image, both, NULL};
    struct os_spawn spawn = {
        .argv = argv, .envp = envp, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    struct buf out = BUF_INIT;
    int status;
    job_limits(f, PLENTY, 0, 1000, 30000);
    shim_conf_inherit(f->conf);
    job_step(f, "script", "main", "echo $FROM_IMAGE $BOTH; echo $PPID > parent; exit 3");
    shim_conf_env(f->conf, STR("BOTH"), STR("job"));
    assert_int_equal(shim_conf_write(f->conf, f->folder), 0);
    assert_int_equal(os_run(&spawn, 100, &out, &status), 0);
    assert_int_equal(status, 0); /* it did its work; how the job went is in its status */
    struct shim_status s;
    assert_int_equal(shim_status_read(f->folder, &s), 0);
    assert_step(&s, 0, "script", "exit", 3);
    assert_int_equal(s.oom_kills, 0);
    assert_log_has(f, &s, "yes job\n");
    char *parent = job_wait_file(f, "parent");
    assert_int_equal(strtol(parent, NULL, 10), strtol(buf_cstr(&out), NULL, 10));
    free(parent);
    buf_release(&out);
}

static void the_first_program_that_is_there_runs_the_step(void **state)
{
    static const char *const programs[] = {"/nowhere/bash", "/bin/echo", "/bin/false"};
    static const char *const none[] = {"/nowhere/bash", "/etc/passwd"};
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 1000, 30000);
    shim_conf_step(f->conf, "script", "main", 0, "/");
    shim_conf_arg(f->conf, "env"); /* found by PATH */
    shim_conf_either(f->conf, programs, ARRAY_LEN(programs));
    shim_conf_arg(f->conf, "said");
    shim_conf_env(f->conf, STR("PATH"), STR("/usr/bin:/bin"));
    shim_conf_step(f->conf, "after_script", "after", 0, "/");
    shim_conf_either(f->conf, none, ARRAY_LEN(none));
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "exit", 0);
    assert_step(&s, 1, "after_script", "error", ENOENT);
    assert_log_has(f, &s, "said\n");
    assert_log_has(f, &s, "cannot run /etc/passwd for after_script");
}

static void what_somebody_else_says_is_not_said_twice(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 5000, 30000);
    job_step(f, "script", "main", "trap 'exit 7' TERM; echo $$ > ready; sleep 1000 & wait");
    shim_conf_quiet(f->conf);
    job_start(f);
    free(job_wait_file(f, "ready"));
    assert_int_equal(shim_control(f->folder, 'e'), 0);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "canceled", 7);
    assert_log(f, &s, "");
}

static void a_quiet_step_fails_without_a_word(void **state)
{
    struct fixture *f = *state;
    job_limits(f, PLENTY, 0, 5000, 30000);
    job_step(f, "script", "main", "exit 7");
    shim_conf_quiet(f->conf);
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "exit", 7);
    assert_log(f, &s, "");
}

/* A container could put anything there. */
static void no_link_or_fifo_is_followed_for_a_status(void **state)
{
    struct fixture *f = *state;
    struct shim_status s;
    struct spool_reader reader;
    char *status = job_path(f, "status");
    char *spool = job_path(f, "spool");
    assert_int_equal(symlink("/etc/hostname", status), 0);
    assert_int_equal(mkfifo(spool, 0600), 0);
    assert_true(shim_status_read(f->folder, &s) < 0);
    unlink(status);
    assert_int_equal(mkfifo(status, 0600), 0);
    assert_true(shim_status_read(f->folder, &s) < 0);
    if (spool_open(&reader, f->folder) == 0) {
        struct buf out = BUF_INIT;
        assert_true(spool_read(&reader, 0, 100, &out) < 0);
        spool_close(&reader);
        buf_release(&out);
    }
    unlink(spool);
    assert_int_equal(symlink("/etc/hostname", spool), 0);
    assert_true(spool_open(&reader, f->folder) < 0);
    free(status);
    free(spool);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(after_needs_a_script_and_always_does_not),
        TEST(a_step_finds_a_clean_process),
        TEST(a_job_dies_before_the_worker_when_memory_is_out),
        TEST(what_cannot_be_run_is_an_error),
        TEST(a_missing_working_folder_is_an_error),
        TEST(a_step_may_open_as_many_files_as_its_conf_says),
        TEST(a_folder_is_run_once),
        TEST(a_folder_without_a_good_conf_is_not_run),
        TEST(the_shim_outlives_who_started_it),
        TEST(another_process_with_the_same_pid_is_not_the_shim),
        TEST(a_cancel_between_steps_is_told_by_the_next),
        TEST(a_cancel_leaves_after_steps_alone),
        TEST(a_machine_that_goes_down_ends_the_job_by_a_signal),
        TEST(a_shim_that_stays_runs_the_job_and_ends_with_it),
        TEST(the_first_program_that_is_there_runs_the_step),
        TEST(what_somebody_else_says_is_not_said_twice),
        TEST(a_quiet_step_fails_without_a_word),
        TEST(no_link_or_fifo_is_followed_for_a_status),
        cmocka_unit_test(records_hold_any_bytes_and_end_where_they_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
