#include "common/base.h"

#include "client/davit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utlist.h>

#include "client/state.h"
#include "common/os.h"

#define TIMEOUT_MS 30000
#define BYE_MS     1000u

static_assert(DAVIT_SKIPPED == (int)JOB_SKIPPED + 1, "the states of the wire, one higher");
static_assert(DAVIT_SUCCESS == (int)JOB_SUCCESS + 1, "the states of the wire, one higher");
static_assert(DAVIT_MAX_WATCHED == LIMIT_CLIENT_WATCHED, "what a header cannot include");
static_assert(DAVIT_MAX_JOBS == LIMIT_ENQUEUE_JOBS, "what a header cannot include");

int davit_fail(struct davit_error *error, int code, const char *text)
{
    if (error != NULL) {
        error->code = code;
        snprintf(error->text, sizeof(error->text), "%s", text);
    }
    return code;
}

bool davit_has_ended(enum davit_state state)
{
    return state == DAVIT_GONE || state >= DAVIT_SUCCESS;
}

const char *davit_state_name(enum davit_state state)
{
    static const char *const names[] = {"gone",      "created", "waiting_for_resource",
                                        "scheduled", "manual",  "pending",
                                        "assigned",  "running", "canceling",
                                        "success",   "failed",  "canceled",
                                        "skipped"};

    return (size_t)state < ARRAY_LEN(names) ? names[state] : "unknown";
}

const char *davit_reason_name(int reason)
{
    static const char *const names[] = {"",
                                        "script_failure",
                                        "worker_lost",
                                        "system_failure",
                                        "job_timeout",
                                        "stuck",
                                        "canceled_by_user",
                                        "superseded",
                                        "dependency_failed",
                                        "image_pull_failure",
                                        "config_error",
                                        "unmet_prerequisites",
                                        "artifact_missing",
                                        "source_failure",
                                        "artifact_failure",
                                        "worker_shutdown",
                                        "child_failed"};

    return reason >= 0 && (size_t)reason < ARRAY_LEN(names) ? names[reason] : "unknown";
}

/* ---- waiting ---- */

static uint64_t deadline_of(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : os_monotonic_ms() + (uint64_t)timeout_ms;
}

/* With the lock held. False: the time is over. */
static bool wait_on(struct davit *d, pthread_cond_t *cond, uint64_t until_ms)
{
    if (until_ms == UINT64_MAX) {
        pthread_cond_wait(cond, &d->lock);
        return true;
    }
    struct timespec at = {.tv_sec = (time_t)(until_ms / 1000),
                          .tv_nsec = (long)(until_ms % 1000) * 1000000L};
    return pthread_cond_timedwait(cond, &d->lock, &at) != ETIMEDOUT;
}

static void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    check(pthread_condattr_init(&attr) == 0);
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(cond, &attr) == 0);
    pthread_condattr_destroy(&attr);
}

/* ---- the handle ---- */

static struct davit *handle_new(const struct davit_options *o)
{
    struct davit *d = xcalloc(1, sizeof(*d));

    d->url = xstrdup(o->url);
    d->token = xstrdup(o->token);
    d->name = xstrdup(o->name != NULL ? o->name : "libdavit");
    d->timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : TIMEOUT_MS;
    d->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->version = WIRE_VERSION;
    d->ask_max = ARRAY_LEN(d->ask_ids);
    os_random(d->uid, sizeof(d->uid));
    arena_init(&d->arena, 0);
    stream_init(&d->stream);
    check(pthread_mutex_init(&d->lock, NULL) == 0);
    cond_init(&d->room);
    cond_init(&d->news);
    return d;
}

static void handle_free(struct davit *d)
{
    struct job *job;
    struct job *tmp;

    HASH_ITER (hh, d->jobs, job, tmp) {
        watch_forget(d, job);
    }
    if (d->wake_fd >= 0) {
        close(d->wake_fd);
    }
    stream_close(&d->stream);
    tls_free(d->tls);
    arena_release(&d->arena);
    buf_release(&d->ask.content);
    pthread_cond_destroy(&d->room);
    pthread_cond_destroy(&d->news);
    pthread_mutex_destroy(&d->lock);
    free(d->url);
    free(d->token);
    free(d->name);
    free(d);
}

