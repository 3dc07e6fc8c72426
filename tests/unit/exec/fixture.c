#include "common/base.h"

#include "tests/unit/exec/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"

#define PATIENCE_MS 60000u

char *fixture_path(struct fixture *f, const char *name)
{
    return arena_printf(&f->arena, "%s/%s", f->root, name);
}

void fixture_new_job(struct fixture *f)
{
    free(f->log);
    free(f->why);
    f->log = NULL;
    f->why = NULL;
    assert_int_equal(os_remove_tree(f->cx.job_dir), 0);
    assert_int_equal(os_mkdir_p(f->cx.job_dir, 0700), 0);
    pb__job_spec__init(&f->spec);
    pb__source__init(&f->source);
    f->spec.source = &f->source;
    f->spec.project = arena_strdup(&f->arena, STR("group/project"));
    f->spec.name = arena_strdup(&f->arena, STR("build"));
    f->spec.timeout_ms = PATIENCE_MS;
    f->spec.token = arena_strdup(&f->arena, STR("dvj_test"));
}

int fixture_setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    char template[] = "/tmp/davit-exec-test-XXXXXX";
    assert_non_null(mkdtemp(template));
    arena_init(&f->arena, 0);
    f->root = xstrdup(template);
    f->cx = (struct exec_context){
        .worker_name = "w1",
        .worker_version = "1.2.3",
        .worker_id = 7,
        .tags = "linux, gcc",
        .builds_dir = fixture_path(f, "builds"),
        .cache_dir = fixture_path(f, "cache"),
        .job_dir = fixture_path(f, "job"),
        .api_url = "http://127.0.0.1:9",
        .shim_program = getenv("DAVIT_SHIM"),
        .step_program = getenv("DAVIT_STEP"),
        .slot = 3,
        .cancel_grace_ms = 5000,
    };
    assert_non_null(f->cx.shim_program);
    assert_non_null(f->cx.step_program);
    fixture_new_job(f);
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    if (executor_shell.alive(&f->cx)) {
        executor_shell.cancel(&f->cx, true);
        while (executor_shell.alive(&f->cx)) {
            os_sleep_ms(5);
        }
    }
    int left = shim_kill_leftovers(f->cx.job_dir);
    os_remove_tree(f->root);
    free(f->root);
    free(f->log);
    free(f->why);
    arena_release(&f->arena);
    free(f);
    return left;
}

static void set_lines(struct fixture *f, const char *const *lines, size_t count, size_t *ret_n,
                      ProtobufCBinaryData **ret)
{
    *ret_n = count;
    *ret = arena_array(&f->arena, count, sizeof(**ret));
    for (size_t i = 0; i < count; i++) {
        (*ret)[i] = pb_bytes(&f->arena, str_from(lines[i]));
    }
}

void spec_script(struct fixture *f, const char *const *lines, size_t count)
{
    set_lines(f, lines, count, &f->spec.n_script, &f->spec.script);
}

void spec_after_script(struct fixture *f, const char *line)
{
    set_lines(f, &line, 1, &f->spec.n_after_script, &f->spec.after_script);
}

Pb__Variable *spec_variable_bytes(struct fixture *f, const char *name, struct str value)
{
    size_t n = f->spec.n_variables;
    Pb__Variable **all = arena_array(&f->arena, n + 1, sizeof(*all));
    if (n > 0) {
        memcpy(all, f->spec.variables, n * sizeof(*all));
    }
    Pb__Variable *v = arena_alloc(&f->arena, sizeof(*v));
    pb__variable__init(v);
    v->name = arena_strdup(&f->arena, str_from(name));
    v->value = pb_bytes(&f->arena, value);
    all[n] = v;
    f->spec.variables = all;
    f->spec.n_variables = n + 1;
    return v;
}

void spec_variable(struct fixture *f, const char *name, const char *value)
{
    spec_variable_bytes(f, name, str_from(value));
}

int run_prepare(struct fixture *f)
{
    struct buf why = BUF_INIT;
    int r = executor_shell.prepare(&f->cx, &f->spec, &why);
    buf_cstr(&why);
    free(f->why);
    f->why = buf_take(&why);
    return r;
}

void run_start(struct fixture *f)
{
    pid_t pid;
    assert_int_equal(executor_shell.start(&f->cx, &pid), 0);
}

static void read_log(struct fixture *f)
{
    struct spool_reader reader;
    struct buf log = BUF_INIT;
    assert_int_equal(spool_open(&reader, f->cx.job_dir), 0);
    assert_int_equal(spool_read(&reader, 0, LIMIT_LOG_BYTES, &log), 0);
    spool_close(&reader);
    buf_cstr(&log);
    free(f->log);
    f->log = buf_take(&log);
}

void run_finish(struct fixture *f)
{
    uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;
    while (shim_status_read(f->cx.job_dir, &f->status) < 0) {
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(2);
    }
    read_log(f);
    exec_outcome(&f->cx, &f->spec, &f->status, &f->arena, &f->outcome);
    while (executor_shell.alive(&f->cx)) {
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(2);
    }
    assert_true(executor_shell.cleanup(&f->cx));
}

void run_job(struct fixture *f)
{
    int r = run_prepare(f);
    if (r < 0) {
        fail_msg("%s", f->why);
    }
    run_start(f);
    run_finish(f);
}

char *run_command(struct fixture *f, const char *command)
{
    const char *argv[] = {"/bin/sh", "-ec", command, NULL};
    struct os_spawn spawn = {
        .argv = argv, .cwd = f->root, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    struct buf out = BUF_INIT;
    int status;
    assert_int_equal(os_run(&spawn, 1 * MIB, &out, &status), 0);
    if (status != 0) {
        fail_msg("`%s` failed: %s", command, buf_cstr(&out));
    }
    char *text = arena_strdup(&f->arena, str_trim(buf_str(&out)));
    buf_release(&out);
    return text;
}

void assert_outcome(struct fixture *f, Pb__JobState result, Pb__Reason reason, int exit_code)
{
    if (f->outcome.result != (uint32_t)result || f->outcome.reason != (uint32_t)reason ||
        f->outcome.exit_code != exit_code) {
        fail_msg("outcome is %u, %u, %d (%s), not %d, %d, %d; log: %s", f->outcome.result,
                 f->outcome.reason, f->outcome.exit_code, f->outcome.detail, (int)result,
                 (int)reason, exit_code, f->log);
    }
}

void assert_in_log(struct fixture *f, const char *part)
{
    if (strstr(f->log, part) == NULL) {
        fail_msg("`%s` is not in the log: %s", part, f->log);
    }
}

void assert_not_in_log(struct fixture *f, const char *part)
{
    if (strstr(f->log, part) != NULL) {
        fail_msg("`%s` is in the log: %s", part, f->log);
    }
}

void wait_for_file(const char *path)
{
    uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;
    while (!os_exists(path)) {
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(2);
    }
}
