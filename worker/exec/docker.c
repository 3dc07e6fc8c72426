/* The docker executor: the job's lines in a container, everything else of it on the host. Whatever
 * asks the Docker Engine is a step under the job's shim (worker/step/container.h): it may take its
 * time there, and goes on when the worker is killed. */
#include "common/base.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "common/os.h"
#include "worker/engine/engine.h"
#include "worker/exec/prepared.h"
#include "worker/exec/steps.h"

#define END_MS (60ull * 1000)

static bool docker_usable(const struct exec_context *cx, struct buf *why)
{
    struct engine engine;
    struct arena arena;
    arena_init(&arena, 0);
    bool ok = cx->engine != NULL && engine_open(&engine, cx->engine->socket, &arena, why) == 0;
    arena_release(&arena);
    return ok;
}

static void add_first(struct preparation *p)
{
    steps_add_own(p, "container", "main", 0);
}

static int add_script(struct preparation *p, const struct script_step *s)
{
    char *path;
    int r = steps_write_script(p, s, false, &path); /* for any shell that the image has */
    steps_add_own(p, s->name, s->kind, s->timeout_ms);
    shim_conf_quiet(p->conf);
    free(path);
    return r;
}

/* Before what the lines made is packed: it may have to be given back to the worker first. */
static void add_behind_scripts(struct preparation *p)
{
    steps_add_own(p, "container_end", "always", END_MS);
}

static const struct steps_way way = {
    .isolated = true,
    .add_first = add_first,
    .add_script = add_script,
    .add_behind_scripts = add_behind_scripts,
};

static void open_file(void *ctx, const char *name)
{
    char *path = os_path_join(ctx, name);
    (void)chmod(path, 0644);
    free(path);
}

/* For whoever the container runs as; the folder around them is the worker's alone. */
static void open_file_variables(const struct exec_context *cx)
{
    char *dir = os_path_join(cx->job_dir, "vars");
    if (chmod(dir, 0755) == 0) {
        (void)os_list_dir(dir, open_file, dir);
    }
    free(dir);
}

static int make_run_dir(const struct exec_context *cx)
{
    char *dir = os_path_join(cx->job_dir, "run");
    int r = os_mkdir_p(dir, 0700);
    free(dir);
    return r;
}

static int docker_prepare(const struct exec_context *cx, const Pb__JobSpec *spec, struct buf *why)
{
    if (cx->engine == NULL) {
        buf_addz(why, "this worker has no Docker Engine");
        return -E_UNSUPPORTED;
    }
    int r = prepared_write_file(cx->job_dir, "engine.pb", &cx->engine->base);
    r = r < 0 ? r : make_run_dir(cx);
    r = r < 0 ? r : steps_prepare(cx, spec, &way, why);
    if (r == 0) {
        open_file_variables(cx);
    } else if (why->n == 0) {
        buf_addf(why, "cannot prepare the job: %s", err_text(r));
    }
    return r;
}

static bool folder_has(const struct exec_context *cx, const char *name)
{
    char *path = os_path_join(cx->job_dir, name);
    bool there = os_exists(path);
    free(path);
    return there;
}

/* The program that removes what is left, of which one runs at a time: FOLDER/ending says which. */
static bool end_runs(const char *path)
{
    struct buf text = BUF_INIT;
    struct str rest;
    struct str pid_text;
    uint64_t pid = 0;
    uint64_t start = 0;
    uint64_t now = 0;
    bool runs = os_read_file(path, 64, &text) == 0;
    rest = str_trim(buf_str(&text));
    runs = runs && str_split(&rest, ' ', &pid_text) && str_to_u64(pid_text, &pid) == 0 &&
           str_to_u64(rest, &start) == 0 && pid <= INT32_MAX &&
           os_process_start_time((pid_t)pid, &now) == 0 && now == start;
    buf_release(&text);
    return runs;
}

static void start_end(const struct exec_context *cx, const char *path)
{
    const char *argv[] = {cx->step_program, "step", "container_end", cx->job_dir, NULL};
    struct os_spawn spawn = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .new_session = true};
    struct buf text = BUF_INIT;
    uint64_t start = 0;
    pid_t pid;
    if (os_spawn(&spawn, &pid) == 0 && os_process_start_time(pid, &start) == 0) {
        buf_addf(&text, "%d %" PRIu64 "\n", (int)pid, start);
        (void)os_put_file(path, text.p, text.n, 0600);
    }
    buf_release(&text);
}

/* Usually its own step has done it. Where that was killed, or the Engine away, a program does it
 * now; what even that leaves is for the sweep. */
static bool ended(const struct exec_context *cx)
{
    if (folder_has(cx, "container.end") || !folder_has(cx, "prepared.pb")) {
        return true;
    }
    char *path = os_path_join(cx->job_dir, "ending");
    if (!end_runs(path)) {
        start_end(cx, path);
    }
    free(path);
    return false;
}

static bool docker_cleanup(const struct exec_context *cx)
{
    struct shim_status status;
    bool gone = shim_status_read(cx->job_dir, &status) == 0 ||
                shim_kill_leftovers_soon(cx->job_dir);
    return gone && ended(cx) && steps_cleanup(cx);
}

const struct executor executor_docker = {
    .name = "docker",
    .usable = docker_usable,
    .prepare = docker_prepare,
    .start = steps_start,
    .cancel = steps_cancel,
    .alive = steps_alive,
    .cleanup = docker_cleanup,
};
