/* Real instances under a real davit-keep (DAVIT_KEEP in the environment). */
#include "common/base.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/shim/fixture.h"
#include "worker/keep/keep.h"

#define PATIENCE_MS 30000u
#define LOG_BYTES   ((uint64_t)1 * MIB)

static int start_on(struct fixture *f)
{
    const char *program = getenv("DAVIT_KEEP");

    assert_non_null(program);
    return shim_start(program, f->folder, &f->shim_pid);
}

static struct keep_draft *draft(struct fixture *f, uint64_t grace_ms, const char *script)
{
    return keep_draft_new(grace_ms, LOG_BYTES, f->folder, str_from(script));
}

static void begin(struct fixture *f, struct keep_draft *d)
{
    keep_draft_env(d, STR("PATH"), STR("/usr/bin:/bin"));
    assert_int_equal(keep_draft_write(d, f->folder), 0);
    assert_int_equal(start_on(f), 0);
    assert_true(shim_alive(f->folder));
}

static void end(struct fixture *f)
{
    assert_int_equal(kill(f->shim_pid, SIGTERM), 0);
    wait_gone(f->shim_pid);
}

/* What holds for all: whoever stops it by SIGTERM leaves nothing. */
static int tear_down(void **state)
{
    struct fixture *f = *state;
    const bool alive = shim_alive(f->folder);

    if (alive) {
        kill(f->shim_pid, SIGKILL);
        wait_gone(f->shim_pid);
    }
    const int left = shim_kill_leftovers(f->folder);
    assert_int_equal(os_remove_tree(f->folder), 0);
    free(f->folder);
    free(f);
    return alive ? 0 : left;
}

static struct keep_state state_of(struct fixture *f)
{
    struct keep_state s;

    assert_int_equal(keep_state_read(f->folder, &s), 0);
    return s;
}

static struct keep_state wait_restarts(struct fixture *f, uint64_t restarts, enum keep_what what)
{
    const uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;
    struct keep_state s = {0};

    while (keep_state_read(f->folder, &s) < 0 || s.restarts < restarts || s.what != what) {
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(2);
    }
    return s;
}

static bool log_has(struct fixture *f, const char *name, const char *part)
{
    struct buf text = BUF_INIT;
    char *path = job_path(f, name);
    const bool found = os_read_file(path, 2 * LOG_BYTES, &text) == 0 &&
                       str_find(buf_str(&text), str_from(part)) >= 0;

    free(path);
    buf_release(&text);
    return found;
}

static void what_ends_is_started_again_ever_later(void **state)
{
    struct fixture *f = *state;
    struct keep_draft *d = draft(f, 1000, "echo said by $WHO in $PWD; exit 7");
    const uint64_t began_ms = os_monotonic_ms();

    keep_draft_env(d, STR("WHO"), STR("me"));
    begin(f, d);
    struct keep_state s = wait_restarts(f, 3, KEEP_WAITING);
    assert_true(os_monotonic_ms() - began_ms >= 7 * KEEP_BACKOFF_FIRST_MS);
    assert_int_equal(s.end, KEEP_END_EXIT);
    assert_int_equal(s.code, 7);
    assert_int_equal(s.child, 0);
    char line[256];
    snprintf(line, sizeof(line), "said by me in %s\n", f->folder);
    assert_true(log_has(f, "log", line));
    assert_true(log_has(f, "log", KEEP_SAYS "start 2\n"));
    end(f);
    assert_int_equal(state_of(f).what, KEEP_STOPPED);
}

static void all_of_it_is_told_and_then_killed(void **state)
{
    struct fixture *f = *state;

    begin(f, draft(f, 300,
                   "setsid sh -c 'trap \"\" TERM; echo $$ >far; sleep 1000; sleep 1000' &\n"
                   "trap 'echo told >told; exit 0' TERM\n"
                   "echo $$ >near; while :; do sleep 0.05; done"));
    char *far_pid = job_wait_file(f, "far");
    char *near_pid = job_wait_file(f, "near");
    const uint64_t began_ms = os_monotonic_ms();
    end(f);
    assert_true(os_monotonic_ms() - began_ms >= 300);
    char *told = job_wait_file(f, "told");
    assert_string_equal(told, "told");
    wait_gone(atoll(far_pid) > 0 ? (pid_t)atoll(far_pid) : -1);
    wait_gone((pid_t)atoll(near_pid));
    free(far_pid);
    free(near_pid);
    free(told);
    assert_int_equal(shim_kill_leftovers(f->folder), 0);
}

static void what_a_command_leaves_behind_goes_before_it_starts_again(void **state)
{
    struct fixture *f = *state;

    begin(f, draft(f, 1000,
                   "test -e first && exec sleep 1000\n"
                   "setsid sh -c 'echo $$ >first; exec sleep 1000' &\n"
                   "while ! test -s first; do sleep 0.01; done; kill -9 $$"));
    struct keep_state s = wait_restarts(f, 1, KEEP_RUNNING);
    assert_int_equal(s.end, KEEP_END_SIGNAL);
    assert_int_equal(s.code, SIGKILL);
    char *first = job_wait_file(f, "first");
    assert_false(process_alive((pid_t)atoll(first)));
    free(first);
    end(f);
}

