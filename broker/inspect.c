#include "common/base.h"

#include "broker/inspect.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/core/core.h"
#include "common/log.h"
#include "common/os.h"

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

int inspect_backup(const char *data, const char *target)
{
    struct buf why = BUF_INIT;
    struct store *store;
    int r = open_store(data, &store);

    if (r < 0) {
        return r;
    }
    char *dir = os_path_join(target, "store");
    r = store_backup(store, dir, &why);
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
    store_close(store);
    buf_release(&why);
    return r;
}
