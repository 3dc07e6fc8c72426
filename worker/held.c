#include "common/base.h"

#include "worker/held.h"

#include <stdlib.h>
#include <utlist.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"
#include "worker/action/action.h"
#include "worker/agent.h"

#define DETAIL_MAX  1000u
#define SHIM_TRIES  2u
#define CLEAR_MS    10000u
#define ACTION_ROOM 1024u /* for the spec of most actions */
#define WHERE_FMT   "job %" PRIu64 " (%s) attempt %" PRIu64 " epoch %" PRIu64
#define WHERE(h)    (h)->key.job_id, (h)->spec->name, (h)->key.attempt, (h)->key.epoch

static struct exec_context context_of(const struct held *h)
{
    const struct agent *a = h->agent;
    return (struct exec_context){
        .worker_name = a->config->name,
        .worker_version = DAVIT_VERSION,
        .worker_id = a->session.worker_id,
        .tags = a->tags_text,
        .builds_dir = a->builds_dir,
        .cache_dir = a->cache_dir,
        .cache_bytes = a->config->cache_bytes,
        .job_dir = h->dir,
        /* Where it has joined is where it can reach the broker. */
        .api_url = a->tls != NULL ? a->config->identity->api_url : a->session.api_url,
        .ca_file = a->tls != NULL ? a->config->identity->ca_path : NULL,
        .shim_program = a->shim_program,
        .step_program = a->step_program,
        .open_files = a->open_files,
        .engine = a->engine,
        .sandbox = &a->sandbox,
        .local_git = a->config->local_git,
        .slot = h->slot,
        .cancel_grace_ms = a->config->cancel_grace_ms,
    };
}

/* The spool, opened once it is there. */
static int read_spool(void *ctx, uint64_t offset, size_t max, struct buf *out)
{
    struct held *h = ctx;
    if (h->is_action) {
        return 0; /* all that it says is said at its end */
    }
    if (!h->spool_open) {
        int r = spool_open(&h->spool, h->dir);
        if (r < 0) {
            return r == -E_NOT_FOUND ? 0 : r;
        }
        h->spool_open = true;
    }
    return spool_read(&h->spool, offset, max, out);
}

static bool is_contained(const Pb__JobSpec *spec)
{
    return (spec->image != NULL && spec->image->name[0] != '\0') || spec->n_services > 0;
}

static const char *executor_name(const struct held *h)
{
    return worker_config_choose(h->agent->config, h->spec->executor, is_contained(h->spec));
}

struct held *held_new(struct agent *a, struct job_key key, bool is_action)
{
    struct held *h = xcalloc(1, sizeof(*h));
    h->agent = a;
    h->key = key;
    h->is_action = is_action;
    if (is_action) {
        arena_init_small(&h->arena, ACTION_ROOM);
    } else {
        h->dir = jobdir_path(a->jobs_dir, key);
        arena_init(&h->arena, 0);
    }
    return h;
}

static void unwatch(struct held *h)
{
    loop_unwatch(h->agent->loop, h->folder_watch);
    loop_unwatch(h->agent->loop, h->process_watch);
    h->folder_watch = NULL;
    h->process_watch = NULL;
}

void held_free(struct held *h)
{
    if (h == NULL) {
        return;
    }
    unwatch(h);
    if (h->action != NULL) {
        action_cancel(h->action);
    }
    if (h->spool_open) {
        spool_close(&h->spool);
    }
    logship_release(&h->log);
    arena_release(&h->arena);
    free(h->dir);
    free(h);
}

/* Completes a new object, which the agent has from now on. */
void held_listed(struct held *h, bool fresh)
{
    struct agent *a = h->agent;
    logship_init(&h->log, read_spool, h, fresh);
    if (h->is_action) {
        h->quiet = true;
        DL_APPEND(a->quiet, h);
        HASH_ADD(hh, a->actions_by_job, key.job_id, sizeof(h->key.job_id), h);
    } else {
        h->executor = executor_by_name(executor_name(h));
        DL_APPEND(a->jobs, h);
    }
}

int held_accept(struct agent *a, const Pb__JobSpec *spec, struct held **ret)
{
    struct held *h = held_new(a, job_key_of(spec->key), false);
    h->slot = agent_free_slot(a);
    int r = jobdir_create(h->dir, h->slot, spec);
    if (r < 0) {
        held_free(h);
        return r;
    }
    h->spec = (Pb__JobSpec *)pb_copy(&h->arena, &spec->base);
    held_listed(h, true);
    *ret = h;
    return 0;
}

