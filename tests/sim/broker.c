#include "common/base.h"

#include <stdlib.h>

#include "common/crypto.h"
#include "tests/sim/sim.h"

/* The broker's life: started, stepped, killed, started again on what the disk has. */

#define REAL_START_MS 1000000000000ull /* some day in 2001 */
#define DAY_MS        86400000ull
#define ZONE_MS       1000000000ull /* the monotonic clock is another one */

int __real_tx_save(struct tx *tx);
int __wrap_tx_save(struct tx *tx);
void __real_tx_abort(struct tx *tx);
void __wrap_tx_abort(struct tx *tx);
int __real_core_apply(struct tx *tx, const Pb__Command *cmd, struct effects *fx,
                      struct reply *reply);
int __wrap_core_apply(struct tx *tx, const Pb__Command *cmd, struct effects *fx,
                      struct reply *reply);

static void clocks(void *ctx, uint64_t *ret_real_ms, uint64_t *ret_mono_ms)
{
    *ret_mono_ms = ZONE_MS + sim->now_us / SIM_MS;
    *ret_real_ms = broker_real_ms();
}

uint64_t broker_real_ms(void)
{
    return (uint64_t)((int64_t)(REAL_START_MS + sim->now_us / SIM_MS) + sim->clock_off_ms);
}

static char *job_token(struct str key, uint64_t job_id, uint64_t attempt, uint64_t epoch)
{
    return xstrdup("a token");
}

static void log_is_durable(void *ctx, uint64_t job_id, uint64_t attempt, uint64_t epoch,
                           uint64_t durable)
{
    struct item *item = item_new(ITEM_LOG);

    item->job_id = job_id;
    item->attempt = attempt;
    item->epoch = epoch;
    item->durable = durable;
    inbox_push_event(sim->inbox, item);
    broker_wish(sim->now_us + below(300));
}

void broker_wish(uint64_t at_us)
{
    at_us = MAX(at_us, sim->now_us);
    if (sim->up && at_us < sim->wish_us) {
        sim->wish_us = at_us;
        event_add_us(at_us, EV_BROKER, 0, ++sim->wish);
    }
}

/* ---- what passes between the turn and the store ---- */

static size_t packed_at(uint64_t index)
{
    return sim->log_ends[index] + sizeof(uint32_t);
}

static void remember(const Pb__Command *cmd)
{
    const size_t at = sim->model->applied;

    if (at + 1 >= sim->log_ends_cap) {
        sim->log_ends_cap = 2 * sim->log_ends_cap + 256;
        sim->log_ends = xrealloc(sim->log_ends, sim->log_ends_cap * sizeof(*sim->log_ends));
        sim->log_ends[0] = 0;
    }
    const uint32_t size = (uint32_t)protobuf_c_message_get_packed_size(&cmd->base);
    buf_truncate(&sim->log, sim->log_ends[at]);
    buf_add(&sim->log, &size, sizeof(size));
    PB_PACK(cmd, &sim->log);
    sim->log_ends[at + 1] = sim->log.n;
}

/* A command that was applied before comes from the journal: it must be that very one. */
static int apply_again(struct tx *tx, const Pb__Command *cmd, struct effects *fx,
                       struct reply *reply)
{
    const size_t at = packed_at(sim->store_index);
    const size_t size = sim->log_ends[sim->store_index + 1] - at;
    struct buf packed = BUF_INIT;

    PB_PACK(cmd, &packed);
    if (packed.n != size || memcmp(packed.p, sim->log.p + at, size) != 0) {
        breach_now("command %" PRIu64 " of the journal is not the one that was applied",
                   sim->store_index + 1);
    }
    buf_release(&packed);
    const int r = __real_core_apply(tx, cmd, fx, reply);
    sim->tx = tx;
    sim->store_index += r == 0;
    sim->replayed += r == 0;
    return r;
}

/* Whose answer is waited for no longer gets no new work for a while. */
static void note_fences(const struct effects *fx, size_t from)
{
    for (size_t i = from; i < fx->count; i++) {
        const struct effect *e = &fx->items[i];
        for (uint32_t k = 0; e->kind == EFFECT_CANCEL && k < sim->worker_count; k++) {
            if (sim->workers[k].worker_id == e->worker_id &&
                e->cancel_kind == PB__CANCEL_KIND__CANCEL_FENCED && !e->displaced) {
                sim->workers[k].fenced_us = sim->now_us;
            }
        }
    }
}

