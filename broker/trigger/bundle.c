#include "common/base.h"

#include "broker/trigger/bundle.h"

#include <errno.h>
#include <unistd.h>

#include "common/limits.h"

bool plan_has_triggers(const Pb__Plan *plan)
{
    for (size_t i = 0; i < plan->n_jobs; i++) {
        if (plan->jobs[i]->trigger != NULL) {
            return true;
        }
    }
    return false;
}

int bundle_store(struct blobs *b, const Pb__Bundle *bundle, struct arena *arena,
                 Pb__SnapshotSource **ret)
{
    struct buf bytes = BUF_INIT;
    uint8_t digest[SHA256_BYTES];
    struct blob_upload *upload;
    uint64_t size;
    if (pb__bundle__get_packed_size(bundle) > LIMIT_BUNDLE) {
        return -E_TOO_BIG;
    }
    int r = blob_upload_begin(b, LIMIT_BUNDLE, &upload);
    if (r < 0) {
        return r;
    }
    PB_PACK(bundle, &bytes);
    r = blob_upload_write(upload, buf_cstr(&bytes), bytes.n);
    buf_release(&bytes);
    if (r < 0) {
        blob_upload_abort(upload);
        return r;
    }
    r = blob_upload_commit(upload, digest, &size);
    if (r < 0) {
        return r;
    }
    Pb__SnapshotSource *at = arena_alloc(arena, sizeof(*at));
    pb__snapshot_source__init(at);
    at->digest = pb_bytes(arena, str_of(digest, sizeof(digest)));
    at->size = size;
    *ret = at;
    return 0;
}

static int read_all(int fd, char *p, size_t n)
{
    while (n > 0) {
        ssize_t got = read(fd, p, n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? err_from_errno(errno) : -E_CORRUPT;
        }
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

int bundle_load(struct blobs *b, const Pb__SnapshotSource *at, struct arena *arena,
                Pb__Bundle **ret)
{
    struct buf bytes = BUF_INIT;
    uint64_t size;
    int fd;
    if (at->digest.len != SHA256_BYTES) {
        return -E_CORRUPT;
    }
    int r = blob_open(b, at->digest.data, &fd, &size);
    if (r < 0) {
        return r;
    }
    if (size > LIMIT_BUNDLE) {
        r = -E_CORRUPT;
    } else {
        r = read_all(fd, buf_space(&bytes, size + 1), size);
    }
    close(fd);
    if (r == 0) {
        buf_advance(&bytes, size);
        r = PB_UNPACK(arena, bundle, buf_cstr(&bytes), bytes.n, LIMIT_BUNDLE, ret) < 0 ? -E_CORRUPT
                                                                                       : 0;
    }
    buf_release(&bytes);
    return r;
}

const Pb__BundleFile *bundle_file(const Pb__Bundle *b, struct str name)
{
    for (size_t i = 0; i < b->n_files; i++) {
        if (str_eq(pb_str(b->files[i]->name), name)) {
            return b->files[i];
        }
    }
    return NULL;
}
