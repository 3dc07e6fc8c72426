#include "common/base.h"

#include "worker/action/prefork.h"

#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utlist.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"
#include "worker/action/pipes.h"
#include "worker/action/state.h"
#include "worker/shim/proc.h"

#define READY_MS     60000u /* for a start */
#define PAUSE_MS     100u   /* before the second start, doubled to: */
#define PAUSE_MAX_MS 30000u
#define FAILED_MAX   3u /* starts in a row: then jobs do not wait for the next one */

struct process {
    struct prefork *pool;
    uint32_t number;
    pid_t pid; /* 0: there is none */
    char mark[80];
    int in, out, err;
    struct loop_watch *in_watch, *out_watch, *err_watch, *child_watch;
    struct loop_timer timer; /* its next start, or the end of the time it has to get ready */
    struct buf to_send;
    size_t sent;
    struct buf line; /* of stdout, what is no whole line yet */
    struct buf log;  /* of stderr, since its job began */
    bool ready;
    uint64_t jobs;
    struct action *job;
    bool last; /* it has said so */
};

struct prefork {
    struct actions *all;
    struct prefork_config config;
    uint64_t recycle;
    char *dir;
    struct process *processes;
    struct action *waiting;
    uint32_t failed; /* starts in a row, of all */
    struct buf last_words;
};

static void start_later(struct process *p, uint64_t after_ms);
static void look_for_work(struct prefork *f);

/* ---- configuration ---- */

static bool is_pool_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        const char c = s.p[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            c != '_' && c != '.' && c != '-') {
            return false;
        }
    }
    return s.n > 0 && s.n <= LIMIT_PREFORK_NAME;
}

int prefork_parse(const char *text, struct prefork_config *ret)
{
    struct str rest = str_from(text), name, count;
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t processes = processors > 0 ? (uint64_t)processors : 1;
    if (!str_split(&rest, '=', &count) || str_trim(rest).n == 0 || !str_is_utf8(rest, NULL) ||
        !str_split(&count, ':', &name) || !is_pool_name(name)) {
        return -E_USAGE;
    }
    if (count.p != NULL && count.n > 0 && str_to_u64(count, &processes) < 0) {
        return -E_USAGE;
    }
    if (processes == 0 || processes > LIMIT_PREFORK_PROCESSES) {
        return -E_USAGE;
    }
    *ret = (struct prefork_config){.name = str_dup(name),
                                   .command = str_dup(str_trim(rest)),
                                   .processes = (uint32_t)processes};
    return 0;
}

void prefork_config_release(struct prefork_config *c)
{
    free(c->name);
    free(c->command);
    *c = (struct prefork_config){0};
}

/* ---- the end of a process ---- */

void prefork_sweep(const char *state_dir)
{
    struct buf entry = BUF_INIT;
    buf_addf(&entry, PREFORK_MARK "=%s", state_dir);
    proc_kill_marked(buf_cstr(&entry), 0);
    buf_release(&entry);
}