static void who_kills_davit_keep_leaves_no_two(void **state)
{
    struct fixture *f = *state;
    struct fixture second = {.folder = f->folder};

    begin(f, draft(f, 1000, "setsid sh -c 'echo $$ >far; exec sleep 1000' & exec sleep 1000"));
    char *far_pid = job_wait_file(f, "far");
    assert_int_equal(start_on(&second), -E_FAILED);
    assert_true(log_has(f, "errors", "too much to do"));
    const struct keep_state before = state_of(f);
    kill(f->shim_pid, SIGKILL);
    wait_gone(f->shim_pid);
    wait_gone(before.child);
    assert_false(shim_alive(f->folder));
    assert_true(process_alive((pid_t)atoll(far_pid)));
    assert_int_equal(shim_kill_leftovers(f->folder), 1);
    assert_false(process_alive((pid_t)atoll(far_pid)));
    free(far_pid);
    assert_int_equal(start_on(f), 0);
    wait_restarts(f, 1, KEEP_RUNNING);
    end(f);
}

static void a_damaged_state_is_no_state(void **state)
{
    static const char *const garbage[] = {
        "",
        "\n",
        "running",
        "running 1 2 none 0 5",
        "running 1 2 none 0 5\n\n",
        "running 1 2 none 0 5 6\n",
        "walking 1 2 none 0 5\n",
        "running -1 2 none 0 5\n",
        "running 1 99999999999999999999 none 0 5\n",
        "running 4294967296 2 none 0 5\n",
        "running 1 2 none none 5\n",
        "running  1 2 none 0 5\n",
    };
    struct fixture *f = *state;
    struct keep_state s = {.restarts = 77};
    char *path = job_path(f, "state");
    char large[2048];

    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        assert_int_equal(os_put_file(path, garbage[i], strlen(garbage[i]), 0600), 0);
        assert_int_equal(keep_state_read(f->folder, &s), -E_CORRUPT);
    }
    memset(large, '1', sizeof(large));
    assert_int_equal(os_put_file(path, large, sizeof(large), 0600), 0);
    assert_int_equal(keep_state_read(f->folder, &s), -E_CORRUPT);
    assert_int_equal(s.restarts, 77);
    begin(f, draft(f, 1000, "exec sleep 1000"));
    s = wait_restarts(f, 0, KEEP_RUNNING);
    assert_int_equal(s.restarts, 0);
    assert_true(s.child > 0);
    free(path);
    end(f);
}

static void a_conf_that_is_none_is_refused(void **state)
{
    struct fixture *f = *state;
    char *path = job_path(f, "keep.conf");
    static const char *const garbage[] = {"", "grace", "grace\0many\0", "cwd\0/\0\0what\0x\0"};

    assert_int_equal(start_on(f), -E_FAILED);
    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        assert_int_equal(os_put_file(path, garbage[i], strlen(garbage[i]) + 1, 0600), 0);
        assert_int_equal(start_on(f), -E_FAILED);
    }
    assert_true(log_has(f, "errors", "stored data is damaged"));
    free(path);
}

static void the_log_is_bounded_and_hides_secrets(void **state)
{
    struct fixture *f = *state;
    struct keep_draft *d = keep_draft_new(
        1000, 4096, f->folder,
        STR("echo the token is hunter2hunter2; for i in $(seq 2000); do echo line $i; done; "
            "echo all >all; printf 'no end'; exec sleep 1000"));
    struct buf text = BUF_INIT;
    char *path = job_path(f, "log");
    char *before = job_path(f, "log.1");

    keep_draft_mask(d, MASK_PLAIN, STR("hunter2hunter2"));
    begin(f, d);
    free(job_wait_file(f, "all"));
    end(f);
    assert_int_equal(os_read_file(path, 4096, &text), 0);
    assert_true(str_ends(buf_str(&text), STR("line 2000\nno end")));
    assert_int_equal(os_read_file(before, 4096, &text), 0);
    buf_release(&text);
    free(path);
    free(before);
}

static void secrets_do_not_reach_the_disk(void **state)
{
    struct fixture *f = *state;
    struct keep_draft *d = draft(f, 1000,
                                 "printf hunter2; sleep 0.1; echo hunter2 >&2; exec sleep 1000");

    keep_draft_mask(d, MASK_PLAIN, STR("hunter2hunter2"));
    begin(f, d);
    const uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;
    while (!log_has(f, "log", MASK_TEXT)) {
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(5);
    }
    assert_false(log_has(f, "log", "hunter2"));
    end(f);
}

static void what_cannot_run_says_so(void **state)
{
    struct fixture *f = *state;
    char *nowhere = job_path(f, "nowhere");

    begin(f, keep_draft_new(1000, LOG_BYTES, nowhere, STR("true")));
    const struct keep_state s = wait_restarts(f, 1, KEEP_WAITING);
    assert_int_equal(s.end, KEEP_END_ERROR);
    assert_int_equal(s.code, ENOENT);
    assert_true(log_has(f, "log", "/nowhere: No such file or directory\n"));
    free(nowhere);
    end(f);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_ends_is_started_again_ever_later),
        TEST(all_of_it_is_told_and_then_killed),
        TEST(what_a_command_leaves_behind_goes_before_it_starts_again),
        TEST(who_kills_davit_keep_leaves_no_two),
        TEST(a_damaged_state_is_no_state),
        TEST(a_conf_that_is_none_is_refused),
        TEST(the_log_is_bounded_and_hides_secrets),
        TEST(secrets_do_not_reach_the_disk),
        TEST(what_cannot_run_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
