#include "common/base.h"

#include "worker/session.h"

#include <stdlib.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"
#include "proto/envelope.h"

#define DIAL_MS          5000u
#define DIAL_MIN_MS      1000u
#define GREETING_MS      10000u
#define LEAVE_MS         3000u
#define ACK_MS           40u /* the protocol allows 50 */
#define DEFAULT_LEASE_MS 10000u

static void retry(void *ctx);
static void on_link(void *ctx);
static void on_silence(void *ctx);
static void on_beat(void *ctx);

void session_init(struct session *s, struct loop *loop, const char *url,
                  const struct session_user *user, void *ctx)
{
    *s = (struct session){.loop = loop,
                          .url = url,
                          .user = user,
                          .ctx = ctx,
                          .version = WIRE_VERSION,
                          .lease_ms = DEFAULT_LEASE_MS};
    s->api_url = xstrdup("");
}

static void drop_link(struct session *s)
{
    loop_unwatch(s->loop, s->watch);
    link_close(s->link);
    s->watch = NULL;
    s->link = NULL;
    loop_timer_clear(s->loop, &s->silence_timer);
    loop_timer_clear(s->loop, &s->beat_timer);
    loop_timer_clear(s->loop, &s->list_timer);
    s->list = PB__ENVELOPE__BODY__NOT_SET;
}

void session_release(struct session *s)
{
    drop_link(s);
    buf_release(&s->list_content);
    loop_timer_clear(s->loop, &s->retry_timer);
    free(s->api_url);
}

bool session_is_open(const struct session *s)
{
    return s->phase == SESSION_OPEN;
}

static void expect_within(struct session *s, uint64_t ms)
{
    loop_timer_set(s->loop, &s->silence_timer, os_monotonic_ms() + ms, on_silence, s);
}

/* Ends the session, if there is one, and tries again in pause_ms. */
static void start_over(struct session *s, uint64_t pause_ms)
{
    bool was_open = s->phase == SESSION_OPEN;
    bool was_leaving = s->phase == SESSION_LEAVING;
    drop_link(s);
    s->phase = SESSION_PAUSED;
    s->id = 0;
    if (was_open) {
        s->version = WIRE_VERSION; /* the next broker may be a newer one */
        s->user->closed(s->ctx);
    }
    if (was_leaving) {
        s->user->left(s->ctx);
        return;
    }
    loop_timer_set(s->loop, &s->retry_timer, os_monotonic_ms() + pause_ms, retry, s);
}

static void back_off(struct session *s, const char *why)
{
    if (s->phase == SESSION_LEAVING) {
        start_over(s, 0);
        return;
    }
    uint64_t cap = s->user->in_a_hurry(s->ctx) ? s->lease_ms / 3 : BACKOFF_CAP_MS;
    uint64_t random;
    os_random(&random, sizeof(random));
    uint64_t pause = backoff_next_ms(&s->backoff, cap, random);
    log_warn("broker %s: %s; next try in %" PRIu64 " ms", s->url, why, pause);
    start_over(s, pause);
}

/* The network may be back long before TCP tries again. */
static uint64_t dial_ms(const struct session *s)
{
    uint64_t first_ms = MAX(s->lease_ms / 6, DIAL_MIN_MS);
    return s->user->in_a_hurry(s->ctx) ? MIN(first_ms << MIN(s->backoff.tries, 4u), DIAL_MS)
                                       : DIAL_MS;
}

static void retry(void *ctx)
{
    struct session *s = ctx;
    check(s->link == NULL);
    if (link_open(s->url, s->tls, &s->link) < 0) {
        back_off(s, "cannot open a socket");
        return;
    }
    s->phase = SESSION_DIALING;
    s->sent = s->acked = s->received = s->acked_by_us = 0;
    s->watch = loop_watch_fd(s->loop, link_fd(s->link), on_link, s);
    expect_within(s, dial_ms(s));
}

void session_start(struct session *s)
{
    retry(s);
}

/* After a cut TCP waits for as long again as the cut was before it sends anew: whoever left its
 * broker only when the lease is over there, too, would lose its jobs to a cut of half of it. */
static uint64_t early_ms(const struct session *s)
{
    return s->lease_ms * 2 / 3;
}

static void on_silence(void *ctx)
{
    struct session *s = ctx;
    uint64_t silent_ms = os_monotonic_ms() - s->heard_ms;
    uint64_t most_ms = s->user->in_a_hurry(s->ctx) ? early_ms(s) : s->lease_ms;
    if (s->phase == SESSION_OPEN && silent_ms < most_ms) {
        expect_within(s, (silent_ms < early_ms(s) ? early_ms(s) : most_ms) - silent_ms);
        return;
    }
    back_off(s, s->phase == SESSION_DIALING ? "no connection" : "the broker is silent");
}

static bool is_reliable(const Pb__Envelope *e)
{
    return e->body_case != PB__ENVELOPE__BODY_HEARTBEAT;
}

