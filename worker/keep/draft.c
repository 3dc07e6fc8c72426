#include "common/base.h"

#include <stdlib.h>

#include "common/crypto.h"
#include "common/os.h"
#include "worker/keep/keep.h"
#include "worker/shim/record.h"

struct keep_draft {
    struct buf text;
};

static void add_u64(struct keep_draft *d, const char *name, uint64_t value)
{
    record_addz(&d->text, name);
    record_add_u64(&d->text, value);
    record_end(&d->text);
}

static void add(struct keep_draft *d, const char *name, struct str value)
{
    record_addz(&d->text, name);
    record_add(&d->text, value);
    record_end(&d->text);
}

struct keep_draft *keep_draft_new(uint64_t grace_ms, uint64_t log_bytes, const char *cwd,
                                  struct str command)
{
    struct keep_draft *d = xcalloc(1, sizeof(*d));

    check(cwd[0] == '/' && log_bytes > 0);
    add_u64(d, "grace", grace_ms);
    add_u64(d, "log", log_bytes);
    add(d, "cwd", str_from(cwd));
    add(d, "command", command);
    return d;
}

void keep_draft_mask(struct keep_draft *d, enum mask_kind kind, struct str text)
{
    struct str part;

    record_addz(&d->text, kind == MASK_PLAIN ? "mask" : "mask_wrapped");
    while (str_split(&text, '\0', &part)) {
        if (part.n > 0) {
            record_add(&d->text, part);
        }
    }
    record_end(&d->text);
}

void keep_draft_env(struct keep_draft *d, struct str name, struct str value)
{
    struct buf entry = BUF_INIT;

    check(name.n > 0 && memchr(name.p, '=', name.n) == NULL);
    buf_addf(&entry, STR_FMT "=" STR_FMT, STR_ARG(name), STR_ARG(value));
    add(d, "env", buf_str(&entry));
    crypto_wipe(entry.p, entry.n);
    buf_release(&entry);
}

void keep_draft_free(struct keep_draft *d)
{
    if (d != NULL) {
        crypto_wipe(d->text.p, d->text.n);
        buf_release(&d->text);
        free(d);
    }
}

int keep_draft_write(struct keep_draft *d, const char *folder)
{
    char *path = os_path_join(folder, "keep.conf");
    int r = os_put_file(path, d->text.p, d->text.n, 0600);

    free(path);
    keep_draft_free(d);
    return r;
}