static int wait_open(struct davit *d, struct davit_error *error)
{
    uint64_t until_ms = deadline_of(d->timeout_ms);
    int code = DAVIT_OK;

    pthread_mutex_lock(&d->lock);
    while (!d->open && d->fatal.code == DAVIT_OK && !d->distrusted &&
           wait_on(d, &d->room, until_ms)) {
    }
    if (d->fatal.code != DAVIT_OK) {
        code = davit_fail(error, d->fatal.code, d->fatal.text);
    } else if (!d->open) {
        code = davit_fail(error, DAVIT_E_UNREACHABLE,
                          d->why[0] != '\0' ? d->why : "no broker answers there");
    }
    pthread_mutex_unlock(&d->lock);
    return code;
}

static const char *fault_of(const struct davit_options *o)
{
    if (o->url == NULL || !stream_url_valid(o->url)) {
        return "options.url: it is tcp://HOST:PORT or tls://HOST:PORT";
    }
    if (stream_url_tls(o->url) && o->ca_file == NULL) {
        return "options.ca_file: tls:// needs the authority's certificate";
    }
    if (o->token == NULL) {
        return "options.token: there is none";
    }
    if (o->name != NULL && (strlen(o->name) > LIMIT_NAME || !job_text_ok(o->name))) {
        return "options.name: at most 255 bytes of UTF-8";
    }
    return NULL;
}

static int open_tls(const struct davit_options *o, struct tls **ret, struct davit_error *error)
{
    struct buf pem = BUF_INIT;
    struct buf why = BUF_INIT;
    char *host = stream_url_host(o->url);
    int r = os_read_file(o->ca_file, CERT_PEM_MAX, &pem);

    if (r < 0) {
        buf_addz(&why, err_text(r));
    } else {
        const struct tls_config c = {.side = TLS_CLIENT, .authority = buf_str(&pem), .host = host};
        r = tls_new(&c, ret, &why);
    }
    if (r < 0) {
        struct buf text = BUF_INIT;
        buf_addf(&text, "options.ca_file: %s: %s", o->ca_file, buf_cstr(&why));
        davit_fail(error, DAVIT_E_INVALID, buf_cstr(&text));
        buf_release(&text);
    }
    free(host);
    buf_release(&why);
    buf_release(&pem);
    return r;
}

struct davit *davit_connect(const struct davit_options *options, struct davit_error *error)
{
    davit_fail(error, DAVIT_OK, "");
    const char *fault = fault_of(options);
    if (fault != NULL) {
        davit_fail(error, DAVIT_E_INVALID, fault);
        return NULL;
    }
    struct tls *tls = NULL;
    if (stream_url_tls(options->url) && open_tls(options, &tls, error) < 0) {
        return NULL;
    }
    struct davit *d = handle_new(options);
    d->tls = tls;
    if (d->wake_fd < 0 || pthread_create(&d->thread, NULL, session_main, d) != 0) {
        davit_fail(error, DAVIT_E_LIMIT, "no descriptor or thread is left");
        handle_free(d);
        return NULL;
    }
    if (wait_open(d, error) != DAVIT_OK) {
        davit_close(d);
        return NULL;
    }
    return d;
}

void davit_close(struct davit *d)
{
    if (d == NULL) {
        return;
    }
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    if (d->open) {
        session_bye(d);
        d->heard_ms = os_monotonic_ms();
        d->lease_ms = MIN(d->lease_ms, BYE_MS); /* the answer comes soon, or never */
    }
    session_wake(d);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    handle_free(d);
}

/* ---- requests ---- */

static void request_init(struct request *r, Pb__Envelope__BodyCase kind)
{
    *r = (struct request){.kind = kind};
    cond_init(&r->wake);
}

static void request_release(struct request *r)
{
    buf_release(&r->content);
    pthread_cond_destroy(&r->wake);
}

static uint64_t request_number(struct davit *d)
{
    pthread_mutex_lock(&d->lock);
    uint64_t number = ++d->next_request;
    pthread_mutex_unlock(&d->lock);
    return number;
}

