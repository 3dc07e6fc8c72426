/* The steps whose lines run in the container: pre_get_sources, script, after_script. */
#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/environment.h"
#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"
#include "worker/step/container.h"

#define SCRIPT_MAX ((size_t)64 * MIB)

static const char *const shells[] = {
    "/usr/local/bin/bash", "/usr/bin/bash", "/bin/bash",   "/usr/local/bin/sh",
    "/usr/bin/sh",         "/bin/sh",       "/busybox/sh",
};

struct lines {
    struct box *box;
    const Pb__ContainerState *state;
    const char *name;
};

/* The shell as the image's entry point has it, which may want to set something up before. */
static void add_lines(void *ctx, struct shim_conf *conf)
{
    const struct lines *lines = ctx;
    struct step *s = lines->box->s;
    const char *status = getenv("DAVIT_JOB_STATUS");
    shim_conf_step(conf, lines->name, "main", 0, s->project_dir);
    for (size_t i = 0; i < lines->state->n_entrypoint; i++) {
        shim_conf_arg(conf, lines->state->entrypoint[i]);
    }
    shim_conf_either(conf, shells, ARRAY_LEN(shells));
    shim_conf_arg(conf, arena_printf(&s->arena, "%s/%s.sh", CONTAINER_RUN, lines->name));
    environment_variables_to_conf(&s->vars, conf);
    if (status != NULL) {
        shim_conf_env(conf, STR("DAVIT_JOB_STATUS"), str_from(status));
    }
}

struct waiting {
    struct box *box;
    const char **endpoints;
};

static void add_waiting(void *ctx, struct shim_conf *conf)
{
    const struct waiting *w = ctx;
    shim_conf_step(conf, "wait", "main", 0, "/");
    shim_conf_arg(conf, CONTAINER_SHIM);
    shim_conf_arg(conf, "--wait");
    shim_conf_arg(conf,
                  arena_printf(&w->box->s->arena, "%" PRIu64, w->box->settings->service_wait_ms));
    for (size_t i = 0; w->endpoints[i] != NULL; i++) {
        shim_conf_arg(conf, w->endpoints[i]);
    }
}

/* The job goes on without those that are not ready: perhaps it does not need them at once. */
static int await_services(struct box *box, const Pb__ContainerState *state, const char **ret_detail)
{
    size_t count;
    struct waiting waiting = {.box = box};
    struct box_run run = {.name = "wait", .add_steps = add_waiting, .ctx = &waiting};
    struct shim_step_status how = {0};
    int r = 0;
    if (state->n_services == 0) {
        return 0;
    }
    step_say("Waiting for the services to be ready (%" PRIu64 " s at most)...",
             box->settings->service_wait_ms / 1000);
    waiting.endpoints = box_service_endpoints(box, state, &count);
    if (count > 0) {
        r = box_run(box, state, &run, &how, ret_detail);
        if (r == 0 && strcmp(how.result, "exit") == 0 && how.code != 0) {
            step_warn("not all services are ready; going on all the same");
            box_show_service_logs(box, state);
        }
    }
    box_await_health(box, state);
    return r;
}

static void open_below(int fd);

static void set_mode(int fd, mode_t mode)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int r UNUSED = chmod(path, mode);
}

/* Files of others stay as they are. What a name stands for is looked at once: it may be replaced
 * meanwhile, and what a link points to is not ours to open. */
static void open_one(int dir_fd, const char *name)
{
    struct stat st;
    const int at = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (at < 0 || fstat(at, &st) < 0) {
        st.st_mode = 0;
    }
    if (S_ISDIR(st.st_mode)) {
        set_mode(at, (st.st_mode & 07777) | 0777);
        int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            open_below(fd);
        }
    } else if (S_ISREG(st.st_mode)) {
        set_mode(at, (st.st_mode & 07777) | 0666 | ((st.st_mode & 0100) != 0 ? 0111 : 0));
    }
    if (at >= 0) {
        close(at);
    }
}

struct folder {
    int fd;
};

static void open_entry(void *ctx, const char *name)
{
    const struct folder *f = ctx;
    open_one(f->fd, name);
}

