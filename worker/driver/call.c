/* A driver's call from its fence to its answer. */
#include "common/base.h"

#include "worker/driver/op.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/shim/proc.h"

#define DRIVER_HTTP_MS   10000u

#define DRIVER(variable) extern const struct driver variable;
#include "worker/driver/drivers.def"
#undef DRIVER

static const struct driver *const all_drivers[] = {
#define DRIVER(variable) &(variable),
#include "worker/driver/drivers.def"
#undef DRIVER
    NULL,
};

const struct driver *const *driver_list(size_t *ret_count)
{
    *ret_count = ARRAY_LEN(all_drivers) - 1;
    return all_drivers;
}

static const struct driver *find(const struct driver *const *list, const char *name)
{
    for (; *list != NULL; list++) {
        if (strcmp((*list)->name, name) == 0) {
            return *list;
        }
    }
    return NULL;
}

const struct driver *driver_by_name(const char *name)
{
    return find(all_drivers, name);
}

/* ---- what was asked for ---- */

struct driver_op *op_new(struct driver_call *call, driver_fn fn, size_t limit)
{
    struct driver_op *op = xcalloc(1, sizeof(*op));
    op->action = call->action;
    op->fn = fn;
    op->limit = limit;
    op->fd = op->err_fd = -1;
    DL_APPEND(call->action->ops, op);
    return op;
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

/* Nothing of it goes on: a program that is cut off goes with all that it has started. What one
 * leaves behind when it ends by itself, in a session of its own, is what it was to start. */
static void op_stop(struct driver_op *op)
{
    struct loop *loop = op->action->all->loop;
    loop_timer_clear(loop, &op->timer);
    if (op->http != NULL) {
        http_call_cancel(op->http);
        op->http = NULL;
    }
    loop_unwatch(loop, op->watch);
    loop_unwatch(loop, op->err_watch);
    loop_unwatch(loop, op->child_watch);
    op->watch = op->err_watch = op->child_watch = NULL;
    if (op->child > 0) {
        if (!op->exited) {
            proc_kill_marked(op->mark, op->child);
        }
        (void)kill(-op->child, SIGKILL);
        op->child = 0;
    }
    close_fd(op->fd);
    close_fd(op->err_fd);
    op->fd = op->err_fd = -1;
}

static void op_free(struct driver_op *op)
{
    op_stop(op);
    buf_release(&op->out);
    buf_release(&op->err);
    free(op);
}

/* Out of the list first: the callback may end the call, and all that is in the list with it. */
static void op_reply(struct driver_op *op, const struct driver_reply *reply)
{
    struct action *a = op->action;
    op_stop(op);
    DL_DELETE(a->ops, op);
    op->fn(&a->call, reply);
    op_free(op);
}

void op_done(struct driver_op *op, int status)
{
    struct driver_reply reply = {.status = status,
                                 .why = "",
                                 .ctx = op->ctx,
                                 .out = buf_str(&op->out),
                                 .err = buf_str(&op->err)};
    op_reply(op, &reply);
}

void op_fail(struct driver_op *op, int error, const char *why)
{
    struct driver_reply reply = {.error = error,
                                 .why = why,
                                 .ctx = op->ctx,
                                 .out = buf_str(&op->out),
                                 .err = buf_str(&op->err)};
    op_reply(op, &reply);
}

static void on_failed(void *ctx)
{
    struct driver_op *op = ctx;
    op_fail(op, op->status, err_text(op->status));
}

void op_fail_soon(struct driver_op *op, int error)
{
    op->status = error;
    loop_timer_set(op->action->all->loop, &op->timer, os_monotonic_ms(), on_failed, op);
}

static void on_late(void *ctx)
{
    op_fail(ctx, -E_TIMEOUT, err_text(-E_TIMEOUT));
}

void op_set_end(struct driver_op *op, uint64_t timeout_ms)
{
    loop_timer_set(op->action->all->loop, &op->timer, os_monotonic_ms() + timeout_ms, on_late, op);
}

/* ---- helpers ---- */

static void on_after(void *ctx)
{
    op_done(ctx, 0);
}

void driver_after(struct driver_call *call, uint64_t ms, driver_fn fn)
{
    struct driver_op *op = op_new(call, fn, 0);
    loop_timer_set(call->action->all->loop, &op->timer, os_monotonic_ms() + ms, on_after, op);
}

static void on_answer(void *ctx, const struct http_call_end *end)
{
    struct driver_op *op = ctx;
    op->http = NULL;
    if (end->error < 0) {
        op_fail(op, end->error, end->why);
    } else if (end->cut) {
        op_fail(op, -E_TOO_BIG, "the answer is too big");
    } else {
        buf_add_str(&op->out, end->body);
        op_done(op, end->status);
    }
}

void driver_http(struct driver_call *call, const struct driver_http *what, driver_fn fn)
{
    struct driver_op *op = op_new(call, fn, what->limit);
    op->ctx = what->ctx;
    struct http_call_request request = {
        .method = what->method != NULL ? what->method : "GET",
        .url = what->url,
        .body = str_of(arena_strdup(call->arena, what->body), what->body.n),
        .has_body = what->body.n > 0,
        .ca_file = what->ca_file,
        .unix_socket = what->unix_socket,
        .any_server = what->insecure,
        .timeout_ms = what->timeout_ms > 0 ? what->timeout_ms : DRIVER_HTTP_MS,
        .keep = what->limit,
        .limit = what->limit,
    };
    op->http = http_call_new(call->action->all->http, &request, on_answer, op);
    for (const char *const *h = what->headers; h != NULL && h[0] != NULL; h += 2) {
        if (http_call_header(op->http, h[0], h[1]) < 0) {
            op_fail_soon(op, -E_INVALID);
            return;
        }
    }
    http_call_begin(op->http);
}

/* ---- the call ---- */

ProtobufCMessage *driver_args(struct driver_call *call, const ProtobufCMessageDescriptor *kind)
{
    ProtobufCMessage *m;
    struct str args = pb_str(call->what->args);
    if (pb_unpack(call->arena, kind, args.p, args.n, LIMIT_JOB_SPEC, &m) < 0) {
        driver_fail(call, "invalid", "its arguments are no %s", kind->short_name);
        return NULL;
    }
    return m;
}

const char *driver_variable(const struct driver_call *call, const char *name)
{
    const struct var *v = action_variable(call->action, name);
    return v != NULL ? arena_strdup(call->arena, v->value) : NULL;
}

struct str driver_setting(const Pb__DriverConfig *config, const char *name, const char *otherwise)
{
    for (size_t i = 0; config != NULL && i < config->n_settings; i++) {
        if (strcmp(config->settings[i]->name, name) == 0) {
            return pb_str(config->settings[i]->value);
        }
    }
    return str_from(otherwise);
}

void driver_done(struct driver_call *call, const ProtobufCMessage *answer)
{
    struct action *a = call->action;
    struct buf packed = BUF_INIT;
    if (answer != NULL) {
        pb_pack(answer, &packed);
    }
    if (packed.n > LIMIT_ACTION_DATA) {
        driver_fail(call, "too_big", "the answer has %zu bytes, %u are allowed", packed.n,
                    LIMIT_ACTION_DATA);
    } else if (!a->ended) {
        a->result.data = pb_bytes(&a->arena, buf_str(&packed));
        action_end_ok(a);
    }
    buf_release(&packed);
}

void driver_fail(struct driver_call *call, const char *code, const char *fmt, ...)
{
    struct buf text = BUF_INIT;
    va_list args;
    va_start(args, fmt);
    buf_vaddf(&text, fmt, args);
    va_end(args);
    action_end_bad(call->action, REASON_SCRIPT_FAILURE, code, "%s", buf_cstr(&text));
    buf_release(&text);
}

void action_drive_end(struct action *a)
{
    while (a->ops != NULL) {
        struct driver_op *op = a->ops;
        DL_DELETE(a->ops, op);
        op_free(op);
    }
    if (a->driver != NULL && a->driver->release != NULL) {
        a->driver->release(&a->call);
    }
    a->driver = NULL;
}

/* True: its fence is high enough, and the target remembers it now. */
static bool passes(struct action *a, const Pb__DriverAction *what)
{
    Pb__ActionFence seen = PB__ACTION_FENCE__INIT;
    int r = what->fence != NULL ? fences_pass(&a->all->fences, what->target, what->fence, &seen)
                                : -E_INVALID;
    if (r == -E_STALE_EPOCH) {
        action_end_bad(a, REASON_SCRIPT_FAILURE, "stale",
                       "generation %" PRIu64 " epoch %" PRIu64 " of rollout %" PRIu64
                       ": the target has seen generation %" PRIu64 " epoch %" PRIu64
                       " of rollout %" PRIu64,
                       what->fence->generation, what->fence->epoch, what->fence->rollout,
                       seen.generation, seen.epoch, seen.rollout);
    } else if (r == -E_INVALID) {
        action_end_bad(a, REASON_CONFIG_ERROR, "invalid", "an action without a fence");
    } else if (r < 0) {
        action_end_bad(a, REASON_SYSTEM_FAILURE, "state", "the fence of %.100s: %s", what->target,
                       err_text(r));
    }
    return r == 0;
}

void action_drive(struct action *a, const Pb__DriverAction *what)
{
    const struct driver *d = find(a->all->drivers, what->driver);
    if (d == NULL) {
        action_end_bad(a, REASON_UNMET_PREREQUISITES, "no_driver",
                       "this worker has no driver %.100s", what->driver);
        return;
    }
    if (!passes(a, what)) {
        return;
    }
    char *dir = arena_printf(&a->arena, "%s/drivers/%s", a->all->state_dir, d->name);
    int r = os_mkdir_p(dir, 0700);
    if (r < 0) {
        action_end_bad(a, REASON_SYSTEM_FAILURE, "state", "cannot make %s: %s", dir, err_text(r));
        return;
    }
    a->driver = d;
    a->call = (struct driver_call){
        .what = what,
        .job = a->spec,
        .arena = &a->arena,
        .state_dir = dir,
        .deadline_ms = a->job_timer.due_ms,
        .action = a,
    };
    d->act(&a->call);
}