/* Sends it, now or once there is a session, and waits for its answer. */
static int request_run(struct davit *d, struct request *r, struct davit_error *error)
{
    uint64_t until_ms = deadline_of(d->timeout_ms);
    bool in_time = true;

    pthread_mutex_lock(&d->lock);
    while (in_time && d->on_the_way >= LIMIT_CLIENT_REQUESTS && d->fatal.code == DAVIT_OK) {
        in_time = wait_on(d, &d->room, until_ms);
    }
    DL_APPEND(d->requests, r);
    d->on_the_way++;
    if (d->fatal.code != DAVIT_OK) {
        r->done = true;
        r->code = d->fatal.code;
        snprintf(r->text, sizeof(r->text), "%s", d->fatal.text);
    } else if (in_time && d->open) {
        session_request(d, r);
    }
    while (in_time && !r->done) {
        in_time = wait_on(d, &r->wake, until_ms);
    }
    if (!r->done) {
        r->code = DAVIT_E_TIMEOUT;
        snprintf(r->text, sizeof(r->text), "no answer within %d ms", d->timeout_ms);
    }
    DL_DELETE(d->requests, r);
    d->on_the_way--;
    pthread_cond_broadcast(&d->room);
    pthread_mutex_unlock(&d->lock);
    return davit_fail(error, r->code, r->text);
}

static int pack_enqueue(struct davit *d, struct request *r, const char *project,
                        const struct davit_job *jobs, unsigned flags, struct davit_error *error)
{
    Pb__ClientEnqueue body = PB__CLIENT_ENQUEUE__INIT;
    Pb__JobsEnqueue all = PB__JOBS_ENQUEUE__INIT;
    struct arena arena;
    int code = DAVIT_OK;

    arena_init(&arena, 0);
    all.project = arena_strdup(&arena, str_from(project));
    all.jobs = arena_array(&arena, r->count, sizeof(*all.jobs));
    for (size_t i = 0; i < r->count && code == DAVIT_OK; i++) {
        code = job_check(&jobs[i], i, error);
        if (code == DAVIT_OK) {
            all.jobs[all.n_jobs] = arena_alloc(&arena, sizeof(**all.jobs));
            job_fill(d, &jobs[i], flags, &arena, all.jobs[all.n_jobs++]);
        }
    }
    if (code == DAVIT_OK) {
        body.request = r->number;
        body.jobs = &all;
        body.notify = r->watch;
        PB_PACK(&body, &r->content);
        if (r->content.n > LIMIT_ENQUEUE_BYTES) {
            code = davit_fail(error, DAVIT_E_LIMIT, "the jobs come to more than 768 KiB");
        }
    }
    arena_release(&arena);
    return code;
}

int davit_enqueue(struct davit *d, const char *project, const struct davit_job *jobs, size_t count,
                  unsigned flags, struct davit_queued *ret, struct davit_error *error)
{
    struct request r;

    davit_fail(error, DAVIT_OK, "");
    if (count == 0 || count > DAVIT_MAX_JOBS) {
        return davit_fail(error, DAVIT_E_LIMIT, "a request has 1 to 1024 jobs");
    }
    if (project == NULL || !job_text_ok(project)) {
        return davit_fail(error, DAVIT_E_INVALID,
                          project == NULL ? "project: there is none" : "project: no UTF-8");
    }
    request_init(&r, PB__ENVELOPE__BODY_CLIENT_ENQUEUE);
    r.number = request_number(d);
    r.once = (flags & DAVIT_ONCE) != 0;
    r.watch = (flags & DAVIT_WATCH) != 0;
    r.queued = ret;
    r.count = count;
    int code = pack_enqueue(d, &r, project, jobs, flags, error);
    if (code == DAVIT_OK) {
        code = request_run(d, &r, error);
    }
    request_release(&r);
    return code;
}

static int query_some(struct davit *d, const uint64_t *ids, size_t count, struct davit_result *ret,
                      struct davit_error *error)
{
    Pb__ClientQuery body = PB__CLIENT_QUERY__INIT;
    struct request r;

    request_init(&r, PB__ENVELOPE__BODY_CLIENT_QUERY);
    body.request = r.number = request_number(d);
    body.job_ids = (uint64_t *)ids;
    body.n_job_ids = count;
    PB_PACK(&body, &r.content);
    r.ids = ids;
    r.results = ret;
    r.count = count;
    int code = request_run(d, &r, error);
    request_release(&r);
    return code;
}

