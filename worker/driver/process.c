/* The driver `process`: instances are processes of this machine, each under a davit-keep of its own
 * (worker/keep), which outlives the worker. docs/rollouts.md says how it is used.
 *
 * A call of `ensure` or `remove` goes round after round until what is there is what is wanted: look
 * at the folders, do one thing about them, look again. It begins with what is missing; those of
 * another snapshot go once the new ones are ready, or before them where the slot has no port left.
 * Whatever goes is not ready from then on, is drained, gets SIGTERM, and its folder goes last. A
 * later call for the same slot ends an earlier one. */
#include "common/base.h"

#include <signal.h>
#include <utlist.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/driver/process.h"
#include "worker/shim/shim.h"

#define HEALTH_MS    2000u
#define HEALTH_BYTES (64u * KIB)
#define READY_MS     20000u /* that a call waits for new ones before the old ones may go */
#define LOOK_MS      200u
#define STOP_LOOK_MS 50u
#define SLEEP_MAX_MS 1000u
#define STUCK_MS     15000u /* after the grace: davit-keep itself is killed */

struct process_call {
    struct driver_call *call;
    struct process_call *prev, *next; /* those that change something */
    bool changes;                     /* it is in that list */
    struct process_wish wish;
    struct arena look; /* of this round */
    struct process_list list;
    size_t stays;
    size_t pending; /* health checks */
    void (*checked)(struct process_call *p);
    uint64_t ready_until_ms; /* os_monotonic_ms; 0: not waited yet */
    uint64_t stuck_ms;       /* likewise: SIGKILL for who has not ended then; 0: nobody ends */
};

static struct process_call *changing; /* all of this worker; the loop's */

/* ---- health ---- */

static void check_done(struct process_call *p)
{
    if (--p->pending == 0) {
        p->checked(p);
    }
}

static void not_ready(struct process_call *p, struct process_instance *i, const char *why)
{
    const char *line = process_last_line(&p->look, i);

    process_set_ready(i, false);
    i->detail = line[0] != '\0' ? arena_printf(&p->look, "%s; it said: %s", why, line) : why;
}

static void on_health(struct driver_call *call, const struct driver_reply *reply)
{
    struct process_call *p = call->state;
    struct process_instance *i = reply->ctx;

    if (reply->error < 0) {
        not_ready(p, i, arena_printf(&p->look, "%s: %s", i->address, reply->why));
    } else if (p->wish.health != NULL && (reply->status < 200 || reply->status > 399)) {
        not_ready(p, i,
                  arena_printf(&p->look, "%.100s answers with %d", p->wish.health, reply->status));
    } else {
        process_set_ready(i, true);
    }
    check_done(p);
}

static void ask_health(struct process_call *p, struct process_instance *i)
{
    const struct driver_http http = {
        .url = arena_printf(&p->look, "http://%s%s", i->address, p->wish.health),
        .limit = HEALTH_BYTES,
        .timeout_ms = HEALTH_MS,
        .ctx = i,
    };
    const struct driver_ask tcp = {
        .address = i->address, .connects = true, .timeout_ms = HEALTH_MS, .ctx = i};

    p->pending++;
    if (p->wish.health != NULL) {
        driver_http(p->call, &http, on_health);
    } else {
        driver_ask(p->call, &tcp, on_health);
    }
}

static const char *how_it_ended(struct process_call *p, const struct process_instance *i)
{
    const struct keep_state *s = &i->state;
    const char *what = s->end == KEEP_END_SIGNAL  ? "ended by signal"
                       : s->end == KEEP_END_ERROR ? "cannot be run, error"
                                                  : "ended with";

    return arena_printf(&p->look, "%s %d, %" PRIu64 " restart%s", what, s->code, s->restarts,
                        s->restarts == 1 ? "" : "s");
}

/* Whether it is worth asking; else it says why it is not ready. */
static bool may_be_ready(struct process_call *p, struct process_instance *i)
{
    if (!i->alive) {
        not_ready(p, i, "its davit-keep is gone");
    } else if (i->drain_until_ms != 0) {
        process_set_ready(i, false);
        i->detail = "it is drained and ended";
    } else if (!process_is_running(i)) {
        not_ready(p, i, how_it_ended(p, i));
    } else if (i->snapshot[0] == '\0') {
        not_ready(p, i, "its file `instance` is damaged");
    } else {
        return true;
    }
    return false;
}

