#include "common/base.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utlist.h>

#include "client/state.h"
#include "common/os.h"

/* The thread of a handle: one connection after the other, each with one session. */

#define CONNECT_MS   5000u
#define WELCOME_MS   10000u
#define ACK_MS       40u /* the protocol allows 50 */
#define PAUSE_MIN_MS 100u
#define PAUSE_MAX_MS 10000u

void session_wake(struct davit *d)
{
    uint64_t one = 1;

    while (write(d->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
}

static void flush(struct davit *d)
{
    if (stream_flush(&d->stream) < 0) {
        d->broken = true;
    }
    if (d->broken || stream_unsent(&d->stream)) {
        session_wake(d); /* the thread sends the rest, or starts anew */
    }
}

static void put(struct davit *d, uint64_t seq, Pb__Envelope__BodyCase kind, struct str content)
{
    Pb__Envelope head = PB__ENVELOPE__INIT;
    struct buf packed = BUF_INIT;

    head.version = d->version;
    head.session = d->session;
    head.seq = seq;
    head.ack = d->received;
    PB_PACK(&head, &packed);
    envelope_add_head(kind, content.n, &packed);
    stream_put(&d->stream, buf_str(&packed), content);
    buf_release(&packed);
    d->acked = d->received;
    d->ack_due_ms = 0;
    flush(d);
}

void session_send(struct davit *d, Pb__Envelope__BodyCase kind, struct str content)
{
    put(d, ++d->sent, kind, content);
}

static void beat(struct davit *d)
{
    Pb__Heartbeat body = PB__HEARTBEAT__INIT;
    struct buf content = BUF_INIT;

    body.sent_ms = os_monotonic_ms();
    PB_PACK(&body, &content);
    put(d, 0, PB__ENVELOPE__BODY_HEARTBEAT, buf_str(&content));
    buf_release(&content);
    d->beat_due_ms = body.sent_ms + d->heartbeat_ms;
}

void session_bye(struct davit *d)
{
    Pb__Bye body = PB__BYE__INIT;
    struct buf content = BUF_INIT;

    body.why = (char *)"closed";
    PB_PACK(&body, &content);
    session_send(d, PB__ENVELOPE__BODY_BYE, buf_str(&content));
    buf_release(&content);
}

static void greet(struct davit *d)
{
    Pb__ClientHello body = PB__CLIENT_HELLO__INIT;
    struct buf content = BUF_INIT;

    body.token = pb_bytes_ref(str_from(d->token));
    body.name = d->name;
    body.version = (char *)DAVIT_VERSION;
    body.uid = pb_bytes_ref(str_of(d->uid, sizeof(d->uid)));
    PB_PACK(&body, &content);
    session_send(d, PB__ENVELOPE__BODY_CLIENT_HELLO, buf_str(&content));
    buf_release(&content);
}

void session_request(struct davit *d, struct request *r)
{
    r->sent = true;
    session_send(d, r->kind, buf_str(&r->content));
}

void session_pack_cancel(struct request *r, bool again)
{
    Pb__ClientCancel body = PB__CLIENT_CANCEL__INIT;

    body.request = r->number;
    body.job_id = r->ids[0];
    body.again = again;
    buf_clear(&r->content);
    PB_PACK(&body, &r->content);
}

/* ---- what the broker says ---- */

static int code_of(const char *code)
{
    static const struct {
        const char *name;
        int code;
    } table[] = {
        {"unauthorized", DAVIT_E_UNAUTHORIZED},
        {"forbidden", DAVIT_E_UNAUTHORIZED},
        {"not_found", DAVIT_E_NOT_FOUND},
        {"gone", DAVIT_E_NOT_FOUND},
        {"conflict", DAVIT_E_CONFLICT},
        {"idempotency_key_reused", DAVIT_E_CONFLICT},
        {"limit", DAVIT_E_LIMIT},
        {"too_big", DAVIT_E_LIMIT},
        {"store_full", DAVIT_E_FULL},
        {"no_space", DAVIT_E_FULL},
        {"version", DAVIT_E_VERSION},
        {"invalid", DAVIT_E_INVALID},
        {"unsupported", DAVIT_E_INVALID},
    };

    if (code[0] == '\0') {
        return DAVIT_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (strcmp(table[i].name, code) == 0) {
            return table[i].code;
        }
    }
    return DAVIT_E_BROKER;
}

static void finish(struct request *r, int code, const char *text)
{
    r->done = true;
    r->code = code;
    snprintf(r->text, sizeof(r->text), "%s", text);
    pthread_cond_signal(&r->wake);
}

static void give_up(struct davit *d, int code, const char *text)
{
    struct request *r;

    davit_fail(&d->fatal, code, text);
    DL_FOREACH (d->requests, r) {
        if (!r->done) {
            finish(r, code, text);
        }
    }
    pthread_cond_broadcast(&d->room);
    pthread_cond_broadcast(&d->news);
}

static void take_welcome(struct davit *d, const Pb__Envelope *e)
{
    struct request *r;

    d->session = e->welcome->session;
    d->heartbeat_ms = MAX(e->welcome->heartbeat_ms, 20u);
    d->lease_ms = MAX(e->welcome->lease_ms, 2 * d->heartbeat_ms);
    d->beat_due_ms = os_monotonic_ms() + d->heartbeat_ms;
    d->open = true;
    d->pause_ms = 0;
    DL_FOREACH (d->requests, r) {
        if (!r->done) {
            session_request(d, r);
        }
    }
    watch_ask(d);
    pthread_cond_broadcast(&d->room);
}

static void take_refused(struct davit *d, const Pb__Refused *refused)
{
    if (refused->final && strcmp(refused->code, err_code(-E_VERSION)) == 0 &&
        d->version > WIRE_VERSION_OLDEST) {
        d->version--; /* an older broker: we meet at its version, at once */
        d->pause_ms = 0;
        d->broken = true;
        return;
    }
    if (refused->final) {
        int code = code_of(refused->code);
        give_up(d, code != DAVIT_OK ? code : DAVIT_E_BROKER, refused->text);
    }
    d->pause_ms = refused->retry_after_ms;
    d->broken = true;
}

static struct request *find_request(struct davit *d, uint64_t number)
{
    struct request *r;

    DL_FOREACH (d->requests, r) {
        if (r->number == number && !r->done) {
            return r;
        }
    }
    return NULL;
}

static void take_enqueued(struct davit *d, const Pb__ClientEnqueued *m)
{
    struct request *r = find_request(d, m->request);
    int code = code_of(m->code);

    if (r == NULL || r->queued == NULL) {
        return; /* nobody waits any more */
    }
    if (code == DAVIT_OK && (m->n_job_ids != r->count || m->n_duplicates != r->count)) {
        finish(r, DAVIT_E_BROKER, "the broker answered for another number of jobs");
        return;
    }
    for (size_t i = 0; code == DAVIT_OK && i < r->count; i++) {
        r->queued[i] = (struct davit_queued){m->job_ids[i], m->duplicates[i]};
        if (r->watch) {
            watch_job(d, m->job_ids[i], true);
        }
    }
    finish(r, code, m->text);
}

/* Both lists may be long: the answer keeps the order of the question, with gaps. */
static void copy_results(const Pb__ClientAnswer *m, const uint64_t *ids, size_t count,
                         struct davit_result *ret)
{
    size_t at = 0;

    for (size_t i = 0; i < count; i++) {
        ret[i] = (struct davit_result){.id = ids[i], .state = DAVIT_GONE};
        if (at < m->n_jobs && m->jobs[at]->job_id == ids[i]) {
            watch_result(m->jobs[at++], &ret[i]);
        }
    }
}

static void take_answer(struct davit *d, const Pb__ClientAnswer *m)
{
    if (d->ask.count > 0 && m->request == d->ask.number) {
        if (code_of(m->code) != DAVIT_OK) {
            watch_put_off(d);
            return;
        }
        watch_answered(d, m);
        return;
    }
    struct request *r = find_request(d, m->request);
    if (r == NULL || r->queued != NULL) {
        return;
    }
    int code = code_of(m->code);
    if (code == DAVIT_OK && r->results != NULL) {
        copy_results(m, r->ids, r->count, r->results);
    }
    finish(r, code, m->text);
}

static void take_body(struct davit *d, const Pb__Envelope *e)
{
    if (e->body_case == PB__ENVELOPE__BODY_CLIENT_ENQUEUED) {
        take_enqueued(d, e->client_enqueued);
    } else if (e->body_case == PB__ENVELOPE__BODY_CLIENT_ANSWER) {
        take_answer(d, e->client_answer);
    } else if (e->body_case == PB__ENVELOPE__BODY_CLIENT_JOB_ENDED) {
        for (size_t i = 0; i < e->client_job_ended->n_jobs; i++) {
            watch_ended(d, e->client_job_ended->jobs[i]);
        }
    } else if (e->body_case == PB__ENVELOPE__BODY_REFUSED) {
        take_refused(d, e->refused);
    } else if (e->body_case == PB__ENVELOPE__BODY_WELCOME) {
        take_welcome(d, e);
    } else if (e->body_case == PB__ENVELOPE__BODY_BYE_ACK) {
        d->broken = true;
    }
}

/* With the lock held. False: no Envelope of the protocol, or out of turn. */
static bool take_envelope(struct davit *d, const Pb__Envelope *e)
{
    bool refused = e->body_case == PB__ENVELOPE__BODY_REFUSED;
    bool unnumbered = refused || e->body_case == PB__ENVELOPE__BODY_HEARTBEAT_ACK;
    bool welcome = e->body_case == PB__ENVELOPE__BODY_WELCOME;

    if (refused) {
        take_body(d, e);
        return true;
    }
    if (e->version != d->version || welcome == d->open || e->ack > d->sent ||
        e->seq != (unnumbered ? 0 : d->received + 1)) {
        return false;
    }
    if (!unnumbered) {
        d->received = e->seq;
        bool many = d->received - d->acked >= WIRE_CREDIT / 2;
        uint64_t due_ms = os_monotonic_ms() + (many ? 0 : ACK_MS);
        d->ack_due_ms = d->ack_due_ms == 0 ? due_ms : MIN(d->ack_due_ms, due_ms);
    }
    take_body(d, e);
    return true;
}

static void take_messages(struct davit *d)
{
    struct str bytes;
    int r = stream_read(&d->stream);

    while (r == 0 && (r = stream_next(&d->stream, &bytes)) == 1) {
        Pb__Envelope *e;
        arena_clear(&d->arena);
        r = PB_UNPACK(&d->arena, envelope, bytes.p, bytes.n, LIMIT_WIRE_MESSAGE, &e);
        if (r == 0 && !take_envelope(d, e)) {
            r = -E_PROTOCOL;
        }
    }
    d->heard_ms = os_monotonic_ms();
    d->broken |= r < 0;
}

/* ---- the thread ---- */

/* With the lock held. When to look again; does what is due. */
static uint64_t take_time(struct davit *d)
{
    uint64_t now_ms = os_monotonic_ms();
    uint64_t silent_ms = d->heard_ms + (d->open ? d->lease_ms : WELCOME_MS);

    if (d->open && (d->beat_due_ms <= now_ms || (d->ack_due_ms != 0 && d->ack_due_ms <= now_ms))) {
        beat(d);
    }
    if (silent_ms <= now_ms) {
        d->broken = true;
    }
    watch_time(d, now_ms);
    uint64_t next_ms = d->open ? MIN(silent_ms, d->beat_due_ms) : silent_ms;
    next_ms = d->ask_due_ms != 0 ? MIN(next_ms, d->ask_due_ms) : next_ms;
    return d->ack_due_ms != 0 ? MIN(next_ms, d->ack_due_ms) : next_ms;
}

static void drain_wake(struct davit *d)
{
    uint64_t count;

    while (read(d->wake_fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
}

/* With the lock held; lets it go while it waits. */
static void converse(struct davit *d)
{
    while (!d->broken && !(d->closing && !d->open)) {
        uint64_t until_ms = take_time(d);
        uint64_t now_ms = os_monotonic_ms();
        struct pollfd p[2] = {{.fd = d->stream.fd, .events = POLLIN},
                              {.fd = d->wake_fd, .events = POLLIN}};
        p[0].events |= stream_unsent(&d->stream) ? POLLOUT : 0;
        pthread_mutex_unlock(&d->lock);
        int ready = poll(p, 2, until_ms > now_ms ? (int)(until_ms - now_ms) : 0);
        pthread_mutex_lock(&d->lock);
        if (ready > 0 && p[1].revents != 0) {
            drain_wake(d);
        }
        if (stream_unsent(&d->stream) && stream_flush(&d->stream) < 0) {
            d->broken = true;
        }
        if (ready > 0 && p[0].revents != 0) {
            take_messages(d);
        }
    }
}

/* With the lock held. What cannot be sent again is lost. */
static void end_session(struct davit *d)
{
    struct request *r;

    d->version = d->open ? WIRE_VERSION : d->version; /* the next broker may be a newer one */
    if (!d->open) {
        memcpy(d->why, d->stream.why, sizeof(d->why));
        d->distrusted = stream_distrusts(&d->stream);
        pthread_cond_broadcast(&d->room);
    }
    d->open = false;
    d->session = 0;
    stream_close(&d->stream);
    watch_session_ended(d);
    DL_FOREACH (d->requests, r) {
        if (!r->done && r->sent && r->once) {
            finish(r, DAVIT_E_LOST, "the connection was lost before the answer came");
        } else if (!r->done && r->sent && r->kind == PB__ENVELOPE__BODY_CLIENT_CANCEL) {
            session_pack_cancel(r, true); /* it may have been done: a second one is a force */
        }
        r->sent = false;
    }
}

static void begin_session(struct davit *d)
{
    d->broken = false;
    d->sent = d->received = d->acked = d->ack_due_ms = 0;
    d->heard_ms = os_monotonic_ms();
    greet(d);
}

/* Doubles up to ten seconds, each time a random part of it, so that many do not come at once. */
static uint64_t next_pause(struct davit *d)
{
    uint64_t random;

    os_random(&random, sizeof(random));
    d->pause_ms = MAX(PAUSE_MIN_MS, MIN(2 * d->pause_ms, PAUSE_MAX_MS));
    return d->pause_ms / 2 + random % (d->pause_ms / 2 + 1);
}

static void rest(struct davit *d)
{
    struct pollfd p = {.fd = d->wake_fd, .events = POLLIN};
    uint64_t until_ms = os_monotonic_ms() + next_pause(d);
    uint64_t now_ms;

    while (!d->closing && (now_ms = os_monotonic_ms()) < until_ms) {
        pthread_mutex_unlock(&d->lock);
        if (poll(&p, 1, (int)(until_ms - now_ms)) > 0) {
            drain_wake(d);
        }
        pthread_mutex_lock(&d->lock);
    }
}

void *session_main(void *handle)
{
    struct davit *d = handle;

    pthread_setname_np(pthread_self(), "davit");
    pthread_mutex_lock(&d->lock);
    while (!d->closing && d->fatal.code == DAVIT_OK) {
        struct stream stream;
        stream_init(&stream);
        pthread_mutex_unlock(&d->lock);
        int r = stream_connect(&stream, d->url, d->tls, d->wake_fd, CONNECT_MS);
        pthread_mutex_lock(&d->lock);
        if (r == -E_CANCELED) {
            drain_wake(d);
        }
        if (r == 0) {
            d->stream = stream;
            begin_session(d);
            converse(d);
            end_session(d);
        }
        if (!d->closing && d->fatal.code == DAVIT_OK) {
            rest(d);
        }
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}
