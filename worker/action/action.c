#include "common/base.h"

#include "worker/action/state.h"

#include <stdarg.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/limits.h"
#include "common/mask_forms.h"
#include "common/os.h"

#define ARENA_FIRST 512u /* of most actions */

/* ---- the loop under the HTTP client ---- */

struct http_slot {
    struct actions *all;
    struct loop_watch *watch;
    int fd;
};

static void on_io(void *ctx, unsigned events)
{
    struct http_slot *s = ctx;
    http_multi_ready(s->all->http, s->fd, (events & LOOP_READ) != 0, (events & LOOP_WRITE) != 0);
}

static void want_io(void *ctx, int fd, bool read, bool write, void **slot)
{
    struct actions *as = ctx;
    struct http_slot *s = *slot;
    unsigned events = (read ? LOOP_READ : 0u) | (write ? LOOP_WRITE : 0u);
    if (events == 0) {
        if (s != NULL) {
            loop_unwatch(as->loop, s->watch);
            free(s);
        }
        *slot = NULL;
    } else if (s != NULL) {
        loop_await(as->loop, s->watch, events);
    } else {
        *slot = s = xcalloc(1, sizeof(*s));
        *s = (struct http_slot){.all = as, .fd = fd};
        s->watch = loop_watch_io(as->loop, fd, events, on_io, s);
    }
}

static void on_http_due(void *ctx)
{
    struct actions *as = ctx;
    http_multi_due(as->http);
}

static void wake(void *ctx, uint64_t after_ms)
{
    struct actions *as = ctx;
    loop_timer_clear(as->loop, &as->http_timer);
    if (after_ms != UINT64_MAX) {
        loop_timer_set(as->loop, &as->http_timer, os_monotonic_ms() + after_ms, on_http_due, as);
    }
}

static bool admits(void *ctx, const struct sockaddr *address)
{
    const struct actions *as = ctx;
    return reach_admits(as->reach, address);
}

static void begin_drivers(struct actions *as)
{
    for (const struct driver *const *d = as->drivers; *d != NULL; d++) {
        if ((*d)->begin != NULL) {
            struct buf dir = BUF_INIT;
            buf_addf(&dir, "%s/drivers/%s", as->state_dir, (*d)->name);
            (*d)->begin(dir.p);
            buf_release(&dir);
        }
    }
}

struct actions *actions_new(struct loop *loop, const struct reach *reach, const char *state_dir)
{
    struct actions *as = xcalloc(1, sizeof(*as));
    as->loop = loop;
    as->reach = reach;
    as->state_dir = state_dir;
    size_t count;
    as->drivers = driver_list(&count);
    fences_init(&as->fences, state_dir);
    struct http_loop http = {.want = want_io, .wake = wake, .admits = admits, .ctx = as};
    as->http = http_multi_new(&http);
    begin_drivers(as);
    return as;
}

void actions_free(struct actions *as)
{
    if (as == NULL) {
        return;
    }
    while (as->list != NULL) {
        action_cancel(as->list);
    }
    for (size_t i = 0; i < as->pool_count; i++) {
        prefork_free(as->pools[i]);
    }
    free(as->pools);
    http_multi_free(as->http);
    loop_timer_clear(as->loop, &as->http_timer);
    fences_release(&as->fences);
    free(as);
}

void actions_add_pool(struct actions *as, const struct prefork_config *config, uint64_t recycle)
{
    as->pools = xrealloc(as->pools, (as->pool_count + 1) * sizeof(struct prefork *));
    as->pools[as->pool_count++] = prefork_new(as, config, recycle);
}

/* ---- the end ---- */

static void stop_work(struct action *a)
{
    struct loop *loop = a->all->loop;
    loop_timer_clear(loop, &a->timer);
    loop_timer_clear(loop, &a->job_timer);
    if (a->http != NULL) {
        http_call_cancel(a->http);
        a->http = NULL;
    }
    action_drive_end(a);
    action_prefork_end(a);
}

static void action_free(struct action *a)
{
    stop_work(a);
    DL_DELETE(a->all->list, a);
    arena_release(&a->arena);
    free(a);
}