/* Head and content of a body side by side. */
static void put_body(struct session *s, uint64_t seq, Pb__Envelope__BodyCase kind,
                     struct str content)
{
    Pb__Envelope head = PB__ENVELOPE__INIT;
    struct buf out = BUF_INIT;
    head.version = s->version;
    head.session = s->id;
    head.seq = seq;
    head.ack = s->received;
    PB_PACK(&head, &out);
    envelope_add_head(kind, content.n, &out);
    buf_add_str(&out, content);
    check(out.n <= LIMIT_WIRE_MESSAGE);
    link_send(s->link, buf_str(&out));
    buf_release(&out);
    if (s->beat_timer.due_ms != 0 && s->acked_by_us != s->received) {
        loop_timer_set(s->loop, &s->beat_timer, s->beat_due_ms, on_beat, s);
    }
    s->acked_by_us = s->received;
}

static void put_list(struct session *s)
{
    Pb__Envelope__BodyCase kind = s->list;
    if (kind != PB__ENVELOPE__BODY__NOT_SET) {
        loop_timer_clear(s->loop, &s->list_timer);
        s->list = PB__ENVELOPE__BODY__NOT_SET;
        put_body(s, s->sent, kind, buf_str(&s->list_content));
    }
}

static void on_list(void *ctx)
{
    put_list(ctx);
}

static void grow_list(struct session *s, const Pb__Envelope *e, struct str content)
{
    if (s->list != e->body_case || s->list_count == LIMIT_HELD_JOBS ||
        s->list_content.n + content.n > ENVELOPE_CONTENT_MAX) {
        put_list(s);
        buf_clear(&s->list_content);
        s->list = e->body_case;
        s->list_count = 0;
        s->sent++;
        loop_timer_set(s->loop, &s->list_timer, os_monotonic_ms(), on_list, s);
    }
    buf_add_str(&s->list_content, content);
    s->list_count += envelope_count(e);
}

static uint64_t put(struct session *s, const Pb__Envelope *e)
{
    struct buf content = BUF_INIT;
    envelope_pack_content(e, &content);
    if (envelope_is_list(e->body_case)) {
        grow_list(s, e, buf_str(&content));
    } else {
        put_list(s);
        s->sent += is_reliable(e);
        put_body(s, is_reliable(e) ? s->sent : 0, e->body_case, buf_str(&content));
    }
    buf_release(&content);
    return s->sent;
}

uint64_t session_send(struct session *s, const Pb__Envelope *e)
{
    check(s->phase == SESSION_OPEN || s->phase == SESSION_LEAVING);
    return put(s, e);
}

size_t session_unsent(struct session *s)
{
    return s->link == NULL ? 0 : link_unsent(s->link);
}

static void next_beat(struct session *s)
{
    s->beat_due_ms = os_monotonic_ms() + s->heartbeat_ms;
    loop_timer_set(s->loop, &s->beat_timer, s->beat_due_ms, on_beat, s);
}

void session_beat(struct session *s)
{
    if (s->phase != SESSION_OPEN && s->phase != SESSION_LEAVING) {
        return;
    }
    struct arena arena;
    arena_init(&arena, 0);
    Pb__Heartbeat beat = PB__HEARTBEAT__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    beat.sent_ms = os_monotonic_ms();
    s->user->fill_heartbeat(s->ctx, &arena, &beat);
    e.body_case = PB__ENVELOPE__BODY_HEARTBEAT;
    e.heartbeat = &beat;
    put(s, &e);
    arena_release(&arena);
    next_beat(s);
}

static void on_beat(void *ctx)
{
    session_beat(ctx);
}

/* The beat carries the acknowledgement, unless something else does before. */
static void owe_ack(struct session *s)
{
    bool many = s->received - s->acked_by_us >= WIRE_CREDIT / 2;
    uint64_t due = os_monotonic_ms() + (many ? 0 : ACK_MS);
    if (s->beat_timer.due_ms > due) {
        loop_timer_set(s->loop, &s->beat_timer, due, on_beat, s);
    }
}

static void greet(struct session *s)
{
    struct arena arena;
    arena_init(&arena, 0);
    Pb__Hello hello = PB__HELLO__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    s->user->fill_hello(s->ctx, &arena, &hello);
    e.body_case = PB__ENVELOPE__BODY_HELLO;
    e.hello = &hello;
    s->phase = SESSION_GREETING;
    put(s, &e);
    arena_release(&arena);
    expect_within(s, GREETING_MS);
}

static uint64_t clamp(uint64_t v, uint64_t low, uint64_t high)
{
    return MAX(low, MIN(v, high));
}

static void take_welcome(struct session *s, const Pb__Welcome *w)
{
    s->id = w->session;
    s->worker_id = w->worker_id;
    s->heartbeat_ms = clamp(w->heartbeat_ms, 20, 60000);
    s->lease_ms = clamp(w->lease_ms, 2 * s->heartbeat_ms, 600000);
    s->log_window = clamp(w->log_window, 4 * KIB, LIMIT_LOG_WINDOW);
    free(s->api_url);
    s->api_url = xstrdup(w->api_url);
    s->phase = SESSION_OPEN;
    backoff_reset(&s->backoff);
    log_info("session %" PRIu64 " as worker %" PRIu64 " at %s", s->id, s->worker_id, s->url);
    next_beat(s);
    expect_within(s, early_ms(s));
    s->user->opened(s->ctx);
}

