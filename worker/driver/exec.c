/* A program of the user's own. */
#include "common/base.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/driver/op.h"

#define IN_MAX (64u * KIB) /* what a pipe takes without a reader */

static int exit_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Both pipes are at their end and the program has ended, whichever comes last. What it left in the
 * background and holds a pipe open goes with the program. */
static void look(struct driver_op *op)
{
    if (op->exited) {
        (void)pipe_read(op->fd, &op->out, op->limit);
        (void)pipe_read(op->err_fd, &op->err, SIZE_MAX);
        if (op->err.n > OP_ERR_BYTES) {
            buf_drop_front(&op->err, op->err.n - OP_ERR_BYTES);
        }
        op_done(op, exit_code(op->status));
    }
}

static void on_out(void *ctx, unsigned events)
{
    struct driver_op *op = ctx;
    int r = pipe_read(op->fd, &op->out, op->limit);
    (void)events;
    if (r < 0) {
        op_fail(op, r, "it says more than is allowed");
    } else if (r == 1) {
        loop_unwatch(op->action->all->loop, op->watch);
        op->watch = NULL;
    }
}

static void on_err(void *ctx, unsigned events)
{
    struct driver_op *op = ctx;
    int r = pipe_read(op->err_fd, &op->err, SIZE_MAX);
    (void)events;
    if (op->err.n > 2u * OP_ERR_BYTES) {
        buf_drop_front(&op->err, op->err.n - OP_ERR_BYTES);
    }
    if (r == 1) {
        loop_unwatch(op->action->all->loop, op->err_watch);
        op->err_watch = NULL;
    }
}

static void on_exit_of_child(void *ctx, int status)
{
    struct driver_op *op = ctx;
    loop_unwatch(op->action->all->loop, op->child_watch);
    op->child_watch = NULL;
    op->exited = true;
    op->status = status;
    look(op);
}

struct ends {
    int in, out, err; /* the program's */
};

static void close_ends(struct ends *e)
{
    int *const fds[] = {&e->in, &e->out, &e->err};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        if (*fds[i] >= 0) {
            close(*fds[i]);
        }
        *fds[i] = -1;
    }
}

static int open_pipes(struct driver_op *op, struct str in, struct ends *e)
{
    int out[2], err[2], into[2];
    int r = pipe_make(out, true);
    if (r < 0) {
        return r;
    }
    op->fd = out[0];
    e->out = out[1];
    if ((r = pipe_make(err, true)) < 0) {
        return r;
    }
    op->err_fd = err[0];
    e->err = err[1];
    if (in.n == 0) {
        return 0;
    }
    if (in.n > IN_MAX) {
        return -E_TOO_BIG;
    }
    if ((r = pipe_make(into, false)) < 0) {
        return r;
    }
    e->in = into[0];
    ssize_t n = write(into[1], in.p, in.n);
    close(into[1]);
    return n == (ssize_t)in.n ? 0 : -E_IO;
}

/* By which what leaves the program's session and its parent is still known. */
static const char *new_mark(struct driver_call *call)
{
    uint8_t id[16];
    char hex[2 * sizeof(id) + 1];
    os_random(id, sizeof(id));
    str_to_hex(id, sizeof(id), hex);
    return arena_printf(call->arena, "DAVIT_DRIVER_CALL=%s", hex);
}

static char **environment(struct driver_call *call, const struct driver_exec *exec,
                          const char *mark)
{
    static const char *const kept[] = OP_KEPT_NAMES;
    size_t count = ARRAY_LEN(kept) + call->job->n_variables + 2;
    size_t n = 0;
    for (const char *const *e = exec->env; e != NULL && *e != NULL; e++) {
        count++;
    }
    char **env = arena_array(call->arena, count, sizeof(*env));
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        const char *value = getenv(kept[i]);
        if (value != NULL) {
            env[n++] = arena_printf(call->arena, "%s=%s", kept[i], value);
        }
    }
    for (size_t i = 0; i < call->job->n_variables; i++) {
        const char *name = call->job->variables[i]->name;
        const char *value = driver_variable(call, name);
        env[n++] = arena_printf(call->arena, "%s=%s", name, value != NULL ? value : "");
    }
    for (const char *const *e = exec->env; e != NULL && *e != NULL; e++) {
        env[n++] = arena_strdup(call->arena, str_from(*e));
    }
    env[n++] = arena_strdup(call->arena, str_from(mark));
    return env;
}

static int start(struct driver_call *call, const struct driver_exec *exec, struct driver_op *op)
{
    struct ends e = {-1, -1, -1};
    int r = open_pipes(op, exec->in, &e);
    op->mark = new_mark(call);
    if (r == 0) {
        struct os_spawn spawn = {.argv = exec->argv,
                                 .envp = (const char *const *)environment(call, exec, op->mark),
                                 .cwd = exec->cwd != NULL ? exec->cwd : call->state_dir,
                                 .stdin_fd = e.in,
                                 .stdout_fd = e.out,
                                 .stderr_fd = e.err,
                                 .new_session = true};
        r = os_spawn(&spawn, &op->child);
    }
    close_ends(&e);
    return r;
}

void driver_exec(struct driver_call *call, const struct driver_exec *exec, driver_fn fn)
{
    struct loop *loop = call->action->all->loop;
    struct driver_op *op = op_new(call, fn, exec->limit);
    op->ctx = exec->ctx;
    int r = start(call, exec, op);
    if (r < 0) {
        op->child = 0;
        op_fail_soon(op, r);
        return;
    }
    op_set_end(op, exec->timeout_ms);
    op->watch = loop_watch_io(loop, op->fd, LOOP_READ, on_out, op);
    op->err_watch = loop_watch_io(loop, op->err_fd, LOOP_READ, on_err, op);
    op->child_watch = loop_watch_child(loop, op->child, on_exit_of_child, op);
}