void action_cancel(struct action *a)
{
    action_free(a);
}

/* What a server echoes may hold what it was sent. */
static ProtobufCBinaryData hide(struct action *a, struct mask *mask, struct str text)
{
    struct buf out = BUF_INIT;
    mask_feed(mask, text, &out);
    mask_end(mask, &out);
    ProtobufCBinaryData hidden = pb_bytes(&a->arena, buf_str(&out));
    buf_release(&out);
    return hidden;
}

static void hide_secrets(struct action *a)
{
    struct mask *mask = NULL;
    for (size_t i = 0; i < a->spec->n_variables; i++) {
        const Pb__Variable *v = a->spec->variables[i];
        if (v->masked && mask == NULL) {
            mask = mask_new();
        }
        if (v->masked && mask_add_secret(mask, pb_str(v->value)) < 0) {
            a->result.body = pb_bytes_ref(STR_NULL); /* rather nothing than a secret */
            a->result.text = arena_strdup(&a->arena, STR("the masked variables are too long"));
            a->log = STR_NULL;
            mask_free(mask);
            return;
        }
    }
    if (mask != NULL && !mask_is_empty(mask)) {
        struct mask *once = mask;
        a->result.body = hide(a, once, pb_str(a->result.body));
        ProtobufCBinaryData text = hide(a, once, str_from(a->result.text));
        a->result.text = arena_strdup(&a->arena, pb_str(text));
        a->log = pb_str(hide(a, once, a->log));
    }
    mask_free(mask);
}

static void on_end(void *ctx)
{
    struct action *a = ctx;
    uint64_t now_us = os_monotonic_us();
    a->result.elapsed_us = now_us > a->begun_us ? now_us - a->begun_us : 0;
    hide_secrets(a);
    a->result.body.len = MIN(a->result.body.len, LIMIT_ACTION_RESULT);
    a->fn(a->ctx, &a->result, a->reason);
    action_free(a);
}

/* From the loop, so that no callback comes from within action_begin. */
static void end_soon(struct action *a)
{
    stop_work(a);
    a->ended = true;
    loop_timer_set(a->all->loop, &a->timer, os_monotonic_ms(), on_end, a);
}

void action_end_ok(struct action *a)
{
    if (!a->ended) {
        a->result.ok = true;
        a->reason = REASON_NONE;
        end_soon(a);
    }
}

char *action_line(struct arena *arena, struct str text)
{
    size_t bad;
    char *line = arena_strdup(arena, str_sub(text, 0, LIMIT_ACTION_TEXT));
    for (char *p = line; *p != '\0'; p++) {
        *p = (unsigned char)*p < ' ' || *p == 0x7f ? ' ' : *p;
    }
    while (!str_is_utf8(str_from(line), &bad)) {
        line[bad] = '?';
    }
    return line;
}

static void end_bad(struct action *a, Pb__Reason reason, const char *code, struct str text)
{
    if (!a->ended) {
        a->result.code = action_line(&a->arena, str_from(code));
        a->result.text = action_line(&a->arena, text);
        a->reason = reason;
        end_soon(a);
    }
}

void action_end_bad(struct action *a, Pb__Reason reason, const char *code, const char *fmt, ...)
{
    struct buf text = BUF_INIT;
    va_list args;
    va_start(args, fmt);
    buf_vaddf(&text, fmt, args);
    va_end(args);
    end_bad(a, reason, code, buf_str(&text));
    buf_release(&text);
}

void action_end_error(struct action *a, int error, const char *why)
{
    const char *code = error == -E_TIMEOUT     ? "timeout"
                       : error == -E_FORBIDDEN ? "denied"
                       : error == -E_PROTOCOL  ? "protocol"
                       : error == -E_INVALID   ? "invalid"
                       : error == -E_TOO_BIG   ? "too_big"
                                               : "unreachable";
    bool config = error == -E_FORBIDDEN || error == -E_INVALID;
    action_end_bad(a, config ? REASON_CONFIG_ERROR : REASON_SCRIPT_FAILURE, code, "%s", why);
}