static void on_folder(void *ctx)
{
    struct held *h = ctx;
    h->fresh_output = true;
    agent_pump_soon(h->agent);
}

static void on_process(void *ctx)
{
    held_look(ctx);
}

static void watch(struct held *h)
{
    pid_t pid;
    h->folder_watch = loop_watch_folder(h->agent->loop, h->dir, on_folder, h);
    if (jobdir_shim_pid(h->dir, &pid) == 0 && shim_alive(h->dir)) {
        h->process_watch = loop_watch_process(h->agent->loop, pid, on_process, h);
    }
}

/* The job has ended, now or in an earlier process: what follows its spool in the log is known. */
static void enter_ended(struct held *h, Pb__Outcome *outcome)
{
    struct shim_status status;
    struct buf tail = BUF_INIT;
    if (shim_status_read(h->dir, &status) == 0 && shim_tail_read(h->dir, &status, &tail) < 0) {
        log_error(WHERE_FMT ": the end of its log cannot be read", WHERE(h));
    }
    jobdir_note(h->dir, &tail);
    logship_end(&h->log, buf_str(&tail));
    buf_release(&tail);
    unwatch(h);
    h->phase = HELD_ENDED;
    h->outcome = outcome;
    h->fresh_output = true;
    agent_pump_soon(h->agent);
}

static const char *result_text(const Pb__Outcome *o)
{
    return o->result == JOB_SUCCESS ? "success" : o->result == JOB_CANCELED ? "canceled" : "failed";
}

/* A bounded copy that is good UTF-8, as the wire demands: it may quote file names. */
char *held_text(struct arena *arena, const char *text)
{
    struct str s = str_sub(str_from(text), 0, DETAIL_MAX);
    char *copy = arena_strdup(arena, s);
    size_t bad;
    while (!str_is_utf8(str_of(copy, s.n), &bad)) {
        copy[bad] = '?';
    }
    return copy;
}

static void end(struct held *h, Pb__Outcome *outcome, struct str note)
{
    outcome->detail = held_text(&h->arena, outcome->detail);
    log_info(WHERE_FMT " ended: %s%s%s", WHERE(h), result_text(outcome),
             outcome->detail[0] != '\0' ? ": " : "", outcome->detail);
    int r = jobdir_end(h->dir, outcome, note);
    if (r < 0) {
        /* Goes on all the same: a new process would find the shim's files and end here again. */
        log_error(WHERE_FMT ": cannot write down its end: %s", WHERE(h), err_text(r));
    }
    agent_job_ended(h->agent, outcome->reason == REASON_SYSTEM_FAILURE);
    enter_ended(h, (Pb__Outcome *)pb_copy(&h->arena, &outcome->base));
}

/* Ends the job with a failure that is none of its script's, said in its log too. */
static void fail(struct held *h, Pb__Reason reason, const char *detail)
{
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    outcome.result = JOB_FAILED;
    outcome.reason = reason;
    outcome.detail = held_text(&h->arena, detail);
    const char *line_end = h->ran ? "\n" : "";
    end(h, &outcome, str_from(arena_printf(&h->arena, "%sdavit: %s\n", line_end, outcome.detail)));
}

/* A folder that never was, or no longer is, a job's: nothing of it may run on. */
static void clear_away(const char *dir)
{
    if (shim_alive(dir)) {
        (void)shim_control(dir, 'k');
    } else {
        (void)shim_kill_leftovers(dir);
    }
    int r = os_remove_tree(dir);
    if (r < 0) {
        log_warn("cannot remove %s: %s", dir, err_text(r));
    }
}

void held_adopt(struct agent *a, const char *folder_name)
{
    struct job_key key;
    struct jobdir found;
    if (jobdir_parse(folder_name, &key) < 0) {
        log_warn("jobs/%s is no job's folder: left alone", folder_name);
        return;
    }
    struct held *h = held_new(a, key, false);
    int r = jobdir_load(h->dir, &h->arena, &found);
    if (r < 0) {
        log_warn("jobs/%s: %s: removed", folder_name,
                 r == -E_NOT_FOUND ? "half-written" : err_text(r));
        clear_away(h->dir);
        held_free(h);
        return;
    }
    h->slot = found.slot;
    h->spec = found.spec;
    h->ran = found.started;
    held_listed(h, false);
    log_info(WHERE_FMT " is taken over", WHERE(h));
    if (found.outcome != NULL) {
        enter_ended(h, found.outcome);
    } else if (found.started) {
        h->phase = HELD_RUNNING;
        watch(h);
        held_look(h);
    }
}

