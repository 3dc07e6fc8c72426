#include "common/base.h"

#include "tests/unit/journal/fake_disk.h"

#include <stdio.h>
#include <stdlib.h>

#define FILES  16
#define SECTOR 512u

struct inode {
    char name[64];         /* now; empty: unlinked */
    char durable_name[64]; /* after a crash */
    uint8_t *now;
    uint8_t *durable;
    uint64_t size;
    bool made; /* its size is durable */
    unsigned open;
};

struct disk {
    bool write;
};

struct disk_file {
    struct inode *inode;
};

static struct inode inodes[FILES];
static bool folder;
static uint64_t calls;
static uint64_t fail_at;
static int fail_error;
static bool fail_for_good;
static uint64_t random_state;

static uint32_t roll(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

static void forget(struct inode *i)
{
    check(i->open == 0);
    free(i->now);
    free(i->durable);
    memset(i, 0, sizeof(*i));
}

void fake_disk_reset(void)
{
    for (size_t i = 0; i < FILES; i++) {
        forget(&inodes[i]);
    }
    folder = false;
    calls = 0;
    fail_at = 0;
}

uint64_t fake_disk_calls(void)
{
    return calls;
}

void fake_disk_fail(uint64_t n, int error, bool dead)
{
    fail_at = n;
    fail_error = error;
    fail_for_good = dead;
}

static int fault(void)
{
    calls++;
    if (calls == fail_at) {
        return fail_error;
    }
    return fail_at != 0 && fail_for_good && calls > fail_at ? -E_IO : 0;
}

static struct inode *find(const char *name)
{
    for (size_t i = 0; i < FILES; i++) {
        if (inodes[i].now != NULL && strcmp(inodes[i].name, name) == 0) {
            return &inodes[i];
        }
    }
    return NULL;
}

/* One sector that was not flushed: the old bytes, the new ones, or some of them. */
static void settle_sector(struct inode *i, uint64_t at, uint32_t mode)
{
    uint8_t *durable = i->durable + at;
    const uint8_t *now = i->now + at;
    size_t keep = 0;

    if (memcmp(durable, now, SECTOR) == 0) {
        return;
    }
    if (mode == 1 || (mode >= 2 && roll(2) == 0)) {
        keep = mode == 3 ? roll(SECTOR + 1) : SECTOR;
    }
    memcpy(durable, now, keep);
}

void fake_disk_crash(uint64_t seed)
{
    const uint32_t mode = (uint32_t)(seed % 4); /* all lost, all kept, by sectors, torn */

    random_state = seed;
    for (size_t n = 0; n < FILES; n++) {
        struct inode *i = &inodes[n];
        if (i->now == NULL) {
            continue;
        }
        check(i->open == 0);
        for (uint64_t at = 0; at < i->size; at += SECTOR) {
            settle_sector(i, at, mode);
        }
        memcpy(i->now, i->durable, i->size);
        if (mode == 1 || (mode >= 2 && roll(2) == 0)) {
            memcpy(i->durable_name, i->name, sizeof(i->name));
        }
    }
    for (size_t n = 0; n < FILES; n++) {
        struct inode *i = &inodes[n];
        struct inode *other = NULL;
        memcpy(i->name, i->durable_name, sizeof(i->name));
        for (size_t m = 0; m < n && i->name[0] != '\0'; m++) {
            other = strcmp(inodes[m].name, i->name) == 0 ? &inodes[m] : other;
        }
        if (i->now != NULL && (i->name[0] == '\0' || other != NULL)) {
            forget(i);
        }
    }
    fail_at = 0;
}

uint8_t *fake_disk_bytes(const char *name, uint64_t *ret_size)
{
    struct inode *i = find(name);

    if (i == NULL) {
        return NULL;
    }
    *ret_size = i->size;
    return i->now;
}

const char *fake_disk_last(const char *suffix)
{
    const char *last = NULL;

    for (size_t n = 0; n < FILES; n++) {
        const char *name = inodes[n].name;
        const size_t length = strlen(name);
        if (length > strlen(suffix) && strcmp(name + length - strlen(suffix), suffix) == 0 &&
            (last == NULL || strcmp(name, last) > 0)) {
            last = name;
        }
    }
    return last;
}

int disk_open(const char *dir, bool write, struct disk **ret)
{
    if (!folder && !write) {
        return -E_NOT_FOUND;
    }
    folder = true;
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->write = write;
    return 0;
}

void disk_close(struct disk *d)
{
    free(d);
}

int disk_list(struct disk *d, void (*fn)(void *ctx, const char *name), void *ctx)
{
    for (size_t i = 0; i < FILES; i++) {
        if (inodes[i].now != NULL && inodes[i].name[0] != '\0') {
            fn(ctx, inodes[i].name);
        }
    }
    return 0;
}

static void drop_name(const char *name)
{
    struct inode *i = find(name);

    if (i != NULL) {
        i->name[0] = '\0';
    }
}

int disk_rename(struct disk *d, const char *from, const char *to)
{
    struct inode *i = find(from);
    int r = fault();

    if (r < 0 || i == NULL) {
        return r < 0 ? r : -E_NOT_FOUND;
    }
    drop_name(to);
    snprintf(i->name, sizeof(i->name), "%s", to);
    return 0;
}

int disk_unlink(struct disk *d, const char *name)
{
    int r = fault();

    if (r == 0) {
        drop_name(name);
    }
    return r;
}

int disk_sync(struct disk *d)
{
    int r = fault();

    for (size_t n = 0; n < FILES && r == 0; n++) {
        struct inode *i = &inodes[n];
        memcpy(i->durable_name, i->name, sizeof(i->name));
        if (i->name[0] == '\0' && i->open == 0) {
            forget(i);
        }
    }
    return r;
}

static struct disk_file *open_inode(struct inode *i)
{
    struct disk_file *f = xcalloc(1, sizeof(*f));

    f->inode = i;
    i->open++;
    return f;
}

int disk_create(struct disk *d, const char *name, uint64_t bytes, struct disk_file **ret)
{
    struct inode *i = inodes;
    int r = find(name) != NULL ? -E_EXISTS : fault();

    if (r < 0) {
        return r;
    }
    while (i->now != NULL) {
        i++;
        check(i < inodes + FILES);
    }
    snprintf(i->name, sizeof(i->name), "%s", name);
    i->size = bytes;
    i->now = xcalloc(1, bytes);
    i->durable = xcalloc(1, bytes);
    *ret = open_inode(i);
    return 0;
}

int disk_open_file(struct disk *d, const char *name, bool write, struct disk_file **ret)
{
    struct inode *i = find(name);

    if (i == NULL) {
        return -E_NOT_FOUND;
    }
    *ret = open_inode(i);
    return 0;
}

void disk_close_file(struct disk_file *f)
{
    if (f != NULL) {
        f->inode->open--;
        free(f);
    }
}

int disk_size(struct disk_file *f, uint64_t *ret_bytes)
{
    *ret_bytes = f->inode->size;
    return 0;
}

/* What fails has written half. */
int disk_write(struct disk_file *f, const void *p, size_t n, uint64_t offset)
{
    int r = fault();

    check(offset + n <= f->inode->size);
    memcpy(f->inode->now + offset, p, r < 0 ? n / 2 : n);
    return r;
}

int disk_read(struct disk_file *f, void *p, size_t n, uint64_t offset, size_t *ret_n)
{
    const uint64_t left = f->inode->size - MIN(offset, f->inode->size);

    *ret_n = (size_t)MIN(n, left);
    memcpy(p, f->inode->now + offset, *ret_n);
    return 0;
}

int disk_flush(struct disk_file *f)
{
    int r = fault();

    if (r == 0) {
        memcpy(f->inode->durable, f->inode->now, f->inode->size);
    }
    return r;
}
