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

void job_count(struct core *c, Pb__JobState state, int delta)
{
    uint64_t *n = &c->meta->job_counts[state];

    check(delta > 0 || *n > 0 || !tx_ok(c->tx));
    *n += (uint64_t)(int64_t)delta;
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
#define COMMAND(CASE, name)        \
    case PB__COMMAND__BODY_##CASE: \
        return apply_##name(c, cmd->name);
#include "broker/core/command.def"
#undef COMMAND
    case PB__COMMAND__BODY_VARIABLES_SET:
        return apply_variables_set(c, cmd->variables_set);
    case PB__COMMAND__BODY_VARIABLE_DELETE:
        return apply_variable_delete(c, cmd->variable_delete);
    case PB__COMMAND__BODY_VARIABLES_REWRAP:
        return apply_variables_rewrap(c, cmd->variables_rewrap);
    case PB__COMMAND__BODY_TOKEN_REVOKE:
        return apply_token_revoke(c, cmd->token_revoke);
    case PB__COMMAND__BODY_TOKENS_USED:
        return apply_tokens_used(c, cmd->tokens_used);
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
    if (c->meta != NULL && c->meta->n_job_counts != JOB_STATE_COUNT) {
        tx_fail(c->tx, -E_CORRUPT);
        return tx_error(c->tx);
    }
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
    c->meta->n_job_counts = JOB_STATE_COUNT;
    c->meta->job_counts = arena_array(c->arena, JOB_STATE_COUNT, sizeof(uint64_t));
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
        while (later_do(c)) { /* what a cancel takes along is not let into a group before */
        }
        locks_pass_on(c);
    } while (c->later_first != NULL);
    classes_close(c);
    trail_note(c, cmd);
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