int __wrap_core_apply(struct tx *tx, const Pb__Command *cmd, struct effects *fx,
                      struct reply *reply)
{
    const size_t effects = fx->count;

    if (!sim->watching) {
        return __real_core_apply(tx, cmd, fx, reply);
    }
    if (sim->store_index < sim->model->applied) {
        return apply_again(tx, cmd, fx, reply);
    }
    const int want = model_foretell(sim->model, cmd);
    remember(cmd);
    const int r = __real_core_apply(tx, cmd, fx, reply);
    sim->commands++;
    sim->refused += r < 0;
    hash_in(&r, sizeof(r));
    trace("core: %" PRIu64 ": command %d by %s: %s %s", sim->model->applied + (r == 0),
          (int)cmd->body_case, cmd->actor, err_code(r), r < 0 ? reply->text : "");
    if (!tx_ok(tx)) {
        sim->tx = tx;
        return r;
    }
    if (r != want) {
        breach_now("command %d by %s: %s (%s), it should be %s", (int)cmd->body_case, cmd->actor,
                   err_code(r), reply->text, err_code(want));
    }
    if (r == 0) {
        sim->tx = tx;
        sim->store_index++;
        note_fences(fx, effects);
        model_apply(sim->model, cmd, reply, tx);
        model_compare(sim->model, tx);
        if (sim->paranoid || sim->commands % sim->swarm.audit == 0) {
            watch_audit(tx);
        }
    }
    return r;
}

static void undo(void)
{
    sim->tx = NULL;
    sim->store_index = sim->saved_index;
    sim->given_unsure = true;
    while (sim->end_count > 0 && sim->ends[sim->end_count - 1].index > sim->written->applied) {
        sim->end_count--;
    }
    model_copy(sim->model, sim->swarm.relaxed_ms != 0 ? sim->written : sim->mark);
}

static void keep_past(void)
{
    if (sim->past_count == sim->past_cap) {
        sim->past_cap = MAX(16u, 2 * sim->past_cap);
        sim->past = xrealloc(sim->past, sim->past_cap * sizeof(struct model *));
        for (size_t i = sim->past_count; i < sim->past_cap; i++) {
            sim->past[i] = xcalloc(1, sizeof(struct model));
        }
    }
    model_copy(sim->past[sim->past_count++], sim->written);
}

void broker_written(void)
{
    if (sim->swarm.relaxed_ms != 0 && sim->written->applied != sim->mark->applied) {
        keep_past();
    }
    if (sim->unflushed_us == 0 && sim->model->applied != sim->mark->applied) {
        sim->unflushed_us = sim->now_us;
    }
    model_copy(sim->written, sim->model);
}

void broker_flushed(void)
{
    model_copy(sim->mark, sim->written);
    sim->durable_index = sim->mark->applied;
    sim->past_count = 0;
    sim->unflushed_us = 0;
}

/* Nothing gets out before it is safe; where durability is relaxed, before the kernel has it. */
void broker_acknowledge(const char *what)
{
    const uint64_t safe = sim->swarm.relaxed_ms != 0 ? sim->written->applied : sim->durable_index;

    if (sim->model->applied > safe) {
        breach_now("%s leaves before what it tells of is safe", what);
    }
    sim->acknowledged_index = sim->model->applied;
}

/* Before, after, or in the midst of a commit nothing may go wrong that cannot be mended. */
int __wrap_tx_save(struct tx *tx)
{
    if (!sim->watching) {
        return __real_tx_save(tx);
    }
    if (sim->dead) {
        return -E_IO;
    }
    if (tx_ok(tx) && strikes(sim->swarm.full)) {
        trace("disk: no space for a commit");
        sim->rest_us = sim->now_us + 3 * SIM_SECOND;
        tx_fail(tx, one_in(2) ? -E_NO_SPACE : -E_FULL);
        return tx_error(tx);
    }
    const bool eio = tx_ok(tx) && strikes(sim->swarm.eio);
    const bool kill = tx_ok(tx) && strikes(sim->swarm.kill_in_turn);
    sim->dead = eio || kill;
    if (sim->dead && one_in(2)) {
        trace("broker: killed before a commit");
        tx_fail(tx, -E_IO);
        return -E_IO;
    }
    const int r = __real_tx_save(tx);
    if (r < 0) {
        trace("disk: a commit fails: %s", err_text(r));
        sim->rest_us = sim->now_us + 3 * SIM_SECOND;
        return r;
    }
    trace("store: has %" PRIu64 " commands%s", sim->store_index, sim->dead ? ", and dies" : "");
    sim->saved_index = sim->store_index;
    if (sim->store_index == sim->model->applied) {
        broker_written();
        broker_flushed();
    }
    return eio ? -E_IO : 0;
}