static bool is_configured(const struct held *h)
{
    return h->executor != NULL && worker_config_has_executor(h->agent->config, executor_name(h));
}

static void refuse(struct held *h, int r, struct buf *why)
{
    bool wishes = r == -E_UNSUPPORTED;
    bool config = r == -E_INVALID || r == -E_LIMIT || r == -E_TOO_BIG;
    Pb__Reason reason = wishes   ? REASON_UNMET_PREREQUISITES
                        : config ? REASON_CONFIG_ERROR
                                 : REASON_SYSTEM_FAILURE;
    fail(h, reason, why->n > 0 ? buf_cstr(why) : err_text(r));
}

/* What davit-shim complained of before it ended. */
static void add_shim_errors(const struct held *h, struct buf *why)
{
    struct buf text = BUF_INIT;
    char *path = os_path_join(h->dir, "errors");
    if (os_read_file(path, DETAIL_MAX, &text) == 0) {
        struct str line = str_trim(buf_str(&text));
        buf_addf(why, "%s" STR_FMT, line.n > 0 ? ": " : "", STR_ARG(line));
    }
    free(path);
    buf_release(&text);
}

/* A shim that ends before it wrote its pid has run nothing, so there may be a second one. With the
 * pid there, the folder is run, once for all: perhaps by a shim that an earlier process of ours
 * started just before it was killed. */
static int start_shim(struct held *h, const struct exec_context *cx, struct buf *why)
{
    pid_t pid;
    int r = -E_FAILED;
    for (uint32_t tries = 0; tries < SHIM_TRIES && r < 0; tries++) {
        r = h->executor->start(cx, &pid);
        if (r < 0 && jobdir_shim_pid(h->dir, &pid) == 0) {
            r = 0;
        }
    }
    if (r < 0) {
        (void)h->executor->cleanup(cx); /* it has run nothing */
        buf_addf(why, "davit-shim did not start: %s", err_text(r));
        add_shim_errors(h, why);
        return -E_INTERNAL;
    }
    return 0;
}

/* The broker turns them into variables, all or none. */
static bool lacks_tokens(const struct held *h, struct buf *why)
{
    if (h->spec->n_id_tokens == 0) {
        return false;
    }
    buf_addf(why,
             "the job's id_tokens cannot be made: each `aud`, once its variables are expanded, is "
             "a text of at most %u bytes, and all tokens together fit into the job",
             LIMIT_ID_TOKEN_AUDIENCE);
    return true;
}

/* Likewise: what the broker could not open is still sealed. */
static bool lacks_variables(const struct held *h, struct buf *why)
{
    for (size_t i = 0; i < h->spec->n_variables; i++) {
        if (h->spec->variables[i]->sealed.len > 0) {
            buf_addf(
                why,
                "the broker could not give the job its stored variable `%s`: its master key is "
                "not known, or all of them together are too large for a job",
                h->spec->variables[i]->name);
            return true;
        }
    }
    return false;
}

bool held_lacks(const struct held *h, struct buf *why)
{
    return lacks_tokens(h, why) || lacks_variables(h, why);
}

void held_start(struct held *h)
{
    check(h->phase == HELD_WAITING);
    struct exec_context cx = context_of(h);
    struct buf why = BUF_INIT;
    if (held_lacks(h, &why)) {
        refuse(h, -E_INVALID, &why);
        buf_release(&why);
        return;
    }
    if (!is_configured(h)) {
        buf_addf(&why, "this worker has no executor `%s`%s", executor_name(h),
                 is_contained(h->spec) ? ", which the job's image or services may need" : "");
        refuse(h, -E_UNSUPPORTED, &why);
        buf_release(&why);
        return;
    }
    int r = h->executor->prepare(&cx, h->spec, &why);
    if (r == 0) {
        r = start_shim(h, &cx, &why);
    }
    if (r < 0) {
        refuse(h, r, &why);
    } else {
        log_info(WHERE_FMT " runs in slot %" PRIu32, WHERE(h), h->slot);
        h->phase = HELD_RUNNING;
        h->ran = true;
        watch(h);
        held_tell(h);
        held_look(h);
    }
    buf_release(&why);
}

void held_ready(struct held *h)
{
    check(h->phase == HELD_WAITING);
    h->ready = true;
    agent_start_soon(h->agent);
}