static void close_end(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* Nothing of it is left; who had it is the caller's to say. */
static void stop(struct process *p)
{
    struct loop *loop = p->pool->all->loop;
    loop_timer_clear(loop, &p->timer);
    loop_unwatch(loop, p->in_watch);
    loop_unwatch(loop, p->out_watch);
    loop_unwatch(loop, p->err_watch);
    loop_unwatch(loop, p->child_watch);
    p->in_watch = p->out_watch = p->err_watch = p->child_watch = NULL;
    close_end(&p->in);
    close_end(&p->out);
    close_end(&p->err);
    if (p->pid > 0) {
        (void)kill(-p->pid, SIGKILL);
        proc_kill_marked(p->mark, p->pid);
        p->pid = 0;
    }
    buf_clear(&p->to_send);
    buf_clear(&p->line);
    buf_clear(&p->log);
    p->sent = 0;
    p->ready = false;
    p->jobs = 0;
    p->last = false;
}

static bool any_ready(const struct prefork *f)
{
    for (uint32_t i = 0; i < f->config.processes; i++) {
        if (f->processes[i].ready) {
            return true;
        }
    }
    return false;
}

static void fail_waiting(struct prefork *f)
{
    while (f->waiting != NULL) {
        struct action *a = f->waiting;
        DL_DELETE2(f->waiting, a, pool_prev, pool_next);
        a->pool = NULL;
        action_end_bad(a, REASON_SYSTEM_FAILURE, "died", "the processes of %s do not get ready: %s",
                       f->config.name, buf_cstr(&f->last_words));
    }
}

/* It never was ready. */
static void failed(struct process *p, const char *why)
{
    struct prefork *f = p->pool;
    const struct str said = last_line(buf_str(&p->log));
    buf_clear(&f->last_words);
    buf_addf(&f->last_words, "%s%s" STR_FMT, why, said.n > 0 ? ": " : "", STR_ARG(said));
    log_warn("prefork %s, process %" PRIu32 ": %s", f->config.name, p->number,
             buf_cstr(&f->last_words));
    stop(p);
    f->failed++;
    const uint32_t doublings = MIN(f->failed / f->config.processes, 16u);
    start_later(p, MIN((uint64_t)PAUSE_MS << doublings, PAUSE_MAX_MS));
    if (f->failed >= FAILED_MAX && !any_ready(f)) {
        fail_waiting(f);
    }
}

static void set_log(struct action *a, struct process *p)
{
    (void)pipe_read(p->err, &p->log, SIZE_MAX);
    const struct str all = buf_str(&p->log);
    const struct str kept = str_sub(all, 0, LIMIT_PREFORK_LOG);
    a->log = arena_str(&a->arena, kept);
    if (kept.n < all.n) {
        a->log = str_from(arena_printf(&a->arena, STR_FMT "\ndavit: %zu bytes more are left out\n",
                                       STR_ARG(kept), all.n - kept.n));
    }
    buf_clear(&p->log);
}

static struct action *take_job(struct process *p)
{
    struct action *a = p->job;
    set_log(a, p);
    p->job = NULL;
    a->process = NULL;
    a->pool = NULL;
    return a;
}

/* It was of use, and is no longer. */
static void replace(struct process *p, const char *code, const char *why)
{
    if (p->job != NULL) {
        const struct str said = last_line(buf_str(&p->log));
        char *text = arena_printf(&p->job->arena, "%s%s" STR_FMT, why, said.n > 0 ? ": " : "",
                                  STR_ARG(said));
        action_end_bad(take_job(p), REASON_SCRIPT_FAILURE, code, "%s", text);
    }
    stop(p);
    start_later(p, 0);
}

static void lose(struct process *p, const char *code, const char *why)
{
    if (p->ready) {
        replace(p, code, why);
    } else {
        failed(p, why);
    }
}

/* ---- what it says ---- */

static struct str text_of(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return json_is_string(v) ? str_of(json_string_value(v), json_string_length(v)) : STR("");
}

/* True: it is the answer to what was asked. */
static bool take_answer(struct process *p, const json_t *o)
{
    struct action *a = p->job;
    const json_t *id = json_object_get(o, "id"), *code = json_object_get(o, "exit");
    const json_int_t exit = code != NULL ? json_integer_value(code) : 0;
    if (a == NULL || !json_is_integer(id) || (uint64_t)json_integer_value(id) != p->jobs ||
        (code != NULL && !json_is_integer(code)) || exit < 0 || exit > 255) {
        return false;
    }
    const struct str output = text_of(o, "output"), text = text_of(o, "text");
    const uint32_t keep = a->spec->action->prefork->keep_bytes;
    p->last = json_is_true(json_object_get(o, "last"));
    (void)take_job(p);
    a->result.body = pb_bytes(&a->arena, str_sub(output, 0, keep));
    a->result.cut = output.n > keep;
    if (exit == 0) {
        action_end_ok(a);
    } else {
        action_end_bad(a, REASON_SCRIPT_FAILURE, "exit", "exit %" JSON_INTEGER_FORMAT "%s" STR_FMT,
                       exit, text.n > 0 ? ": " : "", STR_ARG(text));
    }
    return true;
}

/* False: it has been stopped. */
static bool take_line(struct process *p, struct str line)
{
    json_t *o = json_loadb(line.p, line.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    bool good = false;
    if (json_is_object(o) && !p->ready) {
        good = json_is_true(json_object_get(o, "ready"));
        p->ready = good;
        p->pool->failed = good ? 0 : p->pool->failed;
        loop_timer_clear(p->pool->all->loop, &p->timer);
        buf_clear(&p->log);
    } else if (json_is_object(o)) {
        good = take_answer(p, o);
    }
    json_decref(o);
    if (!good) {
        lose(p, "protocol",
             p->ready ? "what it wrote to stdout is no answer to its job"
                      : "what it wrote to stdout is not {\"ready\": true}");
    } else if (p->job == NULL && p->jobs > 0 &&
               (p->last || (p->pool->recycle > 0 && p->jobs >= p->pool->recycle))) {
        replace(p, "", "");
        return false;
    }
    return good;
}

/* False: it has been stopped. */
static bool read_out(struct process *p)
{
    const int r = pipe_read(p->out, &p->line, LIMIT_PREFORK_ANSWER);
    ptrdiff_t end;
    while ((end = str_chr(buf_str(&p->line), '\n')) >= 0) {
        struct buf line = BUF_INIT;
        buf_add(&line, p->line.p, (size_t)end);
        buf_drop_front(&p->line, (size_t)end + 1);
        const bool goes_on = take_line(p, buf_str(&line));
        buf_release(&line);
        if (!goes_on) {
            return false;
        }
    }
    if (r < 0) {
        lose(p, "protocol", "a line that is too long");
        return false;
    }
    if (r == 1) {
        loop_unwatch(p->pool->all->loop, p->out_watch);
        p->out_watch = NULL; /* its end is awaited */
    }
    return true;
}

static void on_out(void *ctx, unsigned events)
{
    struct process *p = ctx;
    (void)events;
    (void)read_out(p);
    look_for_work(p->pool);
}

static void on_err(void *ctx, unsigned events)
{
    struct process *p = ctx;
    const int r = pipe_read(p->err, &p->log, SIZE_MAX);
    (void)events;
    if (p->job == NULL && p->ready) {
        buf_clear(&p->log); /* nobody's */
    } else if (p->log.n > 2u * LIMIT_PREFORK_LOG) {
        buf_truncate(&p->log, LIMIT_PREFORK_LOG + 1);
    }
    if (r == 1) {
        loop_unwatch(p->pool->all->loop, p->err_watch);
        p->err_watch = NULL;
    }
}

static void on_in(void *ctx, unsigned events)
{
    struct process *p = ctx;
    (void)events;
    if (pipe_write(p->in, buf_str(&p->to_send), &p->sent) < 0 || p->sent == p->to_send.n) {
        loop_await(p->pool->all->loop, p->in_watch, 0); /* who does not read has ended, or will */
    }
}

static void on_ended(void *ctx, int status)
{
    struct process *p = ctx;
    struct buf why = BUF_INIT;
    (void)pipe_read(p->err, &p->log, SIZE_MAX);
    if (!read_out(p)) {
        look_for_work(p->pool);
        return;
    }
    buf_addf(&why, "the process ended with %s %d", WIFSIGNALED(status) ? "signal" : "code",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    lose(p, "died", buf_cstr(&why));
    buf_release(&why);
    look_for_work(p->pool);
}

static void on_not_ready(void *ctx)
{
    struct process *p = ctx;
    failed(p, "it did not get ready in time");
}

/* ---- the beginning ---- */

static const char **environment(struct process *p, struct arena *arena)
{
    static const char *const kept[] = {"PATH", "HOME", "LANG"};
    const char **env = arena_array(arena, ARRAY_LEN(kept) + 4, sizeof(*env));
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        const char *value = getenv(kept[i]);
        if (value != NULL) {
            env[n++] = arena_printf(arena, "%s=%s", kept[i], value);
        }
    }
    env[n++] = arena_printf(arena, PREFORK_MARK "=%s", p->pool->all->state_dir);
    env[n++] = p->mark;
    env[n++] = arena_printf(arena, "DAVIT_PREFORK_NAME=%s", p->pool->config.name);
    return env;
}

static int spawn(struct process *p, const int ends[3])
{
    struct arena arena;
    const char *argv[] = {"/bin/sh", "-c", p->pool->config.command, NULL};
    uint64_t random;
    os_random(&random, sizeof(random));
    (void)snprintf(p->mark, sizeof(p->mark), "DAVIT_PREFORK_PROCESS=%016" PRIx64, random);
    arena_init(&arena, 0);
    struct os_spawn what = {.argv = argv,
                            .envp = environment(p, &arena),
                            .cwd = p->pool->dir,
                            .stdin_fd = ends[0],
                            .stdout_fd = ends[1],
                            .stderr_fd = ends[2],
                            .new_session = true};
    int r = os_mkdir_p(p->pool->dir, 0700);
    r = r < 0 ? r : os_spawn(&what, &p->pid);
    arena_release(&arena);
    return r;
}

static int start_pipes(struct process *p)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    int r = pipe_make(in, false);
    r = r < 0 ? r : pipe_make(out, true);
    r = r < 0 ? r : pipe_make(err, true);
    p->in = in[1];
    p->out = out[0];
    p->err = err[0];
    if (r == 0) {
        r = spawn(p, (const int[]){in[0], out[1], err[1]});
    }
    close_end(&in[0]);
    close_end(&out[1]);
    close_end(&err[1]);
    return r;
}

static void on_start(void *ctx)
{
    struct process *p = ctx;
    struct loop *loop = p->pool->all->loop;
    const int r = start_pipes(p);
    if (r < 0) {
        failed(p, err_text(r));
        return;
    }
    p->in_watch = loop_watch_io(loop, p->in, 0, on_in, p);
    p->out_watch = loop_watch_io(loop, p->out, LOOP_READ, on_out, p);
    p->err_watch = loop_watch_io(loop, p->err, LOOP_READ, on_err, p);
    p->child_watch = loop_watch_child(loop, p->pid, on_ended, p);
    loop_timer_set(loop, &p->timer, os_monotonic_ms() + READY_MS, on_not_ready, p);
}

static void start_later(struct process *p, uint64_t after_ms)
{
    loop_timer_set(p->pool->all->loop, &p->timer, os_monotonic_ms() + after_ms, on_start, p);
}

struct prefork *prefork_new(struct actions *as, const struct prefork_config *config,
                            uint64_t recycle)
{
    struct prefork *f = xcalloc(1, sizeof(*f));
    struct buf dir = BUF_INIT;
    f->all = as;
    f->config = (struct prefork_config){xstrdup(config->name), xstrdup(config->command),
                                        config->processes};
    f->recycle = recycle;
    buf_addf(&dir, "%s/prefork/%s", as->state_dir, config->name);
    (void)buf_cstr(&dir);
    f->dir = buf_take(&dir);
    f->processes = xcalloc(config->processes, sizeof(*f->processes));
    for (uint32_t i = 0; i < config->processes; i++) {
        struct process *p = &f->processes[i];
        p->pool = f;
        p->number = i + 1;
        p->in = p->out = p->err = -1;
        start_later(p, 0);
    }
    return f;
}

void prefork_free(struct prefork *f)
{
    if (f == NULL) {
        return;
    }
    for (uint32_t i = 0; i < f->config.processes; i++) {
        struct process *p = &f->processes[i];
        stop(p);
        buf_release(&p->to_send);
        buf_release(&p->line);
        buf_release(&p->log);
    }
    free(f->processes);
    free(f->dir);
    prefork_config_release(&f->config);
    buf_release(&f->last_words);
    free(f);
}

/* ---- jobs ---- */

/* The variables as a program can take them; NULL: the action has ended. */
static json_t *variables(struct action *a)
{
    json_t *all = json_object();
    for (size_t i = 0; i < a->spec->n_variables && !a->ended; i++) {
        const char *name = a->spec->variables[i]->name;
        const struct var *v = action_variable(a, name);
        if (v != NULL && json_object_set_new(all, name, json_stringn(v->value.p, v->value.n)) < 0) {
            action_end_bad(a, REASON_CONFIG_ERROR, "invalid",
                           "the variable %s is no UTF-8, as JSON needs it", name);
        }
    }
    if (a->ended) {
        json_decref(all);
        return NULL;
    }
    return all;
}

/* False: the action has ended. */
static bool ask(struct process *p, struct action *a)
{
    const struct str input = pb_str(a->spec->action->prefork->input);
    json_t *vars = variables(a);
    if (vars == NULL) {
        return false;
    }
    json_t *o = json_pack("{s:I, s:I, s:s, s:s%, s:o}", "id", (json_int_t)(p->jobs + 1), "job",
                          (json_int_t)a->spec->key->job_id, "name", a->spec->name, "input",
                          input.n > 0 ? input.p : "", input.n, "variables", vars);
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (line == NULL) {
        action_end_bad(a, REASON_CONFIG_ERROR, "invalid",
                       "the job's input or name is no UTF-8, as JSON needs it");
        return false;
    }
    buf_clear(&p->to_send);
    buf_addf(&p->to_send, "%s\n", line);
    free(line);
    p->sent = 0;
    p->jobs++;
    return true;
}

/* The job's time is what a process spends on it: waiting for one is the queue's. */
static void give(struct process *p, struct action *a)
{
    struct loop *loop = p->pool->all->loop;
    a->pool = NULL;
    if (!ask(p, a)) {
        return;
    }
    p->job = a;
    a->process = p;
    action_time_begins(a);
    buf_clear(&p->log);
    if (pipe_write(p->in, buf_str(&p->to_send), &p->sent) == 0 && p->sent < p->to_send.n) {
        loop_await(loop, p->in_watch, LOOP_WRITE);
    }
}

static void look_for_work(struct prefork *f)
{
    for (uint32_t i = 0; i < f->config.processes && f->waiting != NULL; i++) {
        struct process *p = &f->processes[i];
        while (p->ready && p->job == NULL && f->waiting != NULL) {
            struct action *a = f->waiting;
            DL_DELETE2(f->waiting, a, pool_prev, pool_next);
            give(p, a);
        }
    }
}

static struct prefork *find(const struct actions *as, const char *name)
{
    for (size_t i = 0; i < as->pool_count; i++) {
        if (strcmp(as->pools[i]->config.name, name) == 0) {
            return as->pools[i];
        }
    }
    return NULL;
}

void action_prefork(struct action *a, const Pb__PreforkAction *what)
{
    struct prefork *f = find(a->all, what->name);
    if (f == NULL) {
        action_end_bad(a, REASON_UNMET_PREREQUISITES, "no_pool",
                       "this worker has no processes for prefork/%.100s", what->name);
        return;
    }
    loop_timer_clear(a->all->loop, &a->job_timer);
    a->pool = f;
    DL_APPEND2(f->waiting, a, pool_prev, pool_next);
    if (f->failed >= FAILED_MAX && !any_ready(f)) {
        fail_waiting(f);
    } else {
        look_for_work(f);
    }
}

void action_prefork_end(struct action *a)
{
    struct process *p = a->process;
    struct prefork *f = a->pool;
    if (p != NULL) {
        (void)take_job(p);
        stop(p);
        start_later(p, 0);
    } else if (f != NULL) {
        DL_DELETE2(f->waiting, a, pool_prev, pool_next);
        a->pool = NULL;
    }
}