void __wrap_tx_abort(struct tx *tx)
{
    if (sim != NULL && tx != NULL && tx == sim->tx) {
        undo();
    }
    __real_tx_abort(tx);
}

/* ---- life ---- */

static void open_store(void)
{
    const struct store_options opt = {
        .map_bytes = sim->swarm.map_kib != 0 ? sim->swarm.map_kib * 1024ull : 64ull << 20};
    struct buf why = BUF_INIT;
    const int r = store_open(sim->dir, &opt, &sim->store, &why);

    if (r < 0) {
        breach_now("the store cannot be opened: %s", buf_cstr(&why));
    }
    buf_release(&why);
}

/* What the store alone has. */
static void look_at_the_store(void)
{
    struct tx *tx;

    check(tx_begin(sim->store, false, &tx) == 0);
    const Pb__MetaRecord *meta = meta_get(tx);
    sim->store_index = sim->saved_index = meta != NULL ? meta->applied_index : 0;
    tx_abort(tx);
}

/* With relaxed durability what was not flushed is there up to some record, when the power goes. */
static const struct model *past_at(uint64_t applied)
{
    if (applied == sim->written->applied) {
        return sim->written;
    }
    for (size_t i = 0; i < sim->past_count; i++) {
        if (sim->past[i]->applied == applied) {
            return sim->past[i];
        }
    }
    return applied == sim->mark->applied ? sim->mark : NULL;
}

/* Who has heard of what is gone begins anew; the world knows of it only what is there. */
static void lose_the_future(void)
{
    trace("broker: has lost %" PRIu64 " commands that were acknowledged",
          sim->acknowledged_index - sim->model->applied);
    sim->losses++;
    sim->acknowledged_index = sim->model->applied;
    while (sim->end_count > 0 && sim->ends[sim->end_count - 1].index > sim->model->applied) {
        sim->end_count--;
    }
    user_was_lost();
    logs_were_lost();
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        worker_was_lost(&sim->workers[i]);
    }
    for (uint32_t i = 0; i < sim->swarm.clients; i++) {
        client_restart(&sim->clients[i]);
    }
}

/* What a kill has left is what was safe, and perhaps what was being made safe, and nothing else. */
static void look_at_the_past(void)
{
    struct tx *tx;

    check(tx_begin(sim->store, false, &tx) == 0);
    const Pb__MetaRecord *meta = meta_get(tx);
    const uint64_t applied = meta != NULL ? meta->applied_index : 0;
    const struct model *m = past_at(applied);
    const bool lost = applied < sim->acknowledged_index;
    if (m == NULL || (lost && (sim->swarm.relaxed_ms == 0 || !sim->power_gone))) {
        breach_now("%" PRIu64 " commands are there after a start; %" PRIu64 " were safe, %" PRIu64
                   " written, %" PRIu64 " acknowledged",
                   applied, sim->mark->applied, sim->written->applied, sim->acknowledged_index);
    }
    model_copy(sim->model, m);
    model_copy(sim->written, sim->model);
    broker_flushed();
    if (lost) {
        lose_the_future();
    }
    sim->power_gone = false;
    if (applied > 0) {
        model_compare_all(sim->model, tx);
    }
    tx_abort(tx);
}

/* False: it could not start, and will try again. */
static bool start_turn(void)
{
    const struct turn_config turn = {.store = sim->store,
                                     .bus = sim->bus,
                                     .inbox = sim->inbox,
                                     .fleet = sim->fleet,
                                     .clock = clocks,
                                     .journal = sim->swarm.segment_kib != 0 ? "journal" : NULL,
                                     .segment_bytes = sim->swarm.segment_kib * 1024ull,
                                     .trigger = {.start = trigger_wish},
                                     .relaxed_ms = sim->swarm.relaxed_ms,
                                     .keep_pipelines_ms = sim->swarm.keep_s * 1000ull};
    struct buf why = BUF_INIT;

    model_copy(sim->model, sim->written); /* what the journal may know */
    sim->watching = true;
    const int r = turn_new(&turn, &sim->turn, &why);
    trace("broker: the turn starts: %s %s", err_code(r), buf_cstr(&why));
    if (r < 0 && !sim->dead && (r != -E_IO || !sim->faults) && r != -E_FULL && r != -E_NO_SPACE) {
        breach_now("the broker does not start: %s", buf_cstr(&why));
    }
    buf_release(&why);
    return r == 0 && !sim->dead;
}

