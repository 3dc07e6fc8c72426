#include "common/base.h"

#include "broker/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/core/core.h"
#include "broker/core/query.h"
#include "broker/journal/journal.h"
#include "common/log.h"
#include "common/os.h"

#define LOOKS          3u
#define COMMIT_WAIT_MS 10000u

static int open_store(const char *data, struct store **ret)
{
    struct store_options options = {.read_only = true};
    struct buf why = BUF_INIT;
    char *dir = os_path_join(data, "store");
    int r = store_open(dir, &options, ret, &why);

    if (r < 0) {
        log_error("main: %s", buf_cstr(&why));
    }
    free(dir);
    buf_release(&why);
    return r;
}

/* What the store has, and what the journal has behind it. */
struct extent {
    uint64_t applied;
    uint64_t last;
};

static int count_command(void *ctx, uint64_t index, struct str packed)
{
    struct extent *e = ctx;

    e->last = index;
    return 0;
}

/* The journal first: what is not in it any more is in the store by then. */
static int read_extent(const struct journal_options *o, struct store *store, struct extent *ret,
                       struct buf *why)
{
    struct journal *j;
    struct tx *tx;
    int r = journal_open(o, &j, why);

    if (r < 0) {
        return r;
    }
    r = tx_begin(store, false, &tx);
    if (r == 0) {
        const Pb__MetaRecord *meta = meta_get(tx);
        ret->applied = meta != NULL ? meta->applied_index : 0;
        ret->last = ret->applied;
        tx_abort(tx);
        r = journal_replay(j, ret->applied, count_command, ret, why);
    }
    journal_close(j);
    return r;
}

/* A broker may be at work on both: what looks like a gap is looked at again. */
static int look_at_journal(const char *data, struct store *store, struct extent *ret,
                           struct buf *why)
{
    char *dir = os_path_join(data, "journal");
    struct journal_options o = {.dir = dir, .command_version = COMMAND_VERSION, .read_only = true};
    struct tx *tx = NULL;
    int r = tx_begin(store, false, &tx);

    *ret = (struct extent){.applied = 0};
    const Pb__MetaRecord *meta = r == 0 ? meta_get(tx) : NULL;
    if (meta != NULL && meta->store_id.len == JOURNAL_STORE_ID_BYTES) {
        o.store_id = meta->store_id.data;
        o.secret = pb_str(meta->job_token_key);
        for (unsigned i = 0; i < LOOKS; i++) {
            buf_clear(why);
            r = read_extent(&o, store, ret, why);
            if (r != -E_CORRUPT && r != -E_NOT_FOUND) {
                break;
            }
        }
    }
    if (tx != NULL) {
        tx_abort(tx);
    }
    free(dir);
    return r;
}

static bool broker_runs(const char *data)
{
    char *dir = os_path_join(data, "store");
    char *path = os_path_join(dir, "davit.lock");
    int fd;
    int r = os_lock_file(path, &fd);

    if (r == 0) {
        close(fd);
    }
    free(path);
    free(dir);
    return r == -E_BUSY;
}

/* What was acknowledged before the backup began shall be in it: the broker commits that soon. */
static int wait_for_commit(const char *data, struct store *store, struct buf *why)
{
    const uint64_t until_ms = os_monotonic_ms() + COMMIT_WAIT_MS;
    struct extent first;
    struct extent now;
    int r = look_at_journal(data, store, &first, why);

    for (now = first; r == 0 && now.applied < first.last;
         r = look_at_journal(data, store, &now, why)) {
        if (!broker_runs(data)) {
            buf_addf(why,
                     "the journal has %" PRIu64 " commands that the store has not: start davitd "
                     "--data %s once and stop it",
                     now.last - now.applied, data);
            return -E_CONFLICT;
        }
        if (os_monotonic_ms() > until_ms) {
            buf_addz(why, "the broker does not commit");
            return -E_TIMEOUT;
        }
        os_sleep_ms(20);
    }
    return r;
}

int inspect_backup(const char *data, const char *target)
{
    struct buf why = BUF_INIT;
    struct store *store;
    int r = open_store(data, &store);

    if (r < 0) {
        return r;
    }
    char *dir = os_path_join(target, "store");
    r = wait_for_commit(data, store, &why);
    r = r < 0 ? r : store_backup(store, dir, &why);
    if (r < 0) {
        log_error("main: no backup: %s", buf_cstr(&why));
    } else {
        printf("The store is in %s. Logs and blobs never change once written: copy %s/logs and "
               "%s/blobs beside it now.\n",
               dir, data, data);
    }
    free(dir);
    store_close(store);
    buf_release(&why);
    return r;
}

static void print_breach(void *ctx, const char *text)
{
    puts(text);
}

static int audit(struct store *store, uint64_t *ret_breaches)
{
    struct tx *tx;
    int r = tx_begin(store, false, &tx);

    if (r < 0) {
        return r;
    }
    uint64_t breaches = core_audit(tx, print_breach, NULL);
    r = tx_error(tx);
    tx_abort(tx);
    if (r == 0) {
        *ret_breaches = breaches;
    }
    return r;
}

static int fsck_journal(const char *data, struct store *store)
{
    struct buf why = BUF_INIT;
    struct extent e;
    int r = look_at_journal(data, store, &e, &why);

    if (r < 0) {
        puts(why.n > 0 ? buf_cstr(&why) : err_text(r));
    } else if (e.last > e.applied) {
        printf("Commands of the journal that the store does not have yet: %" PRIu64 "\n",
               e.last - e.applied);
    }
    buf_release(&why);
    return r;
}

int inspect_fsck(const char *data)
{
    struct buf why = BUF_INIT;
    struct store *store;
    uint64_t breaches = 0;
    int r = open_store(data, &store);

    if (r < 0) {
        return r;
    }
    r = store_check(store, &why);
    if (r < 0) {
        puts(buf_cstr(&why));
    }
    int audited = audit(store, &breaches);
    r = r < 0 ? r : audited;
    if (r < 0) {
        printf("The store cannot be read as a whole: %s\n", err_text(r));
    } else {
        printf("%" PRIu64 " broken rules\n", breaches);
        r = breaches > 0 ? -E_CORRUPT : 0;
    }
    int journal = fsck_journal(data, store);
    r = r < 0 ? r : journal;
    store_close(store);
    buf_release(&why);
    return r;
}