static void take_refused(struct session *s, const Pb__Refused *refused)
{
    if (refused->final && strcmp(refused->code, err_code(-E_VERSION)) == 0 &&
        s->version > WIRE_VERSION_OLDEST) {
        s->version--;
        log_info("broker %s is older: speaking version %u of the protocol", s->url, s->version);
        start_over(s, 0);
        return;
    }
    if (refused->final) {
        s->user->refused(s->ctx, refused);
        return;
    }
    log_warn("broker %s refuses: %s: %s", s->url, refused->code, refused->text);
    if (refused->retry_after_ms > 0) {
        start_over(s, refused->retry_after_ms);
    } else {
        back_off(s, "refused");
    }
}

/* The rules that every message must keep. NULL: fine; else what is wrong with it. */
static const char *fault_of(const struct session *s, const Pb__Envelope *e)
{
    bool refused = e->body_case == PB__ENVELOPE__BODY_REFUSED;
    bool unnumbered = refused || e->body_case == PB__ENVELOPE__BODY_HEARTBEAT_ACK;
    bool welcome = e->body_case == PB__ENVELOPE__BODY_WELCOME;
    if (!refused && e->version != s->version) { /* a refusal is how we come to one version */
        return "speaks another version";
    }
    if (e->ack > s->sent) {
        return "acknowledges what was never sent";
    }
    if (unnumbered ? e->seq != 0 : e->seq != s->received + 1) {
        return "breaks the order of numbers";
    }
    if (!refused && welcome != (s->phase == SESSION_GREETING)) {
        return "speaks out of turn";
    }
    return NULL;
}

static void take_body(struct session *s, const Pb__Envelope *e)
{
    switch ((int)e->body_case) {
    case PB__ENVELOPE__BODY_WELCOME:
        take_welcome(s, e->welcome);
        break;
    case PB__ENVELOPE__BODY_REFUSED:
        take_refused(s, e->refused);
        break;
    case PB__ENVELOPE__BODY_HEARTBEAT_ACK:
        break;
    case PB__ENVELOPE__BODY_BYE_ACK:
        back_off(s, "the broker says bye");
        break;
    default:
        s->user->message(s->ctx, e);
        break;
    }
}

static void take_envelope(struct session *s, const Pb__Envelope *e)
{
    bool of_session = s->phase == SESSION_OPEN || s->phase == SESSION_LEAVING;
    if (of_session && e->session != s->id && e->body_case != PB__ENVELOPE__BODY_REFUSED) {
        return;
    }
    const char *fault = fault_of(s, e);
    if (fault != NULL) {
        back_off(s, fault);
        return;
    }
    s->heard_ms = os_monotonic_ms();
    if (e->seq != 0) {
        s->received = e->seq;
        owe_ack(s);
    }
    if (e->ack > s->acked) {
        s->acked = e->ack;
        s->user->acked(s->ctx);
    }
    if (s->link != NULL) {
        take_body(s, e);
    }
}

static void take_message(struct session *s, struct str bytes)
{
    struct arena arena;
    Pb__Envelope *e;
    arena_init(&arena, 0);
    if (PB_UNPACK(&arena, envelope, bytes.p, bytes.n, LIMIT_WIRE_MESSAGE, &e) < 0) {
        back_off(s, "the broker sent no envelope");
    } else {
        take_envelope(s, e);
    }
    arena_release(&arena);
}

/* May end the session, and with it the link. */
static void take_event(struct session *s, const struct link_event *ev)
{
    switch (ev->kind) {
    case LINK_UP:
        greet(s);
        break;
    case LINK_DOWN:
        back_off(s, ev->text);
        break;
    case LINK_MESSAGE:
        if (s->phase != SESSION_DIALING) {
            take_message(s, ev->bytes);
        }
        break;
    case LINK_ROOM:
        if (s->phase == SESSION_OPEN) {
            s->user->room(s->ctx);
        }
        break;
    }
}

static void on_link(void *ctx)
{
    struct session *s = ctx;
    struct link *link = s->link;
    struct link_event ev;
    while (s->link == link && link_next(link, &ev)) {
        take_event(s, &ev);
        link_event_release(&ev);
    }
}

void session_leave(struct session *s, const char *why)
{
    loop_timer_clear(s->loop, &s->retry_timer);
    if (s->phase != SESSION_OPEN) {
        drop_link(s);
        s->phase = SESSION_PAUSED;
        s->user->left(s->ctx);
        return;
    }
    Pb__Bye bye = PB__BYE__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    bye.why = (char *)(uintptr_t)why;
    e.body_case = PB__ENVELOPE__BODY_BYE;
    e.bye = &bye;
    put(s, &e);
    s->phase = SESSION_LEAVING;
    expect_within(s, LEAVE_MS);
}