void broker_start(void)
{
    struct buf why = BUF_INIT;
    uint16_t port;

    check(!sim->up);
    sim->dead = false;
    open_store();
    look_at_the_store();
    sim->bus = bus_new();
    sim->inbox = inbox_new();
    check(logs_open("", log_is_durable, NULL, &sim->logs_door, &why) == 0);
    const struct fleet_config fleet = {
        .inbox = sim->inbox, .logs = sim->logs_door, .job_token = job_token};
    sim->fleet = fleet_new(&fleet);
    sim->up = true;
    sim->turn = NULL;
    if (!start_turn()) {
        broker_kill("at its start");
        return;
    }
    look_at_the_past();
    check(fleet_listen(sim->fleet, "tcp://broker", "http://broker", &port, &why) == 0);
    sim->starts++;
    sim->wish_us = SIM_NEVER;
    sim->idle_job = 0;
    trace("broker: starts, with %" PRIu64 " commands", sim->durable_index);
    broker_wish(sim->now_us + below(20 * SIM_MS));
}

void broker_end(void)
{
    sim->dead = true;
    fleet_close(sim->fleet);
    logs_close(sim->logs_door);
    turn_free(sim->turn);
    fleet_free(sim->fleet);
    inbox_free(sim->inbox);
    bus_free(sim->bus);
    store_close(sim->store);
    sim->logs_door = NULL;
    sim->store = NULL;
    sim->turn = NULL;
    sim->up = false;
    sim->watching = false;
    undo();
}

void broker_kill(const char *why)
{
    trace("broker: killed (%s)", why);
    broker_end();
    logs_killed();
    const bool power = strikes(sim->swarm.power);
    sim->power_gone = sim->power_gone || power;
    disk_killed(power);
    event_add_us(sim->now_us + between(SIM_MS, one_in(4) ? 40 * SIM_SECOND : 2 * SIM_SECOND),
                 EV_START, 0, 0);
}

static void misfortune(void)
{
    if (strikes(sim->swarm.clock_jump)) {
        sim->clock_off_ms += (int64_t)between(0, 120000) - 60000;
        if (one_in(sim->swarm.leap)) {
            sim->clock_off_ms += (int64_t)between(DAY_MS, 9 * DAY_MS);
            sim->leaps++;
        }
        trace("broker: its clock is off by %" PRId64 " ms", sim->clock_off_ms);
    }
}

void broker_step(uint64_t wish)
{
    if (!sim->up || wish != sim->wish) {
        return;
    }
    sim->wish_us = SIM_NEVER;
    if (strikes(sim->swarm.kill)) {
        broker_kill("between rounds");
        return;
    }
    if (strikes(sim->swarm.broker_stall)) {
        trace("broker: stands still");
        broker_wish(sim->now_us + between(SIM_MS, 5 * SIM_SECOND));
        return;
    }
    misfortune();
    sim->given_count = 0;
    sim->given_unsure = false;
    const int r = turn_step(sim->turn);
    if (r < 0 || sim->dead) {
        if (!sim->dead && (r != -E_IO || !sim->faults)) {
            breach_now("the turn gave up: %s", err_text(r));
        }
        broker_kill("in a round");
        return;
    }
    if (sim->unflushed_us != 0 &&
        sim->now_us - sim->unflushed_us > (sim->swarm.relaxed_ms + 1) * SIM_MS) {
        breach_now("what was written waits for the disk for %" PRIu64 " ms",
                   (sim->now_us - sim->unflushed_us) / SIM_MS);
    }
    watch_step();
    const uint64_t next_us = (turn_next_step_ms(sim->turn) - ZONE_MS) * SIM_MS;
    broker_wish(MAX(next_us, sim->now_us + 1));
    if (inbox_count(sim->inbox) > 0) {
        broker_wish(sim->now_us + below(300));
    }
}