/* Looks at the health of all, or of those that stay, and goes on with `then`. */
static void check_health(struct process_call *p, bool all, void (*then)(struct process_call *p))
{
    p->checked = then;
    p->pending = 1; /* ours, so that nobody is done before the last one is asked */
    for (size_t n = 0; n < p->list.count; n++) {
        struct process_instance *i = &p->list.items[n];
        if ((all || i->stays) && may_be_ready(p, i)) {
            ask_health(p, i);
        }
    }
    check_done(p);
}

/* ---- the answer ---- */

static void answer(struct process_call *p)
{
    struct arena *a = p->call->arena;
    Pb__InstanceAnswer answer = PB__INSTANCE_ANSWER__INIT;
    const uint64_t now_ms = os_realtime_ms();

    answer.instances = arena_array(a, p->list.count + 1, sizeof(*answer.instances));
    for (size_t n = 0; n < p->list.count; n++) {
        const struct process_instance *i = &p->list.items[n];
        Pb__InstanceState *s = arena_alloc(a, sizeof(*s));
        const size_t bytes = strlen(i->snapshot) / 2;
        uint8_t *snapshot = arena_alloc(a, bytes + 1);
        pb__instance_state__init(s);
        s->index = i->port >= p->wish.first_port &&
                           i->port - p->wish.first_port < p->wish.port_count
                       ? i->port - p->wish.first_port
                       : i->port;
        s->address = (char *)i->address;
        s->running = process_is_running(i);
        s->ready = i->ready;
        s->ready_for_ms = i->ready && now_ms > i->ready_since_ms ? now_ms - i->ready_since_ms : 0;
        s->restarts = i->damaged ? 0 : (uint32_t)MIN(i->state.restarts, UINT32_MAX);
        s->detail = (char *)i->detail;
        if (str_from_hex(str_from(i->snapshot), snapshot, bytes) == 0) {
            s->snapshot = (ProtobufCBinaryData){.data = snapshot, .len = bytes};
        }
        answer.instances[answer.n_instances++] = s;
    }
    driver_done(p->call, &answer.base);
}

/* ---- rounds ---- */

static void look(struct process_call *p);

static void on_time(struct driver_call *call, const struct driver_reply *reply)
{
    (void)reply;
    look(call->state);
}

static void look_again(struct process_call *p, uint64_t after_ms)
{
    driver_after(p->call, after_ms, on_time);
}

static bool load(struct process_call *p)
{
    arena_clear(&p->look);
    const int r = process_list_load(&p->look, &p->wish, &p->list);

    if (r < 0) {
        driver_fail(p->call, "state", "%s: %s", p->wish.service_dir, err_text(r));
    }
    return r == 0;
}

static bool is_of_range(const struct process_call *p, const struct process_instance *i)
{
    return i->port >= p->wish.first_port && i->port - p->wish.first_port < p->wish.port_count;
}

/* The first ones of the snapshot stay, as many as are wanted. */
static void choose(struct process_call *p)
{
    p->stays = 0;
    for (size_t n = 0; n < p->list.count; n++) {
        struct process_instance *i = &p->list.items[n];
        i->stays = p->stays < p->wish.instances && is_of_range(p, i) && i->snapshot[0] != '\0' &&
                   strcmp(i->snapshot, p->wish.snapshot) == 0;
        p->stays += i->stays;
        if (i->stays && i->drain_until_ms != 0) {
            process_undrain(i);
            i->drain_until_ms = 0;
        }
    }
}

/* Does one thing about those whose davit-keep is gone. True: it has, or the call has ended. */
static bool mend(struct process_call *p)
{
    for (size_t n = 0; n < p->list.count; n++) {
        struct process_instance *i = &p->list.items[n];
        if (i->alive) {
            continue;
        }
        if (!process_bury(i)) {
            look_again(p, STOP_LOOK_MS);
        } else if (!i->stays) {
            process_remove(i);
            look_again(p, 0);
        } else if (process_start(p->call, &p->wish, i->port)) {
            look_again(p, 0);
        }
        return true;
    }
    return false;
}

/* Ends those whose drain is over; when it is to be looked at again. */
static uint64_t end_some(struct process_call *p)
{
    const uint64_t now_ms = os_realtime_ms();
    const bool at_once = strcmp(p->call->what->verb, "remove") == 0; /* it comes after the drain */
    const uint64_t drain_ms = at_once ? 0 : p->wish.drain_ms;
    uint64_t next_ms = SLEEP_MAX_MS;
    bool ending = false;

    for (size_t n = 0; n < p->list.count; n++) {
        struct process_instance *i = &p->list.items[n];
        if (i->stays) {
            continue;
        }
        const uint64_t wait_ms = process_is_running(i) ? drain_ms : 0;
        const uint64_t until_ms = i->drain_until_ms == 0 ? now_ms + wait_ms
                                                         : MIN(i->drain_until_ms, now_ms + wait_ms);
        (void)process_drain(i, until_ms);
        if (until_ms > now_ms) {
            next_ms = MIN(next_ms, until_ms - now_ms);
            continue;
        }
        ending = true;
        const bool stuck = p->stuck_ms != 0 && os_monotonic_ms() >= p->stuck_ms;
        (void)shim_signal(i->folder, stuck ? SIGKILL : SIGTERM);
    }
    if (!ending) {
        p->stuck_ms = 0;
    } else if (p->stuck_ms == 0) {
        p->stuck_ms = os_monotonic_ms() + p->wish.grace_ms + STUCK_MS;
    }
    return ending ? STOP_LOOK_MS : next_ms;
}

