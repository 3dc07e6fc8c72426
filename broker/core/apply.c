#include "common/base.h"

#include "broker/core/apply.h"
#include "broker/core/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void effects_init(struct effects *fx)
{
    *fx = (struct effects){0};
}

void effects_release(struct effects *fx)
{
    free(fx->items);
    free(fx->changes);
    effects_init(fx);
}

void effects_clear(struct effects *fx)
{
    fx->count = 0;
    fx->change_count = 0;
}

void effects_truncate(struct effects *fx, size_t count)
{
    check(count <= fx->count);
    fx->count = count;
}

void effect_add(struct effects *fx, struct effect e)
{
    if (fx->count == fx->cap) {
        fx->cap = MAX(2 * fx->cap, 16);
        fx->items = xrealloc(fx->items, fx->cap * sizeof(*fx->items));
    }
    fx->items[fx->count++] = e;
}

void queue_change_add(struct effects *fx, const struct queue_change *q)
{
    if (fx->change_count == fx->change_cap) {
        fx->change_cap = MAX(2 * fx->change_cap, 16);
        fx->changes = xrealloc(fx->changes, fx->change_cap * sizeof(*fx->changes));
    }
    fx->changes[fx->change_count++] = *q;
}

int reject(struct core *c, int r, const char *fmt, ...)
{
    va_list ap;

    check(r < 0);
    va_start(ap, fmt);
    vsnprintf(c->reply->text, sizeof(c->reply->text), fmt, ap);
    va_end(ap);
    text_mend(c->reply->text); /* a cut name may end within a character */
    return r;
}

uint64_t core_new_id(struct core *c)
{
    return c->meta->next_id++;
}

ProtobufCMessage *core_row(struct core *c, enum table t, const struct key *k,
                           const ProtobufCMessageDescriptor *desc)
{
    ProtobufCMessage *m = tx_get_msg(c->tx, t, k, desc);

    if (m == NULL) {
        tx_fail(c->tx, -E_CORRUPT);
        m = arena_alloc(c->arena, desc->sizeof_message);
        protobuf_c_message_init(desc, m);
    }
    return m;
}

static int dispatch(struct core *c, const Pb__Command *cmd)
{
    switch (cmd->body_case) {
    case PB__COMMAND__BODY_INIT_STORE:
        return apply_init_store(c, cmd->init_store);
    case PB__COMMAND__BODY_PROJECT_CREATE:
        return apply_project_create(c, cmd->project_create);
    case PB__COMMAND__BODY_PIPELINE_CREATE:
        return apply_pipeline_create(c, cmd->pipeline_create);
    case PB__COMMAND__BODY_JOBS_ENQUEUE:
        return apply_jobs_enqueue(c, cmd->jobs_enqueue);
    case PB__COMMAND__BODY_PIPELINE_CANCEL:
        return apply_pipeline_cancel(c, cmd->pipeline_cancel);
    case PB__COMMAND__BODY_PIPELINE_RETRY:
        return apply_pipeline_retry(c, cmd->pipeline_retry);
    case PB__COMMAND__BODY_JOB_CANCEL:
        return apply_job_cancel(c, cmd->job_cancel);
    case PB__COMMAND__BODY_JOB_RETRY:
        return apply_job_retry(c, cmd->job_retry);
    case PB__COMMAND__BODY_JOB_PLAY:
        return apply_job_play(c, cmd->job_play);
    case PB__COMMAND__BODY_WORKER_HELLO:
        return apply_worker_hello(c, cmd->worker_hello);
    case PB__COMMAND__BODY_WORKER_SET:
        return apply_worker_set(c, cmd->worker_set);
    case PB__COMMAND__BODY_ASSIGN:
        return apply_assign(c, cmd->assign);
    case PB__COMMAND__BODY_ASSIGN_ACKED:
        return apply_assign_acked(c, cmd->assign_acked);
    case PB__COMMAND__BODY_JOB_STARTED:
        return apply_job_started(c, cmd->job_started);
    case PB__COMMAND__BODY_JOB_FINISHED:
        return apply_job_finished(c, cmd->job_finished);
    case PB__COMMAND__BODY_JOBS_FINISHED:
        return apply_jobs_finished(c, cmd->jobs_finished);
    case PB__COMMAND__BODY_JOB_LOST:
        return apply_job_lost(c, cmd->job_lost);
    case PB__COMMAND__BODY_JOB_RETURNED:
        return apply_job_returned(c, cmd->job_returned);
    case PB__COMMAND__BODY_WORKER_RECLAIMED:
        return apply_worker_reclaimed(c, cmd->worker_reclaimed);
    case PB__COMMAND__BODY_TIMER_FIRED:
        return apply_timer_fired(c, cmd->timer_fired);
    case PB__COMMAND__BODY_TOKEN_ADD:
        return apply_token_add(c, cmd->token_add);
    case PB__COMMAND__BODY_TRIGGER_FAILED:
        return apply_trigger_failed(c, cmd->trigger_failed);
    case PB__COMMAND__BODY_ENVIRONMENT_STOP:
        return apply_environment_stop(c, cmd->environment_stop);
    case PB__COMMAND__BODY_CACHE_SET:
        return apply_cache_set(c, cmd->cache_set);
    case PB__COMMAND__BODY_CLOCK_JUMPED:
        return apply_clock_jumped(c, cmd->clock_jumped);
    case PB__COMMAND__BODY_EXPIRE:
        return apply_expire(c, cmd->expire);
    case PB__COMMAND__BODY_POOL_SET:
        return apply_pool_set(c, cmd->pool_set);
    case PB__COMMAND__BODY_POOL_DELETE:
        return apply_pool_delete(c, cmd->pool_delete);
    case PB__COMMAND__BODY_PROJECT_SET:
        return apply_project_set(c, cmd->project_set);
    case PB__COMMAND__BODY_RESOURCE_GROUP_SET:
        return apply_resource_group_set(c, cmd->resource_group_set);
    case PB__COMMAND__BODY_JOB_PREEMPT:
        return apply_job_preempt(c, cmd->job_preempt);
    case PB__COMMAND__BODY__NOT_SET:
    case _PB__COMMAND__BODY__CASE_IS_INT_SIZE:
    default:
        return reject(c, -E_UNSUPPORTED, "unknown command %u", (unsigned)cmd->body_case);
    }
}

