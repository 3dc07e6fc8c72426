#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/os.h"
#include "tests/unit/turn/fixture.h"

/* The fleet under a clock of the test: no thread, no connection, and one worker that holds one job
 * since before the broker's start. */

#define LEASE_MS 10000u
#define START_MS 50000u

struct world {
    char dir[64];
    struct store *store;
    struct logs *logs;
    struct inbox *inbox;
    struct fleet *fleet;
    struct effects fx;
    struct tx *tx;
    uint64_t job_id;
    uint64_t worker_id;
    bool open; /* the worker, as was told last */
};

static int apply(void *ctx, Pb__Command *cmd, struct reply *ret_reply)
{
    struct world *w = ctx;

    cmd->version = COMMAND_VERSION;
    cmd->time_ms = 1700000000000u;
    memset(ret_reply, 0, sizeof(*ret_reply));
    return core_apply(w->tx, cmd, &w->fx, ret_reply);
}

static struct reply apply_post(struct world *w, struct post *p)
{
    struct reply reply;

    assert_int_equal(apply(w, post_command(p), &reply), 0);
    post_free(p);
    return reply;
}

static void init_store(struct world *w)
{
    struct post *p = post_new("test");
    Pb__InitStore init = PB__INIT_STORE__INIT;

    init.store_id = pb_bytes_ref(STR("0123456789abcdef"));
    init.job_token_key = pb_bytes_ref(STR("0123456789abcdef0123456789abcdef"));
    post_command(p)->body_case = PB__COMMAND__BODY_INIT_STORE;
    post_command(p)->init_store = &init;
    apply_post(w, p);
}

static uint64_t add_worker(struct world *w)
{
    struct post *p = post_new("test");
    Pb__WorkerHello hello = PB__WORKER_HELLO__INIT;
    char *executors[] = {(char *)"shell"};

    hello.uid = pb_bytes_ref(STR("w1--------------"));
    hello.name = (char *)"w1";
    hello.pool = (char *)"fast";
    hello.executors = executors;
    hello.n_executors = 1;
    hello.slots = 2;
    hello.run_untagged = true;
    post_command(p)->body_case = PB__COMMAND__BODY_WORKER_HELLO;
    post_command(p)->worker_hello = &hello;
    return apply_post(w, p).worker_id;
}

static void assign(struct world *w, uint64_t job_id, uint64_t worker_id)
{
    struct post *p = post_new("test");
    Pb__Assign assign = PB__ASSIGN__INIT;

    assign.job_ids = &job_id;
    assign.n_job_ids = 1;
    assign.worker_id = worker_id;
    post_command(p)->body_case = PB__COMMAND__BODY_ASSIGN;
    post_command(p)->assign = &assign;
    apply_post(w, p);
}

static void fill_store(struct world *w)
{
    assert_int_equal(tx_begin(w->store, true, &w->tx), 0);
    init_store(w);
    w->worker_id = add_worker(w);
    struct reply reply = apply_post(w, fixture_pipeline_post("group/test", 1));
    w->job_id = pipeline_get(w->tx, reply.pipeline_id)->first_job_id;
    assign(w, w->job_id, w->worker_id);
    assert_int_equal(tx_commit(w->tx), 0);
}

static void nothing_is_durable(void *ctx, uint64_t job_id, uint64_t attempt, uint64_t epoch,
                               uint64_t durable)
{
}

