#include "common/base.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/os.h"
#include "tests/unit/worker/world.h"
#include "worker/shim/shim.h"

#define PATIENCE_MS 10000u

pid_t worker_start(struct world *w)
{
    char *token = os_path_join(w->root, "token");
    char *program = os_find_program("davit-worker");
    assert_non_null(program);
    const char *argv[] = {
        /* clang-format off */
        program, "--broker", w->peer.url, "--token-file", token, "--state", w->state,
        "--name", "tested", "--pool", "night", "--slots", w->slots, "--tags", "a,b",
        "--no-untagged", "--cancel-grace-ms", "500", "--min-free-mb", w->min_free_mb,
        "--log-level", "debug", NULL,
        /* clang-format on */
    };
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    pid_t pid;
    assert_int_equal(os_spawn(&spawn, &pid), 0);
    free(program);
    free(token);
    return pid;
}

int world_set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    strncpy(w->root, "/tmp/davit-worker-test-XXXXXX", sizeof(w->root) - 1);
    assert_non_null(mkdtemp(w->root));
    w->state = os_path_join(w->root, "state");
    char *token = os_path_join(w->root, "token");
    assert_int_equal(os_write_file(token, "secret\n", 7, 0600), 0);
    free(token);
    w->min_free_mb = "1";
    w->slots = "2";
    peer_init(&w->peer);
    w->worker = worker_start(w);
    peer_welcome(&w->peer);
    *state = w;
    return 0;
}

static void end_process(pid_t pid)
{
    if (pid != 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

/* No job outlives its test, whatever became of it. */
static void end_jobs(void *ctx, const char *name)
{
    const struct world *w = ctx;
    struct job_key key;
    if (jobdir_parse(name, &key) == 0) {
        char *dir = job_file(w, key, "");
        (void)shim_control(dir, 'k');
        pid_t shim = job_shim(w, key);
        if (shim != 0) {
            until_gone(shim);
        }
        free(dir);
    }
}

int world_tear_down(void **state)
{
    struct world *w = *state;
    char *jobs = os_path_join(w->state, "jobs");
    end_process(w->worker);
    end_process(w->other);
    (void)os_list_dir(jobs, end_jobs, w);
    peer_release(&w->peer);
    assert_int_equal(os_remove_tree(w->root), 0);
    free(jobs);
    free(w->state);
    free(w);
    return 0;
}

int worker_wait(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

void worker_kill(struct world *w)
{
    end_process(w->worker);
    w->worker = 0;
}

char *job_file(const struct world *w, struct job_key key, const char *name)
{
    char *jobs = os_path_join(w->state, "jobs");
    char *dir = jobdir_path(jobs, key);
    char *path = os_path_join(dir, name);
    free(dir);
    free(jobs);
    return path;
}

bool job_is_there(const struct world *w, struct job_key key)
{
    char *dir = job_file(w, key, "");
    bool there = os_exists(dir);
    free(dir);
    return there;
}

pid_t job_shim(const struct world *w, struct job_key key)
{
    pid_t pid = 0;
    char *dir = job_file(w, key, "");
    (void)jobdir_shim_pid(dir, &pid);
    free(dir);
    return pid;
}

/* Looks every 5 ms, and gives up in the end. */
#define UNTIL(condition)                                   \
    do {                                                   \
        uint64_t end_ms = os_monotonic_ms() + PATIENCE_MS; \
        while (!(condition)) {                             \
            assert_true(os_monotonic_ms() < end_ms);       \
            os_sleep_ms(5);                                \
        }                                                  \
    } while (0)

void until_file(const char *path)
{
    UNTIL(os_exists(path));
}

/* A zombie is gone: its parent is the machine's init, which may take its time. */
static bool is_gone(pid_t pid)
{
    struct buf text = BUF_INIT;
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    bool gone = os_read_file(path, 4096, &text) < 0 || str_find(buf_str(&text), STR(") Z ")) >= 0;
    buf_release(&text);
    return gone;
}

void until_gone(pid_t pid)
{
    UNTIL(is_gone(pid));
}

void until_no_folder(const struct world *w, struct job_key key)
{
    UNTIL(!job_is_there(w, key));
}
