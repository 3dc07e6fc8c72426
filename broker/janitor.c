#include "common/base.h"

#include "broker/janitor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "broker/core/query.h"
#include "broker/store/tx.h"
#include "broker/vault/rewrap.h"
#include "common/log.h"
#include "common/os.h"

#define SWEEP_SECONDS 3600
#define TEND_SECONDS  5 /* certificates may live for seconds */
/* A blob is uploaded before anything refers to it; a worker may keep the reference for as long as
 * the broker is away, and delivers it soon after the broker is back: the first sweep is later. */
#define SWEEP_MIN_AGE_MS (24ull * 3600 * 1000)
/* A log is written after its job is in the store, and no more once the job is gone. */
/* A copy that was asked for just now is about to be read. */
#define COPIES_MIN_AGE_MS (300ull * 1000)
#define LOGS_MIN_AGE_MS   (3600ull * 1000)

/* A value that was sealed under the old master key is in the store long before. */
#define KEYS_MIN_AGE_MS (1800ull * 1000)

struct janitor {
    struct store *store;
    struct turn *turn;
    struct blobs *blobs;
    struct pages *pages;
    struct logs *logs;
    struct vault *vault;
    struct authority *authority; /* NULL: none */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_bool stop;
};

/* When in doubt a blob is wanted, and so is what was unpacked of it. */
static bool ask(struct janitor *j, const uint8_t digest[SHA256_BYTES],
                bool (*is_wanted)(struct tx *tx, struct str digest))
{
    struct tx *tx;

    if (atomic_load(&j->stop) || turn_fresh(j->turn) < 0 || tx_begin(j->store, false, &tx) < 0) {
        return true;
    }
    bool found = is_wanted(tx, str_of(digest, SHA256_BYTES)) || !tx_ok(tx);
    tx_abort(tx);
    return found;
}

static bool wanted(void *ctx, const uint8_t digest[SHA256_BYTES])
{
    return ask(ctx, digest, blob_referenced);
}

/* The artifact stays long after something else is published in its place. */
static bool published(void *ctx, const uint8_t digest[SHA256_BYTES])
{
    return ask(ctx, digest, blob_published);
}

/* When in doubt all of them stay. */
static void mark_jobs(void *ctx, const uint64_t *job_ids, bool *ret_wanted, size_t count)
{
    struct janitor *j = ctx;
    struct tx *tx;

    if (atomic_load(&j->stop) || turn_fresh(j->turn) < 0 || tx_begin(j->store, false, &tx) < 0) {
        return; /* they are marked beforehand */
    }
    for (size_t i = 0; i < count; i++) {
        const struct key k = key_u64(job_ids[i]);
        ret_wanted[i] = tx_has(tx, T_JOB, &k) || !tx_ok(tx);
    }
    tx_abort(tx);
}

uint64_t janitor_sweep_logs(struct janitor *j, uint64_t min_age_ms)
{
    return logs_sweep(j->logs, os_realtime_ms(), min_age_ms, mark_jobs, j);
}

uint64_t janitor_sweep(struct janitor *j, uint64_t min_age_ms)
{
    uint64_t now_ms = os_realtime_ms();
    return blob_partial_sweep(j->blobs, now_ms, min_age_ms) +
           blob_sweep(j->blobs, now_ms, min_age_ms, wanted, j);
}

uint64_t janitor_sweep_pages(struct janitor *j)
{
    return pages_sweep(j->pages, published, j);
}

static void tend_authority(struct janitor *j)
{
    struct buf why = BUF_INIT;
    int r = authority_tend(j->authority, os_realtime_ms(), &why);

    if (r < 0) {
        log_error("main: the broker's certificate cannot be renewed: %s", buf_cstr(&why));
    } else if (r > 0) {
        log_info("main: the broker has a new certificate");
    }
    buf_release(&why);
}

static void wait_some(struct janitor *j, time_t seconds)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += seconds;
    pthread_mutex_lock(&j->lock);
    while (!atomic_load(&j->stop) && pthread_cond_timedwait(&j->wake, &j->lock, &at) == 0) {
        /* woken for nothing, or to stop */
    }
    pthread_mutex_unlock(&j->lock);
}

void janitor_sweep_keys(struct janitor *j, uint64_t min_age_ms)
{
    struct buf why = BUF_INIT;
    int r = rewrap_and_forget(j->store, j->turn, j->vault, min_age_ms, &j->stop, &why);

    if (r < 0 && r != -E_SHUTDOWN) {
        log_warn("main: stored variables are not all under the newest master key: %s",
                 why.n > 0 ? buf_cstr(&why) : err_text(r));
    } else if (why.n > 0) {
        log_warn("main: %s", buf_cstr(&why));
    }
    buf_release(&why);
}

static void wait_an_hour(struct janitor *j)
{
    for (unsigned i = 0; i < SWEEP_SECONDS / TEND_SECONDS && !atomic_load(&j->stop); i++) {
        wait_some(j, TEND_SECONDS);
        if (!atomic_load(&j->stop) && j->authority != NULL) {
            tend_authority(j);
        }
    }
}

static void *janitor_main(void *arg)
{
    struct janitor *j = arg;

    pthread_setname_np(pthread_self(), "janitor");
    janitor_sweep_keys(j, KEYS_MIN_AGE_MS); /* there may be a new one since the last start */
    for (;;) {
        wait_an_hour(j);
        if (atomic_load(&j->stop)) {
            return NULL;
        }
        uint64_t freed = janitor_sweep(j, SWEEP_MIN_AGE_MS);
        uint64_t left = blob_bring(j->blobs);
        if (left > 0) {
            log_warn("main: %" PRIu64 " blobs are not in S3 yet", left);
        }
        blob_shrink(j->blobs, os_realtime_ms(), COPIES_MIN_AGE_MS);
        if (freed > 0) {
            log_info("main: %" PRIu64 " bytes of blobs that nobody needs are gone", freed);
        }
        janitor_sweep_keys(j, KEYS_MIN_AGE_MS);
        janitor_sweep_pages(j);
        freed = janitor_sweep_logs(j, LOGS_MIN_AGE_MS);
        if (freed > 0) {
            log_info("main: %" PRIu64 " bytes of logs whose jobs are gone are gone, too", freed);
        }
    }
}

struct janitor *janitor_new(struct store *store, struct turn *turn, struct blobs *blobs,
                            struct pages *pages, struct logs *logs, struct vault *vault,
                            struct authority *authority)
{
    struct janitor *j = xcalloc(1, sizeof(*j));
    pthread_condattr_t attr;

    j->store = store;
    j->turn = turn;
    j->blobs = blobs;
    j->pages = pages;
    j->logs = logs;
    j->vault = vault;
    j->authority = authority;
    check(pthread_mutex_init(&j->lock, NULL) == 0);
    check(pthread_condattr_init(&attr) == 0);
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(&j->wake, &attr) == 0);
    pthread_condattr_destroy(&attr);
    check(pthread_create(&j->thread, NULL, janitor_main, j) == 0);
    return j;
}

void janitor_free(struct janitor *j)
{
    if (j == NULL) {
        return;
    }
    pthread_mutex_lock(&j->lock);
    atomic_store(&j->stop, true);
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->thread, NULL);
    pthread_cond_destroy(&j->wake);
    pthread_mutex_destroy(&j->lock);
    free(j);
}
