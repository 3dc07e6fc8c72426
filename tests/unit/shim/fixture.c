#include "common/base.h"

#include "tests/unit/shim/fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/shim/proc.h"

#define PATIENCE_MS 30000u

int fixture_setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    char template[] = "/tmp/davit-shim-test-XXXXXX";
    assert_non_null(mkdtemp(template));
    f->folder = xstrdup(template);
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    if (shim_alive(f->folder)) {
        shim_control(f->folder, 'k');
        wait_gone(f->shim_pid);
    }
    int left = shim_kill_leftovers(f->folder);
    if (left != 0) {
        print_error("%d processes were left\n", left);
    }
    os_remove_tree(f->folder);
    free(f->folder);
    free(f);
    return left;
}

void job_limits(struct fixture *f, uint64_t head, uint64_t tail, uint64_t grace_ms,
                uint64_t timeout_ms)
{
    f->conf = shim_conf_new(head, tail, grace_ms, timeout_ms);
}

void job_step_timed(struct fixture *f, const char *name, const char *kind, uint64_t timeout_ms,
                    const char *script)
{
    shim_conf_step(f->conf, name, kind, timeout_ms, f->folder);
    shim_conf_arg(f->conf, "/bin/bash");
    shim_conf_arg(f->conf, "-c");
    shim_conf_arg(f->conf, script);
    shim_conf_env(f->conf, STR("PATH"), STR("/usr/bin:/bin"));
}

void job_step(struct fixture *f, const char *name, const char *kind, const char *script)
{
    job_step_timed(f, name, kind, 0, script);
}

void job_start(struct fixture *f)
{
    const char *program = getenv("DAVIT_SHIM");
    assert_non_null(program);
    assert_int_equal(shim_conf_write(f->conf, f->folder), 0);
    f->conf = NULL;
    assert_int_equal(shim_start(program, f->folder, &f->shim_pid), 0);
}

struct shim_status job_wait(struct fixture *f)
{
    struct shim_status status;
    uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;
    int r;
    while ((r = shim_status_read(f->folder, &status)) == -E_NOT_FOUND) {
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(2);
    }
    assert_int_equal(r, 0);
    wait_gone(f->shim_pid);
    assert_false(shim_alive(f->folder));
    return status;
}

struct shim_status job_run_script(struct fixture *f, const char *script)
{
    job_limits(f, PLENTY, 0, 1000, PATIENCE_MS);
    job_step(f, "script", "main", script);
    job_start(f);
    return job_wait(f);
}

char *job_log(struct fixture *f, const struct shim_status *s)
{
    struct spool_reader reader;
    struct buf log = BUF_INIT;
    assert_int_equal(spool_open(&reader, f->folder), 0);
    assert_int_equal(spool_read(&reader, 0, PLENTY, &log), 0);
    assert_int_equal(log.n, s->head_bytes);
    spool_close(&reader);
    assert_int_equal(shim_tail_read(f->folder, s, &log), 0);
    buf_cstr(&log);
    return buf_take(&log);
}

char *job_path(struct fixture *f, const char *name)
{
    return os_path_join(f->folder, name);
}

char *job_wait_file(struct fixture *f, const char *name)
{
    struct buf text = BUF_INIT;
    char *path = job_path(f, name);
    uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;
    while (os_read_file(path, 4096, &text) < 0 || text.n == 0 || text.p[text.n - 1] != '\n') {
        assert_true(os_monotonic_ms() < deadline_ms);
        buf_clear(&text);
        os_sleep_ms(2);
    }
    free(path);
    text.p[text.n - 1] = '\0';
    return buf_take(&text);
}

bool process_alive(pid_t pid)
{
    struct proc p;
    uint64_t start;
    return proc_read(pid, &p, &start) == 0 && p.state != 'Z' && p.state != 'X';
}

void wait_gone(pid_t pid)
{
    uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;
    while (process_alive(pid)) {
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(2);
    }
}

void assert_step(const struct shim_status *s, size_t index, const char *name, const char *result,
                 int code)
{
    assert_true(index < s->step_count);
    assert_string_equal(s->steps[index].name, name);
    assert_string_equal(s->steps[index].result, result);
    assert_int_equal(s->steps[index].code, code);
}

void assert_log(struct fixture *f, const struct shim_status *s, const char *expected)
{
    char *log = job_log(f, s);
    assert_string_equal(log, expected);
    free(log);
}

void assert_log_has(struct fixture *f, const struct shim_status *s, const char *part)
{
    char *log = job_log(f, s);
    if (strstr(log, part) == NULL) {
        fail_msg("`%s` is not in the log: %s", part, log);
    }
    free(log);
}