/* Tells the shim what is wanted. It may not listen yet, or no more: tried again at every look. */
static void control(struct held *h)
{
    struct exec_context cx = context_of(h);
    if (h->cancel > h->cancel_told &&
        h->executor->cancel(&cx, h->cancel == HELD_CANCEL_FORCE) == 0) {
        h->cancel_told = h->cancel;
    }
}

/* A job that was taken over unstarted may have been started at the very end of the process before
 * us, by a shim that was slow to say so. From here on it is known: it runs, or it never will. */
static void settle_start(struct held *h)
{
    if (h->phase == HELD_WAITING && !jobdir_claim(h->dir)) {
        h->phase = HELD_RUNNING;
        h->ran = true;
        watch(h);
    }
}

void held_cancel(struct held *h, enum held_cancel how)
{
    if (h->is_action) {
        held_cancel_action(h);
        return;
    }
    settle_start(h);
    if (h->phase == HELD_WAITING) {
        Pb__Outcome outcome = PB__OUTCOME__INIT;
        outcome.result = JOB_CANCELED;
        end(h, &outcome, STR_NULL);
    } else if (h->phase == HELD_RUNNING && how > h->cancel) {
        log_info(WHERE_FMT " is canceled%s", WHERE(h), how == HELD_CANCEL_FORCE ? " by force" : "");
        h->cancel = how;
        control(h);
    }
}

void held_give_back(struct held *h)
{
    check(h->phase == HELD_WAITING);
    settle_start(h);
    if (h->phase == HELD_WAITING) {
        h->phase = HELD_RETURNING;
    }
    held_tell(h);
}

void held_fence(struct held *h)
{
    if (!h->is_action) {
        settle_start(h);
    }
    bool runs = h->phase == HELD_RUNNING && !h->is_action;
    if (h->phase == HELD_FENCED) {
        return;
    }
    log_warn(WHERE_FMT " is not ours any more", WHERE(h));
    h->phase = HELD_FENCED;
    if (!runs) {
        held_forget(h);
        return;
    }
    h->cancel = HELD_CANCEL_FORCE;
    held_look(h);
}

void held_forget(struct held *h)
{
    struct agent *a = h->agent;
    int r = h->is_action ? 0 : os_remove_tree(h->dir);
    if (r < 0) {
        log_warn(WHERE_FMT ": cannot remove its folder: %s", WHERE(h), err_text(r));
    }
    if (h->is_action) {
        HASH_DEL(a->actions_by_job, h);
    }
    if (h->quiet) {
        DL_DELETE(a->quiet, h);
    } else {
        DL_DELETE(a->jobs, h);
    }
    held_free(h);
    agent_job_gone(a);
}

/* Kills what is left, a little at every look, so that other jobs and the lease go on meanwhile. A
 * process that no signal ends is given up in the end. */
static bool cleared(struct held *h, const struct exec_context *cx)
{
    if (h->executor->cleanup(cx)) {
        return true;
    }
    uint64_t now_ms = os_monotonic_ms();
    if (h->clear_until_ms == 0) {
        h->clear_until_ms = now_ms + CLEAR_MS;
    }
    if (now_ms < h->clear_until_ms) {
        return false;
    }
    log_error(WHERE_FMT ": some process of it cannot be killed", WHERE(h));
    return true;
}

/* The shim has ended. */
static void process_ended(struct held *h, const struct shim_status *status)
{
    struct exec_context cx = context_of(h);
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    if (h->phase == HELD_RUNNING && status != NULL) {
        exec_outcome(&cx, h->spec, status, &h->arena, &outcome);
    }
    if (!cleared(h, &cx)) {
        return;
    }
    if (h->phase == HELD_FENCED) {
        held_forget(h);
    } else if (status != NULL) {
        end(h, &outcome, STR_NULL);
    } else {
        /* Nobody knows how it would have ended: the broker runs it again, as for a lost worker. */
        fail(h, REASON_WORKER_LOST,
             "davit-shim, which watched over this job, is gone; what was left of the job was "
             "killed");
    }
}

void held_look(struct held *h)
{
    if (h->is_action || (h->phase != HELD_RUNNING && h->phase != HELD_FENCED)) {
        return;
    }
    struct exec_context cx = context_of(h);
    struct shim_status status;
    /* In this order: the shim writes its status before it ends. */
    bool alive = h->executor->alive(&cx);
    int r = shim_status_read(h->dir, &status);
    if (r == 0) {
        process_ended(h, &status);
    } else if (!alive) {
        process_ended(h, NULL);
    } else {
        control(h);
    }
}
