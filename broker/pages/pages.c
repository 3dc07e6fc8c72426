#include "common/base.h"

#include "broker/pages/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/archive.h"
#include "common/limits.h"
#include "common/os.h"

#define TMP_PREFIX "tmp-"

struct pages_name pages_name(const uint8_t digest[SHA256_BYTES])
{
    struct pages_name name;
    str_to_hex(digest, SHA256_BYTES, name.folder);
    snprintf(name.bad, sizeof(name.bad), "%s" PAGES_BAD, name.folder);
    return name;
}

static void remove_leftover(void *ctx, const char *name)
{
    const struct pages *p = ctx;
    if (str_starts(str_from(name), STR(TMP_PREFIX))) {
        char *path = os_path_join(p->dir, name);
        os_remove_tree(path);
        free(path);
    }
}

int pages_open(const char *dir, struct blobs *blobs, struct pages **ret, struct buf *why)
{
    struct pages *p = xcalloc(1, sizeof(*p));
    int r = os_mkdir_p(dir, 0700);
    p->blobs = blobs;
    p->dir = xstrdup(dir);
    p->dir_fd = r < 0 ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r == 0 && p->dir_fd < 0) {
        r = err_from_errno(errno);
    }
    if (r == 0) {
        r = os_list_dir(dir, remove_leftover, p);
    }
    if (r < 0) {
        buf_addf(why, "cannot open the folder of pages %s: %s", dir, err_text(r));
        pages_close(p);
        return r;
    }
    *ret = p;
    return 0;
}

void pages_close(struct pages *p)
{
    if (p == NULL) {
        return;
    }
    if (p->dir_fd >= 0) {
        close(p->dir_fd);
    }
    free(p->dir);
    free(p);
}

bool pages_ready(struct pages *p, const uint8_t digest[SHA256_BYTES])
{
    struct pages_name name = pages_name(digest);
    return faccessat(p->dir_fd, name.folder, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
           faccessat(p->dir_fd, name.bad, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* The archive itself is at fault: another try would end the same. */
static bool is_refusal(int r)
{
    return r == -E_INVALID || r == -E_LIMIT || r == -E_TOO_BIG || r == -E_CORRUPT;
}

/* What is there already was put there by somebody who was faster, and is the same. */
static int publish(struct pages *p, const char *tmp, const char *name)
{
    char *to = os_path_join(p->dir, name);
    int r = rename(tmp, to) == 0 || errno == EEXIST || errno == ENOTEMPTY ? 0
                                                                          : err_from_errno(errno);
    free(to);
    return r;
}

/* A fresh name for what is not whole: a start removes it. Heap. */
static char *tmp_path(const struct pages *p)
{
    uint8_t id[8];
    char name[sizeof(TMP_PREFIX) + 2 * sizeof(id)] = TMP_PREFIX;
    os_random(id, sizeof(id));
    str_to_hex(id, sizeof(id), name + strlen(TMP_PREFIX));
    return os_path_join(p->dir, name);
}

/* What may be unpacked on this disk, where the store is, too. */
static uint64_t room_for(const struct pages *p)
{
    uint64_t free_bytes = 0;
    uint64_t total;
    if (os_disk_free(p->dir, &free_bytes, &total) < 0 || free_bytes <= LIMIT_DISK_RESERVE) {
        return 0;
    }
    return MIN(LIMIT_PAGES_BYTES, free_bytes - LIMIT_DISK_RESERVE);
}

static int unpack_into(struct pages *p, int fd, const char *tmp, const struct pages_name *name,
                       struct buf *why)
{
    struct archive_info info;
    uint64_t room = room_for(p);
    int r = os_mkdir_p(tmp, 0700);
    if (r < 0) {
        return r;
    }
    r = archive_unpack(fd, tmp, LIMIT_ARTIFACT_FILES, room, &info, why);
    if (r == -E_TOO_BIG && room < LIMIT_PAGES_BYTES) {
        return -E_NO_SPACE; /* not the archive's fault */
    }
    if (is_refusal(r)) {
        char *bad = os_path_join(p->dir, name->bad);
        r = os_put_file(bad, why->p, why->n, 0600);
        free(bad);
        return r;
    }
    /* All of it is on the disk before it has its name. */
    if (r == 0 && syncfs(p->dir_fd) != 0) {
        r = err_from_errno(errno);
    }
    return r == 0 ? publish(p, tmp, name->folder) : r;
}

int pages_unpack(struct pages *p, const uint8_t digest[SHA256_BYTES], struct buf *why)
{
    struct pages_name name = pages_name(digest);
    uint64_t size;
    int fd;
    if (pages_ready(p, digest)) {
        return 0; /* many may ask at once, and wait one behind the other */
    }
    int r = blob_open(p->blobs, digest, &fd, &size);
    if (r < 0) {
        return r;
    }
    char *tmp = tmp_path(p);
    r = unpack_into(p, fd, tmp, &name, why);
    os_remove_tree(tmp);
    free(tmp);
    close(fd);
    return r;
}

struct sweep {
    struct pages *pages;
    blob_wanted_fn wanted;
    void *ctx;
    uint64_t removed;
};

static void sweep_one(void *ctx, const char *entry)
{
    struct sweep *s = ctx;
    uint8_t digest[SHA256_BYTES];
    struct str name = str_from(entry);
    bool bad = str_ends(name, STR(PAGES_BAD));
    struct str hex = str_sub(name, 0, bad ? name.n - strlen(PAGES_BAD) : name.n);
    if (str_from_hex(hex, digest, sizeof(digest)) < 0 || s->wanted(s->ctx, digest)) {
        return;
    }
    /* A folder that has its name is whole, whenever we are killed. */
    char *path = os_path_join(s->pages->dir, entry);
    char *tmp = tmp_path(s->pages);
    s->removed += rename(path, tmp) == 0 && os_remove_tree(tmp) == 0;
    free(tmp);
    free(path);
}

uint64_t pages_sweep(struct pages *p, blob_wanted_fn wanted, void *ctx)
{
    struct sweep s = {.pages = p, .wanted = wanted, .ctx = ctx};
    os_list_dir(p->dir, sweep_one, &s);
    return s.removed;
}