static void open_below(int fd)
{
    struct folder f = {.fd = fd};
    char path[64];
    struct buf text = BUF_INIT;
    buf_addf(&text, "/proc/self/fd/%d", fd);
    check(text.n < sizeof(path));
    memcpy(path, text.p, text.n + 1);
    buf_release(&text);
    (void)os_list_dir(path, open_entry, &f);
    close(fd);
}

/* The job's user is not the one who got the sources: as in GitLab's runner, anybody may change them
 * then. */
static void open_project(const struct step *s)
{
    int fd = open(s->project_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        (void)fchmod(fd, 0777);
        open_below(fd);
    }
}

static int read_script(struct step *s, const char *name, struct buf *out)
{
    const char *path = arena_printf(&s->arena, "%s/%s.sh", s->folder, name);
    int r = os_read_file(path, SCRIPT_MAX, out);
    if (r < 0) {
        step_error("cannot read %s: %s", path, err_text(r));
    }
    (void)buf_cstr(out);
    return r;
}

/* What exec_outcome is told beside the exit code, which may be any. */
static int fail(const struct step *s, const char *name, Pb__Reason reason, const char *detail)
{
    Pb__Outcome part = PB__OUTCOME__INIT;
    part.reason = reason;
    part.detail = (char *)(uintptr_t)detail;
    int r = prepared_part_write(s->folder, name, &part);
    if (r < 0) {
        step_error("cannot write down how %s ended: %s", name, err_text(r));
    }
    return STEP_EXIT_SYSTEM;
}

static int exit_code(struct step *s, const char *name, const struct shim_step_status *how)
{
    struct arena *arena = &s->arena;
    if (strcmp(how->result, "exit") == 0) {
        return how->code;
    }
    if (strcmp(how->result, "canceled") == 0) {
        return 1; /* the shim of the host knows better */
    }
    if (strcmp(how->result, "signal") == 0) {
        return fail(s, name, REASON_SYSTEM_FAILURE,
                    arena_printf(arena, "%s was ended by signal %d", name, how->code));
    }
    if (strcmp(how->result, "error") == 0 && how->code == ENOENT) {
        return fail(s, name, REASON_CONFIG_ERROR,
                    "the image has no shell (bash or sh), or its entry point is not there");
    }
    return fail(s, name, REASON_SYSTEM_FAILURE,
                arena_printf(arena, "%s could not be run in the container (%s %d)", name,
                             how->result, how->code));
}

static int run_lines(struct box *box, const char *name)
{
    struct step *s = box->s;
    struct lines lines = {.box = box, .name = name};
    struct box_run run = {.name = name, .add_steps = add_lines, .ctx = &lines};
    struct shim_step_status how = {0};
    struct buf script = BUF_INIT;
    Pb__ContainerState *state;
    const char *detail = "its container was not made";
    int r = box_state_read(box, &state);
    lines.state = state;
    if (r < 0) {
        step_error("%s", detail);
        return fail(s, name, REASON_SYSTEM_FAILURE, detail);
    }
    if (strcmp(name, "script") == 0) {
        if (state->needs_open_files) {
            open_project(s);
        }
        r = await_services(box, state, &detail);
    }
    r = r < 0 ? r : read_script(s, name, &script);
    run.script = buf_str(&script);
    r = r < 0 ? r : box_run(box, state, &run, &how, &detail);
    buf_release(&script);
    if (r < 0) {
        Pb__Reason reason = r == -E_INVALID ? REASON_CONFIG_ERROR : REASON_SYSTEM_FAILURE;
        return fail(s, name, reason, detail);
    }
    return exit_code(s, name, &how);
}

static int run_named(struct step *s, const char *name)
{
    struct box box;
    if (box_open(&box, s) < 0) {
        return fail(s, name, REASON_SYSTEM_FAILURE, "the Docker Engine cannot be used");
    }
    return run_lines(&box, name);
}

int step_pre_get_sources(struct step *s)
{
    return run_named(s, "pre_get_sources");
}

int step_script(struct step *s)
{
    return run_named(s, "script");
}

int step_after_script(struct step *s)
{
    return run_named(s, "after_script");
}