/* ---- variables ---- */

static struct vars *vars_of(struct action *a)
{
    if (a->vars != NULL) {
        return a->vars;
    }
    a->vars = arena_alloc(&a->arena, sizeof(*a->vars));
    vars_init(a->vars, &a->arena);
    for (size_t i = 0; i < a->spec->n_variables; i++) {
        const Pb__Variable *v = a->spec->variables[i];
        vars_set_ref(a->vars, (struct var){.name = str_from(v->name),
                                           .value = pb_str(v->value),
                                           .raw = v->raw,
                                           .file = v->file,
                                           .masked = v->masked});
    }
    if (vars_expand_all(a->vars) < 0) {
        action_end_bad(a, REASON_CONFIG_ERROR, "invalid", "the job's variables are too large");
    }
    return a->vars;
}

const struct var *action_variable(struct action *a, const char *name)
{
    return vars_get(vars_of(a), str_from(name));
}

bool action_expand(struct action *a, ProtobufCBinaryData text, size_t limit, struct str *ret)
{
    struct buf out = BUF_INIT;
    struct str in = pb_str(text);
    int r = 0;
    if (str_chr(in, '$') < 0) {
        buf_add_str(&out, in);
    } else {
        r = vars_expand(vars_of(a), in, &out);
    }
    struct str whole = buf_str(&out);
    bool good = r == 0 && whole.n <= limit && str_chr(whole, '\0') < 0;
    if (good) {
        *ret = str_of(arena_strdup(&a->arena, whole), whole.n);
    } else {
        action_end_bad(a, REASON_CONFIG_ERROR, "invalid",
                       "a text of the action is longer than %zu bytes, or holds a NUL", limit);
    }
    buf_release(&out);
    return good && !a->ended;
}

/* ---- the beginning ---- */

static void on_waited(void *ctx)
{
    action_end_ok(ctx);
}

static void on_job_timeout(void *ctx)
{
    struct action *a = ctx;
    action_end_bad(a, REASON_JOB_TIMEOUT, "timeout", "the job's timeout of %" PRIu64 " ms is over",
                   a->spec->timeout_ms);
}

void action_time_begins(struct action *a)
{
    loop_timer_set(a->all->loop, &a->job_timer, os_monotonic_ms() + a->spec->timeout_ms,
                   on_job_timeout, a);
}

static void begin(struct action *a)
{
    const Pb__ActionSpec *what = a->spec->action;
    switch ((int)what->what_case) {
    case PB__ACTION_SPEC__WHAT_WAIT:
        loop_timer_set(a->all->loop, &a->timer, os_monotonic_ms() + what->wait->ms, on_waited, a);
        break;
    case PB__ACTION_SPEC__WHAT_HTTP:
        action_http(a, what->http);
        break;
    case PB__ACTION_SPEC__WHAT_TCP:
        action_tcp(a, what->tcp);
        break;
    case PB__ACTION_SPEC__WHAT_DRIVER:
        action_drive(a, what->driver);
        break;
    case PB__ACTION_SPEC__WHAT_PREFORK:
        action_prefork(a, what->prefork);
        break;
    default: /* of a newer broker */
        action_end_bad(a, REASON_UNMET_PREREQUISITES, "invalid",
                       "this worker does not know this kind of action");
        break;
    }
}

struct action *action_begin(struct actions *as, const Pb__JobSpec *spec, action_fn fn, void *ctx)
{
    struct action *a = xcalloc(1, sizeof(*a));
    a->all = as;
    a->spec = spec;
    a->fn = fn;
    a->ctx = ctx;
    a->begun_us = os_monotonic_us();
    pb__action_result__init(&a->result);
    arena_init_small(&a->arena, ARENA_FIRST);
    DL_APPEND(as->list, a);
    action_time_begins(a);
    begin(a);
    return a;
}

struct str action_log(const struct action *a)
{
    return a->log;
}

bool action_is_executor(const char *name)
{
    const struct str s = str_from(name);
    return str_eqz(s, "action") || str_starts(s, STR("action/")) || str_starts(s, STR("prefork/"));
}