int davit_query(struct davit *d, const uint64_t *ids, size_t count, struct davit_result *ret,
                struct davit_error *error)
{
    int code = davit_fail(error, DAVIT_OK, "");

    for (size_t at = 0; at < count && code == DAVIT_OK; at += DAVIT_MAX_JOBS) {
        code = query_some(d, ids + at, MIN(count - at, DAVIT_MAX_JOBS), ret + at, error);
    }
    return code;
}

int davit_cancel(struct davit *d, uint64_t id, struct davit_error *error)
{
    struct request r;

    request_init(&r, PB__ENVELOPE__BODY_CLIENT_CANCEL);
    r.number = request_number(d);
    r.ids = &id;
    session_pack_cancel(&r, false);
    int code = request_run(d, &r, error);
    request_release(&r);
    return code;
}

/* ---- ends ---- */

/* With the lock held. */
static int end_error(const struct davit *d, struct davit_error *error)
{
    if (d->fatal.code != DAVIT_OK) {
        return davit_fail(error, d->fatal.code, d->fatal.text);
    }
    return davit_fail(error, DAVIT_E_TIMEOUT, "not all has ended yet");
}

/* One whose end will not be told, or NULL. */
static const struct job *find_refused(struct job *const *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (jobs[i]->refused) {
            return jobs[i];
        }
    }
    return NULL;
}

/* With the lock held: until all have ended, or an error. */
static int wait_ended(struct davit *d, struct job *const *jobs, size_t count, uint64_t until_ms,
                      struct davit_error *error)
{
    char text[sizeof(error->text)];
    uint64_t refusals = 0; /* that were looked at */
    size_t ended = 0;

    for (;;) {
        while (ended < count && jobs[ended]->ended) {
            ended++;
        }
        if (ended == count) {
            return DAVIT_OK;
        }
        const struct job *job = d->refusals != refusals ? find_refused(jobs, count) : NULL;
        refusals = d->refusals;
        if (job != NULL) {
            snprintf(text, sizeof(text),
                     "job %" PRIu64
                     " belongs to a pipeline: its end is told as an event of the API",
                     job->result.id);
            return davit_fail(error, DAVIT_E_INVALID, text);
        }
        if (d->fatal.code != DAVIT_OK || !wait_on(d, &d->news, until_ms)) {
            return end_error(d, error);
        }
    }
}

int davit_wait(struct davit *d, const uint64_t *ids, size_t count, struct davit_result *ret,
               int timeout_ms, struct davit_error *error)
{
    uint64_t until_ms = deadline_of(timeout_ms);

    davit_fail(error, DAVIT_OK, "");
    if (count > LIMIT_CLIENT_WATCHED) {
        return davit_fail(error, DAVIT_E_LIMIT, "at most 100000 jobs are waited for at once");
    }
    struct job **jobs = xcalloc(count + 1, sizeof(struct job *));
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < count; i++) {
        jobs[i] = watch_job(d, ids[i], false);
        watch_claim(d, jobs[i]);
    }
    watch_ask(d);
    int code = wait_ended(d, jobs, count, until_ms, error);
    for (size_t i = 0; i < count && code == DAVIT_OK; i++) {
        ret[i] = jobs[i]->result;
    }
    for (size_t i = 0; i < count; i++) {
        watch_release(d, jobs[i], code == DAVIT_OK);
    }
    pthread_mutex_unlock(&d->lock);
    free(jobs);
    return code;
}

int davit_next(struct davit *d, struct davit_result *ret, size_t max, int timeout_ms,
               struct davit_error *error)
{
    uint64_t until_ms = deadline_of(timeout_ms);
    int taken = 0;

    davit_fail(error, DAVIT_OK, "");
    pthread_mutex_lock(&d->lock);
    while (d->ended == NULL && d->fatal.code == DAVIT_OK && wait_on(d, &d->news, until_ms)) {
    }
    while (d->ended != NULL && (size_t)taken < MIN(max, (size_t)INT32_MAX)) {
        ret[taken++] = d->ended->result;
        watch_forget(d, d->ended);
    }
    if (taken == 0) {
        taken = end_error(d, error);
    }
    pthread_mutex_unlock(&d->lock);
    return taken;
}
