#include "common/base.h"

#include "broker/trigger/trigger.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <utlist.h>

#include "broker/trigger/child.h"
#include "common/log.h"
#include "common/os.h"

#define THREADS 4u /* a file that comes slowly holds up one of them */

/* What fails for want of something that comes back is tried again, less and less often: room and
 * descriptors for as long as it takes, the disk IO_TRIES times (a minute and a half). */
#define RETRY_MIN_MS 500u
#define RETRY_MAX_MS 30000u
#define IO_TRIES     8u

struct wish {
    uint64_t job_id;
    uint64_t epoch;
    uint64_t due_ms; /* monotonic */
    unsigned tries;
    unsigned io_errors;
    struct wish *next;
};

struct triggers {
    struct store *store;
    struct blobs *blobs;
    struct vault *vault;
    const struct fetch_config *includes;
    struct turn *turn;
    pthread_t threads[THREADS];
    bool started;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    struct wish *wishes;
    bool stop;
};

struct triggers *triggers_new(struct store *store, struct blobs *blobs, struct vault *vault,
                              const struct fetch_config *includes)
{
    struct triggers *t = xcalloc(1, sizeof(*t));
    pthread_condattr_t attr;
    t->store = store;
    t->blobs = blobs;
    t->vault = vault;
    t->includes = includes;
    check(pthread_mutex_init(&t->lock, NULL) == 0);
    check(pthread_condattr_init(&attr) == 0);
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(&t->wake, &attr) == 0);
    pthread_condattr_destroy(&attr);
    return t;
}

void triggers_request(void *ctx, uint64_t job_id, uint64_t epoch)
{
    struct triggers *t = ctx;
    struct wish *w = xcalloc(1, sizeof(*w));
    w->job_id = job_id;
    w->epoch = epoch;
    pthread_mutex_lock(&t->lock);
    LL_APPEND(t->wishes, w);
    pthread_cond_broadcast(&t->wake); /* one alone might be at rest */
    pthread_mutex_unlock(&t->lock);
}

static void wait_until(struct triggers *t, uint64_t due_ms)
{
    struct timespec at = {.tv_sec = (time_t)(due_ms / 1000),
                          .tv_nsec = (long)(due_ms % 1000) * 1000000};

    if (due_ms == UINT64_MAX) {
        pthread_cond_wait(&t->wake, &t->lock);
    } else {
        pthread_cond_timedwait(&t->wake, &t->lock, &at);
    }
}

/* The first that is due. NULL: it is time to stop. */
static struct wish *next_wish(struct triggers *t)
{
    struct wish *found = NULL;

    pthread_mutex_lock(&t->lock);
    while (!t->stop && found == NULL) {
        const uint64_t now_ms = os_monotonic_ms();
        uint64_t first_ms = UINT64_MAX;
        struct wish *w;
        LL_FOREACH (t->wishes, w) {
            first_ms = MIN(first_ms, w->due_ms);
            if (w->due_ms <= now_ms) {
                found = w;
                break;
            }
        }
        if (found == NULL) {
            wait_until(t, first_ms);
        }
    }
    if (found != NULL) {
        LL_DELETE(t->wishes, found);
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}

static void wish_again(struct triggers *t, struct wish *w)
{
    const uint64_t wait_ms = MIN((uint64_t)RETRY_MIN_MS << MIN(w->tries, 8u), RETRY_MAX_MS);

    w->tries++;
    w->due_ms = os_monotonic_ms() + wait_ms;
    pthread_mutex_lock(&t->lock);
    LL_APPEND(t->wishes, w);
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

static bool is_stopping(struct triggers *t)
{
    pthread_mutex_lock(&t->lock);
    bool stop = t->stop;
    pthread_mutex_unlock(&t->lock);
    return stop || fetch_is_stopped(t->includes);
}

/* Another try may find more room, or a disk that reads again. */
static bool is_passing(struct wish *w, int r)
{
    w->io_errors += r == -E_IO;
    return r == -E_BUSY || r == -E_FULL || r == -E_NO_SPACE ||
           (r == -E_IO && w->io_errors < IO_TRIES);
}

static int say_failed(struct triggers *t, const struct wish *w, const char *why)
{
    struct post *p = post_new("trigger");
    struct arena *a = post_arena(p);
    Pb__TriggerFailed *failed = arena_alloc(a, sizeof(*failed));
    struct reply reply;
    pb__trigger_failed__init(failed);
    failed->job_id = w->job_id;
    failed->epoch = w->epoch;
    failed->detail = arena_strdup(a, str_from(why));
    post_command(p)->body_case = PB__COMMAND__BODY_TRIGGER_FAILED;
    post_command(p)->trigger_failed = failed;
    return turn_call(t->turn, p, &reply);
}

/* One try; true: once more, later. What the core refuses is either no longer wanted, and so is the
 * failure then, or is a pipeline that it cannot take. What fails while the broker ends is left to
 * the next one. */
static bool try_wish(struct triggers *t, struct wish *w)
{
    const struct child_sources sources = {
        .store = t->store, .blobs = t->blobs, .vault = t->vault, .includes = t->includes};
    struct buf why = BUF_INIT;
    struct post *post = NULL;
    struct reply reply;
    int r = turn_fresh(t->turn);
    if (r < 0) { /* the job may not be there yet: asked for again when the store commits */
        return r != -E_SHUTDOWN;
    }
    r = child_build(&sources, w->job_id, w->epoch, &post, &why);
    if (r == 0 && post != NULL) {
        r = turn_call(t->turn, post, &reply);
        if (r < 0) {
            buf_addz(&why, reply.text[0] != '\0' ? reply.text : err_text(r));
        }
    }
    bool again = r < 0 && is_passing(w, r);
    if (r < 0 && !again && r != -E_SHUTDOWN && !is_stopping(t)) {
        log_debug("trigger: job %" PRIu64 " makes no pipeline: %s", w->job_id, buf_cstr(&why));
        r = say_failed(t, w, why.n > 0 ? buf_cstr(&why) : err_text(r));
        again = r < 0 && is_passing(w, r);
    } else if (again && w->tries == 0) {
        log_warn("trigger: job %" PRIu64 " makes its pipeline later: %s", w->job_id,
                 why.n > 0 ? buf_cstr(&why) : err_text(r));
    }
    buf_release(&why);
    return again;
}

static void *triggers_main(void *arg)
{
    struct triggers *t = arg;
    struct wish *w;
    pthread_setname_np(pthread_self(), "trigger");
    while ((w = next_wish(t)) != NULL) {
        if (try_wish(t, w)) {
            wish_again(t, w);
        } else {
            free(w);
        }
    }
    return NULL;
}

void triggers_start(struct triggers *t, struct turn *turn)
{
    check(!t->started);
    t->turn = turn;
    for (size_t i = 0; i < ARRAY_LEN(t->threads); i++) {
        check(pthread_create(&t->threads[i], NULL, triggers_main, t) == 0);
    }
    t->started = true;
}

void triggers_stop(struct triggers *t)
{
    if (!t->started) {
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (size_t i = 0; i < ARRAY_LEN(t->threads); i++) {
        pthread_join(t->threads[i], NULL);
    }
    t->started = false;
}

void triggers_free(struct triggers *t)
{
    struct wish *w;
    struct wish *next;
    if (t == NULL) {
        return;
    }
    check(!t->started);
    LL_FOREACH_SAFE(t->wishes, w, next)
    {
        free(w);
    }
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
