#include "common/base.h"

#include "broker/core/query.h"
#include "broker/turn_state.h"
#include "common/log.h"
#include "common/os.h"

/* The way back: what the journal has and the store has not is applied again. The core is a function
 * of store and command, so what comes out is what had been acknowledged. */

struct replay {
    struct turn *t;
    struct effects fx; /* dropped: whoever they were for comes back, or they are derived again */
    struct buf *why;
};

static int apply_again(void *ctx, uint64_t index, struct str packed)
{
    struct replay *r = ctx;
    struct turn *t = r->t;
    ProtobufCMessage *cmd;
    struct reply reply = {.text = ""};

    effects_clear(&r->fx);
    tx_rest(t->tx);
    int e = pb_unpack_own(tx_arena(t->tx), &pb__command__descriptor, packed, &cmd);
    if (e == 0) {
        e = core_apply(t->tx, (Pb__Command *)cmd, &r->fx, &reply);
    }
    if (e < 0 && !tx_ok(t->tx)) {
        buf_addf(r->why, "command %" PRIu64 " of the journal cannot be applied to the store: %s",
                 index, err_text(e));
        return e;
    }
    if (e < 0) {
        buf_addf(r->why, "the store refuses command %" PRIu64 " of the journal: %s: %s", index,
                 err_text(e), reply.text);
        return -E_CORRUPT;
    }
    t->index = index;
    return 0;
}

int turn_replay(struct turn *t, struct buf *why)
{
    struct replay r = {.t = t, .why = why};
    int e = turn_open(t);

    if (e < 0) {
        buf_addf(why, "cannot write the store: %s", err_text(e));
        return e;
    }
    effects_init(&r.fx);
    e = journal_replay(t->journal, t->index, apply_again, &r, why);
    effects_release(&r.fx);
    return e;
}

struct identity {
    uint8_t store_id[JOURNAL_STORE_ID_BYTES]; /* zeros: the store knows nothing yet */
    struct buf secret;
    uint64_t applied;
};

static int read_identity(struct turn *t, struct identity *ret)
{
    struct tx *tx;
    int r = tx_begin(t->c.store, false, &tx);

    if (r < 0) {
        return r;
    }
    const Pb__MetaRecord *meta = meta_get(tx);
    if (meta != NULL && meta->store_id.len == sizeof(ret->store_id)) {
        memcpy(ret->store_id, meta->store_id.data, sizeof(ret->store_id));
        buf_add_str(&ret->secret, pb_str(meta->job_token_key));
        ret->applied = meta->applied_index;
    }
    r = tx_error(tx);
    tx_abort(tx);
    return r;
}

/* What the journal has is in the store after this. */
static int catch_up(struct turn *t, struct buf *why)
{
    const uint64_t start_us = os_monotonic_us();
    const uint64_t before = t->index;
    int r = turn_replay(t, why);

    if (r == 0 && t->index > before) {
        r = tx_save(t->tx);
        if (r < 0) {
            buf_addf(why, "the store cannot commit what the journal has: %s", err_text(r));
        } else {
            log_info("turn: commands of the journal that were applied again: %" PRIu64
                     ", in %" PRIu64 " ms",
                     t->index - before, (os_monotonic_us() - start_us) / 1000);
        }
    }
    tx_abort(t->tx);
    t->tx = NULL;
    return r;
}

/* The store has none at the start, and does not know yet what that means: if this start came to
 * nothing now, the next one would take an empty journal for all that there was. */
static bool begins_later(const struct turn *t, const struct journal *j)
{
    return journal_is_empty(j) && t->index == 0;
}

int turn_open_journal(struct turn *t, struct buf *why)
{
    struct identity id = {.applied = 0};
    struct journal *j;
    int r = read_identity(t, &id);

    if (r < 0) {
        buf_addf(why, "cannot read the store: %s", err_text(r));
        return r;
    }
    const struct journal_options o = {
        .dir = t->c.journal,
        .store_id = id.store_id,
        .secret = buf_str(&id.secret),
        .command_version = COMMAND_VERSION,
        .segment_bytes = t->c.segment_bytes,
    };
    r = journal_open(&o, &j, why);
    buf_release(&id.secret);
    if (r < 0 || id.applied == 0) { /* a store without a name has no journal yet */
        if (r == 0) {
            journal_close(j);
        }
        return r;
    }
    const bool later = begins_later(t, j);
    t->index = id.applied;
    if (later) {
        t->journal_new = true;
        journal_close(j);
    } else {
        t->journal = j;
        r = catch_up(t, why);
    }
    atomic_store(&t->committed, t->index);
    atomic_store(&t->acknowledged, t->index);
    if (r == 0 && !later) {
        r = journal_restart(j, t->index);
        if (r == -E_NO_SPACE) { /* every round commits the store, and tries again */
            log_error("turn: there is no space for the journal %s", t->c.journal);
            r = 0;
        } else if (r < 0) {
            buf_addf(why, "cannot begin the journal %s: %s", t->c.journal, err_text(r));
        }
    }
    if (r < 0) {
        journal_close(j);
        t->journal = NULL;
    }
    return r;
}

static int skip(void *ctx, uint64_t index, struct str packed)
{
    (void)ctx, (void)index, (void)packed;
    return 0;
}

int turn_may_migrate(void *journal_dir, const Pb__MetaRecord *meta, struct buf *why)
{
    const struct journal_options o = {.dir = journal_dir,
                                      .store_id = meta->store_id.data,
                                      .secret = pb_str(meta->job_token_key),
                                      .command_version = COMMAND_VERSION,
                                      .read_only = true};
    struct journal *j;

    if (meta->store_id.len != JOURNAL_STORE_ID_BYTES) {
        return 0; /* it knows nothing yet */
    }
    int r = journal_open(&o, &j, why);
    if (r < 0) {
        return r;
    }
    r = journal_replay(j, meta->applied_index, skip, NULL, why);
    journal_close(j);
    return r;
}
