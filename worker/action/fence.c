#include "common/base.h"

#include "worker/action/fence.h"

#include <stdlib.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"
#include "common/str.h"

#define FILE_MAX 256u

void fences_init(struct fences *f, const char *state_dir)
{
    *f = (struct fences){.dir = os_path_join(state_dir, "fences"), .count = SIZE_MAX};
}

void fences_release(struct fences *f)
{
    free(f->dir);
    f->dir = NULL;
}

static void count_one(void *ctx, const char *name)
{
    size_t *count = ctx;
    (void)name;
    (*count)++;
}

static int open_dir(struct fences *f)
{
    if (f->count != SIZE_MAX) {
        return 0;
    }
    size_t count = 0;
    int r = os_mkdir_p(f->dir, 0700);
    r = r < 0 ? r : os_list_dir(f->dir, count_one, &count);
    if (r == 0) {
        f->count = count;
    }
    return r;
}

/* "GENERATION EPOCH ROLLOUT\n" */
static int parse(struct str text, Pb__ActionFence *ret)
{
    struct str rest = str_trim(text);
    uint64_t numbers[3];
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        struct str word;
        if (!str_split(&rest, ' ', &word) || str_to_u64(word, &numbers[i]) < 0) {
            return -E_CORRUPT;
        }
    }
    ret->generation = numbers[0];
    ret->epoch = numbers[1];
    ret->rollout = numbers[2];
    return rest.n == 0 ? 0 : -E_CORRUPT;
}

static int load(const char *path, Pb__ActionFence *ret)
{
    struct buf text = BUF_INIT;
    int r = os_read_file(path, FILE_MAX, &text);
    r = r < 0 ? r : parse(buf_str(&text), ret);
    buf_release(&text);
    return r == -E_TOO_BIG ? -E_CORRUPT : r;
}

static int save(struct fences *f, const char *path, const Pb__ActionFence *fence, bool is_new)
{
    struct buf text = BUF_INIT;
    if (is_new && f->count >= LIMIT_FENCES) {
        return -E_LIMIT;
    }
    buf_addf(&text, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", fence->generation, fence->epoch,
             fence->rollout);
    int r = os_write_file(path, text.p, text.n, 0600);
    buf_release(&text);
    f->count += r == 0 && is_new;
    return r;
}

static int compare(const Pb__ActionFence *a, const Pb__ActionFence *b)
{
    if (a->generation != b->generation) {
        return a->generation < b->generation ? -1 : 1;
    }
    return a->epoch == b->epoch ? 0 : a->epoch < b->epoch ? -1 : 1;
}

static bool may_pass(const Pb__ActionFence *fence, const Pb__ActionFence *seen, int order)
{
    bool same_rollout = fence->rollout == seen->rollout;
    return order >= 0 && (same_rollout || fence->generation > seen->generation);
}

int fences_pass(struct fences *f, const char *target, const Pb__ActionFence *fence,
                Pb__ActionFence *ret_seen)
{
    uint8_t digest[SHA256_BYTES];
    char name[2 * SHA256_BYTES + 1];
    Pb__ActionFence seen = PB__ACTION_FENCE__INIT;
    int r = open_dir(f);
    if (r < 0) {
        return r;
    }
    crypto_sha256(target, strlen(target), digest);
    str_to_hex(digest, sizeof(digest), name);
    char *path = os_path_join(f->dir, name);
    r = load(path, &seen);
    bool is_new = r == -E_NOT_FOUND;
    int order = is_new ? 1 : compare(fence, &seen);
    if (is_new) {
        r = save(f, path, fence, true);
    } else if (r == 0 && !may_pass(fence, &seen, order)) {
        *ret_seen = seen;
        r = -E_STALE_EPOCH;
    } else if (r == 0 && order > 0) {
        r = save(f, path, fence, false);
    }
    free(path);
    return r;
}