/* Reads the meta row, or starts one for the command that makes the store. */
static int open_meta(struct core *c, const Pb__Command *cmd)
{
    const struct key k = meta_key();

    c->meta = (Pb__MetaRecord *)tx_get_msg(c->tx, T_META, &k, &pb__meta_record__descriptor);
    if (c->meta != NULL) {
        return 0;
    }
    if (!tx_ok(c->tx)) {
        return tx_error(c->tx);
    }
    if (cmd->body_case != PB__COMMAND__BODY_INIT_STORE) {
        return reject(c, -E_CONFLICT, "the store was not initialised");
    }
    c->meta = arena_alloc(c->arena, sizeof(*c->meta));
    pb__meta_record__init(c->meta);
    return 0;
}

static int apply(struct core *c, const Pb__Command *cmd)
{
    const struct key k = meta_key();
    int r;

    if (cmd->version != COMMAND_VERSION) {
        return reject(c, -E_VERSION, "command version %u", cmd->version);
    }
    if (cmd->time_ms == 0) {
        return reject(c, -E_INVALID, "a command without a time");
    }
    r = open_meta(c, cmd);
    if (r < 0) {
        return r;
    }
    r = dispatch(c, cmd);
    if (r < 0) {
        return r;
    }
    do {
        locks_pass_on(c);
    } while (later_do(c));
    classes_close(c);
    c->meta->applied_index++;
    c->meta->time_ms = MAX(c->meta->time_ms, c->now_ms);
    tx_put_msg(c->tx, T_META, &k, &c->meta->base);
    c->reply->text[0] = '\0'; /* of a part that came to nothing */
    return tx_error(c->tx);
}

int core_apply(struct tx *tx, const Pb__Command *cmd, struct effects *fx, struct reply *reply)
{
    const size_t effects_before = fx->count;
    const uint64_t changes_before = tx_changes(tx);
    const size_t queue_before = fx->change_count;
    struct core c = {
        .tx = tx,
        .arena = tx_arena(tx),
        .fx = fx,
        .reply = reply,
        .now_ms = cmd->time_ms,
        .actor = cmd->actor,
    };
    int r;

    *reply = (struct reply){0};
    if (!tx_ok(tx)) {
        return tx_error(tx);
    }
    c.freed_end = &c.freed_first;
    c.later_end = &c.later_first;
    r = apply(&c, cmd);
    if (r == 0) {
        return 0;
    }
    if (!tx_ok(tx)) { /* the whole transaction is lost, and with it what was begun here */
        effects_truncate(fx, effects_before);
        fx->change_count = queue_before;
        return tx_error(tx);
    }
    check(tx_changes(tx) == changes_before);
    check(fx->count == effects_before && fx->change_count == queue_before);
    return r;
}