static void stays_are_checked(struct process_call *p)
{
    bool ready = true;

    for (size_t n = 0; n < p->list.count; n++) {
        ready = ready && (!p->list.items[n].stays || p->list.items[n].ready);
    }
    if (ready) {
        p->ready_until_ms = 1;
        look_again(p, end_some(p));
    } else if (os_monotonic_ms() < p->ready_until_ms) {
        look_again(p, LOOK_MS);
    } else {
        check_health(p, true, answer); /* the old ones stay for now: the asker sees it */
    }
}

/* Others are to go for what is new: not before that is ready. */
static bool waits_for_new(struct process_call *p)
{
    bool other = false;

    for (size_t n = 0; n < p->list.count; n++) {
        const struct process_instance *i = &p->list.items[n];
        other = other || (!i->stays && i->drain_until_ms == 0 && process_is_running(i) &&
                          strcmp(i->snapshot, p->wish.snapshot) != 0);
    }
    if (!other || p->stays == 0) {
        return false;
    }
    if (p->ready_until_ms == 0) {
        p->ready_until_ms = os_monotonic_ms() + READY_MS;
    }
    return p->ready_until_ms != 1;
}

static void look(struct process_call *p)
{
    const struct process_wish *w = &p->wish;

    if (!load(p)) {
        return;
    }
    choose(p);
    if (mend(p)) {
        return;
    }
    const uint32_t port = p->stays < w->instances ? process_free_port(w, &p->list) : 0;
    if (port != 0) {
        if (process_start(p->call, w, port)) {
            look_again(p, 0);
        }
    } else if (p->stays == p->list.count && p->stays == w->instances) {
        check_health(p, true, answer);
    } else if (p->stays == p->list.count) {
        driver_fail(p->call, "no_port", "all ports of slot %c are taken by the other slot",
                    w->slot);
    } else if (p->stays == w->instances && waits_for_new(p)) {
        check_health(p, false, stays_are_checked);
    } else {
        look_again(p, end_some(p));
    }
}

/* ---- the call ---- */

/* Both would go round about the same folders; what was asked last is what counts. */
static void take_over(struct process_call *p)
{
    struct process_call *other, *next;

    DL_FOREACH_SAFE (changing, other, next) {
        if (strcmp(other->wish.service_dir, p->wish.service_dir) == 0 &&
            other->wish.slot == p->wish.slot) {
            driver_fail(other->call, "replaced", "a later action is about the same instances");
        }
    }
    DL_APPEND(changing, p);
    p->changes = true;
}

static void act(struct driver_call *call)
{
    const char *verb = call->what->verb;
    const bool ensures = strcmp(verb, "ensure") == 0, looks = strcmp(verb, "status") == 0;
    struct process_call *p = arena_alloc(call->arena, sizeof(*p));

    *p = (struct process_call){.call = call};
    if (!ensures && !looks && strcmp(verb, "remove") != 0) {
        driver_fail(call, "invalid", "process can ensure, status and remove, not %s", verb);
        return;
    }
    if (!process_wish_read(call, &p->wish)) {
        return;
    }
    if (ensures && p->wish.instances > 0 &&
        (p->wish.command[0] == '\0' || p->wish.snapshot[0] == '\0')) {
        driver_fail(call, "invalid",
                    "process needs a command, of the target or of the rollout, and a snapshot");
        return;
    }
    arena_init(&p->look, SIZE_MAX);
    call->state = p;
    if (!looks) {
        take_over(p);
        look(p);
    } else if (load(p)) {
        check_health(p, true, answer);
    }
}

static void release(struct driver_call *call)
{
    struct process_call *p = call->state;

    if (p != NULL) {
        if (p->changes) {
            DL_DELETE(changing, p);
        }
        arena_release(&p->look);
        call->state = NULL;
    }
}

const struct driver driver_process = {
    .name = "process", .act = act, .release = release, .begin = process_revive};