static void world_up(struct world *w)
{
    struct store_options options = {.read_only = false};
    struct buf why = BUF_INIT;

    memset(w, 0, sizeof(*w));
    effects_init(&w->fx);
    snprintf(w->dir, sizeof(w->dir), "/tmp/davit-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(store_open(w->dir, &options, &w->store, &why), 0);
    assert_int_equal(logs_open(w->dir, nothing_is_durable, NULL, &w->logs, &why), 0);
    w->inbox = inbox_new();
    fill_store(w);
    struct fleet_config config = {
        .inbox = w->inbox, .logs = w->logs, .heartbeat_ms = 3000, .lease_ms = LEASE_MS};
    w->fleet = fleet_new(&config);
    assert_int_equal(tx_begin(w->store, false, &w->tx), 0);
    fleet_recover(w->fleet, w->tx, 1700000000000u, START_MS);
    tx_abort(w->tx);
    buf_release(&why);
}

static void world_down(struct world *w)
{
    fleet_close(w->fleet);
    fleet_free(w->fleet);
    inbox_free(w->inbox);
    logs_close(w->logs);
    store_close(w->store);
    effects_release(&w->fx);
    assert_int_equal(os_remove_tree(w->dir), 0);
}

/* One turn at that time; `commit` says whether the disk takes it. Returns whether the job is lost.
 */
static bool turn_at(struct world *w, uint64_t mono_ms, bool commit)
{
    struct fleet_change *list;
    struct fleet_turn turn = {
        .now_ms = 1700000000000u + mono_ms, .mono_ms = mono_ms, .apply = apply, .ctx = w};

    fleet_awake(w->fleet, mono_ms);
    assert_int_equal(tx_begin(w->store, true, &w->tx), 0);
    turn.tx = w->tx;
    fleet_begin(w->fleet, &turn);
    fleet_tick(w->fleet);
    for (size_t i = 0, n = fleet_changes(w->fleet, &list); i < n; i++) {
        w->open = list[i].open; /* there is one worker */
    }
    bool lost = job_get(w->tx, w->job_id)->state == JOB_PENDING;
    if (commit) {
        assert_int_equal(tx_commit(w->tx), 0);
        fleet_flush(w->fleet, turn.now_ms, mono_ms);
    } else {
        tx_abort(w->tx);
        fleet_failed(w->fleet);
    }
    return lost;
}

/* Turns every second up to `until_ms`, as the real one does. */
static bool idle_until(struct world *w, uint64_t from_ms, uint64_t until_ms)
{
    for (uint64_t at = from_ms; at < until_ms; at += 1000) {
        if (turn_at(w, at, true)) {
            return true;
        }
    }
    return turn_at(w, until_ms, true);
}

static void a_holder_is_lost_when_its_lease_is_over_and_not_before(void **state)
{
    struct world w;
    struct fleet_stats stats;

    world_up(&w);
    assert_false(idle_until(&w, START_MS, START_MS + LEASE_MS - 1));
    assert_true(fleet_next_due_ms(w.fleet) <= START_MS + LEASE_MS + 10);
    assert_true(turn_at(&w, START_MS + LEASE_MS + 10, true));
    fleet_get_stats(w.fleet, &stats);
    assert_int_equal(stats.lost, 1);
    world_down(&w);
}

/* The pool of the worker gets these times, as somebody's command does it. */
static void set_times(struct world *w, uint64_t mono_ms, uint32_t heartbeat_ms, uint32_t lease_ms)
{
    struct fleet_turn turn = {
        .now_ms = 1700000000000u + mono_ms, .mono_ms = mono_ms, .apply = apply, .ctx = w};
    struct post *p = post_new("test");
    Pb__PoolSet set = PB__POOL_SET__INIT;

    set.name = (char *)"fast";
    set.has_heartbeat = set.has_lease = true;
    set.heartbeat_ms = heartbeat_ms;
    set.lease_ms = lease_ms;
    post_command(p)->body_case = PB__COMMAND__BODY_POOL_SET;
    post_command(p)->pool_set = &set;
    assert_int_equal(tx_begin(w->store, true, &w->tx), 0);
    turn.tx = w->tx;
    fleet_begin(w->fleet, &turn);
    effects_clear(&w->fx);
    apply_post(w, p);
    assert_int_equal(tx_commit(w->tx), 0);
    assert_int_equal(tx_begin(w->store, false, &w->tx), 0);
    fleet_committed(w->fleet, w->tx, &w->fx);
    tx_abort(w->tx);
    fleet_flush(w->fleet, turn.now_ms, mono_ms);
}

static void a_pool_has_a_lease_of_its_own(void **state)
{
    struct world w;

    world_up(&w);
    set_times(&w, START_MS, 10000, 30000);
    assert_false(idle_until(&w, START_MS, START_MS + 29999));
    assert_true(turn_at(&w, START_MS + 30010, true));
    world_down(&w);
}

/* Its worker beats at the old pace until it has come anew. */
static void a_lease_that_becomes_shorter_waits_for_the_next_hello(void **state)
{
    struct world w;

    world_up(&w);
    set_times(&w, START_MS, 100, 200);
    assert_false(idle_until(&w, START_MS, START_MS + LEASE_MS - 1));
    assert_true(turn_at(&w, START_MS + LEASE_MS + 10, true));
    world_down(&w);
}

static void what_lies_unread_in_the_inbox_holds_the_lease(void **state)
{
    struct world w;
    bool resume;

    world_up(&w);
    assert_false(idle_until(&w, START_MS, START_MS + LEASE_MS - 1));
    inbox_push_event(w.inbox, item_new(ITEM_LOG));
    assert_false(turn_at(&w, START_MS + LEASE_MS + 500, true));
    assert_false(turn_at(&w, START_MS + LEASE_MS + 1000, true));
    free(inbox_take(w.inbox, 1, 0, &resume));
    assert_true(turn_at(&w, START_MS + LEASE_MS + 1500, true));
    world_down(&w);
}

static void a_broker_that_stood_still_gives_the_time_back(void **state)
{
    struct world w;
    const uint64_t stall_ms = 3600u * 1000;

    world_up(&w);
    assert_false(idle_until(&w, START_MS, START_MS + 5000));
    uint64_t woken_ms = START_MS + 5000 + stall_ms;
    assert_false(turn_at(&w, woken_ms, true));
    assert_false(idle_until(&w, woken_ms, woken_ms + LEASE_MS - 5001));
    assert_true(idle_until(&w, woken_ms + LEASE_MS - 5000, woken_ms + LEASE_MS));
    world_down(&w);
}

/* A client without a connection, heard at START_MS. */
static void add_client(struct world *w)
{
    struct client *c = xcalloc(1, sizeof(*c));

    c->session = session_new(w->fleet, 1);
    c->session->client = c;
    c->session->number = 1;
    c->session->close_at_ms = START_MS + LEASE_MS;
    c->actor = xstrdup("admin");
    c->name = xstrdup("program");
    HASH_ADD(hh, w->fleet->clients, uid, sizeof(c->uid), c);
    w->fleet->next_scan_ms = 0;
}

static bool client_lives(const struct world *w)
{
    return w->fleet->clients != NULL;
}

static void a_client_is_silent_when_its_lease_is_over_and_not_before(void **state)
{
    struct world w;

    world_up(&w);
    add_client(&w);
    idle_until(&w, START_MS, START_MS + LEASE_MS - 1);
    assert_true(client_lives(&w));
    turn_at(&w, START_MS + LEASE_MS + 10, true);
    assert_false(client_lives(&w));
    world_down(&w);
}

static void what_lies_unread_in_the_inbox_holds_a_client_too(void **state)
{
    struct world w;
    bool resume;

    world_up(&w);
    add_client(&w);
    idle_until(&w, START_MS, START_MS + LEASE_MS - 1);
    inbox_push_event(w.inbox, item_new(ITEM_LOG));
    turn_at(&w, START_MS + LEASE_MS + 500, true);
    assert_true(client_lives(&w));
    free(inbox_take(w.inbox, 1, 0, &resume));
    turn_at(&w, START_MS + LEASE_MS + 1000, true);
    assert_false(client_lives(&w));
    world_down(&w);
}

static void a_broker_that_stood_still_gives_clients_their_time_back(void **state)
{
    struct world w;

    world_up(&w);
    add_client(&w);
    idle_until(&w, START_MS, START_MS + 5000);
    uint64_t woken_ms = START_MS + 5000 + 3600u * 1000;
    idle_until(&w, woken_ms, woken_ms + LEASE_MS - 5001);
    assert_true(client_lives(&w));
    turn_at(&w, woken_ms + LEASE_MS - 5000, true);
    assert_false(client_lives(&w));
    world_down(&w);
}

static void a_loss_that_was_not_committed_is_found_again(void **state)
{
    struct world w;
    struct fleet_stats stats;

    world_up(&w);
    assert_false(idle_until(&w, START_MS, START_MS + LEASE_MS - 1));
    assert_true(turn_at(&w, START_MS + LEASE_MS + 10, false));
    fleet_get_stats(w.fleet, &stats);
    assert_int_equal(stats.lost, 0);
    assert_true(turn_at(&w, START_MS + LEASE_MS + 1010, true));
    world_down(&w);
}

static void a_worker_whose_first_hello_was_undone_is_forgotten(void **state)
{
    struct world w;

    world_up(&w);
    peer_get(w.fleet, 999)->unsure = true; /* as its Hello leaves it */
    turn_at(&w, START_MS, false);
    assert_null(peer_find(w.fleet, 999));
    assert_non_null(peer_find(w.fleet, w.worker_id));
    assert_false(turn_at(&w, START_MS + 1000, true));
    world_down(&w);
}

/* Turns every second, in each of which the worker beats; returns the first with a candidate. */
static uint64_t beating_until(struct world *w, struct peer *p, uint64_t from_ms, uint64_t until_ms)
{
    for (uint64_t at = from_ms; at < until_ms; at += 1000) {
        peer_heard(w->fleet, p);
        assert_false(turn_at(w, at, true));
        if (w->open) {
            return at;
        }
    }
    return 0;
}

static void a_worker_that_leaves_orders_without_an_answer_rests(void **state)
{
    struct world w;
    struct session s = {.number = 1};

    world_up(&w);
    struct peer *p = peer_find(w.fleet, w.worker_id);
    s.peer = p;
    p->session = &s;
    turn_at(&w, START_MS, true);
    assert_int_equal(beating_until(&w, p, START_MS + 1000, START_MS + 3000), START_MS + 1000);
    peer_rest(w.fleet, p);
    fleet_take_capacity_change(w.fleet);
    assert_int_equal(beating_until(&w, p, START_MS + 2000, START_MS + 40000), START_MS + 31000);
    assert_true(fleet_take_capacity_change(w.fleet));
    p->session = NULL;
    world_down(&w);
}

static void a_worker_that_gives_back_all_it_gets_rests_longer_and_longer(void **state)
{
    struct world w;
    struct session s = {.number = 1};
    const uint64_t rests_ms[] = {250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000};
    uint64_t at = START_MS;

    world_up(&w);
    struct peer *p = peer_find(w.fleet, w.worker_id);
    s.peer = p;
    p->session = &s;
    turn_at(&w, at, true);
    at = beating_until(&w, p, at + 1000, at + 3000);
    for (size_t i = 0; i < ARRAY_LEN(rests_ms); i++) {
        peer_gave_back(w.fleet, p);
        peer_gave_back(w.fleet, p); /* what came at the same time */
        assert_int_equal(beating_until(&w, p, at + rests_ms[i] - 20, at + rests_ms[i]), 0);
        at += rests_ms[i] + 20; /* deadlines are looked at every 10 ms at most */
        assert_int_equal(beating_until(&w, p, at, at + 1), at);
    }
    peer_worked(p);
    peer_gave_back(w.fleet, p);
    assert_int_equal(beating_until(&w, p, at + 250, at + 1000), at + 250);
    p->session = NULL;
    world_down(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_holder_is_lost_when_its_lease_is_over_and_not_before),
        cmocka_unit_test(a_pool_has_a_lease_of_its_own),
        cmocka_unit_test(a_lease_that_becomes_shorter_waits_for_the_next_hello),
        cmocka_unit_test(what_lies_unread_in_the_inbox_holds_the_lease),
        cmocka_unit_test(a_broker_that_stood_still_gives_the_time_back),
        cmocka_unit_test(a_client_is_silent_when_its_lease_is_over_and_not_before),
        cmocka_unit_test(what_lies_unread_in_the_inbox_holds_a_client_too),
        cmocka_unit_test(a_broker_that_stood_still_gives_clients_their_time_back),
        cmocka_unit_test(a_loss_that_was_not_committed_is_found_again),
        cmocka_unit_test(a_worker_whose_first_hello_was_undone_is_forgotten),
        cmocka_unit_test(a_worker_that_leaves_orders_without_an_answer_rests),
        cmocka_unit_test(a_worker_that_gives_back_all_it_gets_rests_longer_and_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
