#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/journal/disk.h"
#include "tests/sim/sim.h"

/* The disk under the journal, in memory. A process that dies leaves what it has written; when the
 * power goes, of what was not flushed any sector may be there or not, and of names that were not
 * made durable the last ones may be as before. */

#define SECTOR    512u
#define NAME_MAX_ 40u
#define NAMES     12u
#define PASTS     8u

struct disk_file {
    uint8_t *now;
    uint8_t *safe; /* what a flush has made durable */
    uint64_t bytes;
    uint64_t from, to; /* what was written and not flushed lies there */
    bool record;       /* commands were written that are not flushed yet */
    struct disk_file *next;
};

struct names {
    char name[NAMES][NAME_MAX_];
    struct disk_file *file[NAMES]; /* NULL: no name */
};

struct disk {
    struct names now;
    struct names past[PASTS]; /* since the last disk_sync, the oldest first: that one is safe */
    uint32_t past_count;
    struct disk_file *files; /* all that there ever were */
};

/* Whether the process is gone, or goes now; `ret` is what a call then says. */
static bool struck(int *ret)
{
    if (!sim->dead && sim->watching && strikes(sim->swarm.kill_in_turn)) {
        trace("broker: killed at its journal");
        sim->dead = true;
    }
    if (!sim->dead && sim->watching && strikes(sim->swarm.eio)) {
        trace("disk: EIO under the journal");
        *ret = -E_IO;
        return true;
    }
    *ret = -E_IO;
    return sim->dead;
}

static struct disk_file **find(struct disk *d, const char *name)
{
    for (uint32_t i = 0; i < NAMES; i++) {
        if (d->now.file[i] != NULL && strcmp(d->now.name[i], name) == 0) {
            return &d->now.file[i];
        }
    }
    return NULL;
}

/* Before names change. */
static void note_past(struct disk *d)
{
    if (d->past_count == PASTS) {
        memmove(&d->past[1], &d->past[2], (PASTS - 2) * sizeof(d->past[0]));
        d->past_count--;
    }
    d->past[d->past_count++] = d->now;
}

static void add_name(struct disk *d, const char *name, struct disk_file *f)
{
    for (uint32_t i = 0; i < NAMES; i++) {
        if (d->now.file[i] == NULL) {
            check(strlen(name) < NAME_MAX_);
            snprintf(d->now.name[i], NAME_MAX_, "%s", name);
            d->now.file[i] = f;
            return;
        }
    }
    breach_now("the journal keeps more than %u files", NAMES);
}

int disk_open(const char *dir, bool write, struct disk **ret)
{
    if (sim->disk == NULL) {
        sim->disk = xcalloc(1, sizeof(*sim->disk));
    }
    *ret = sim->disk;
    return 0;
}

void disk_close(struct disk *d)
{
}

int disk_list(struct disk *d, void (*fn)(void *ctx, const char *name), void *ctx)
{
    for (uint32_t i = 0; i < NAMES; i++) {
        if (d->now.file[i] != NULL) {
            fn(ctx, d->now.name[i]);
        }
    }
    return 0;
}

int disk_rename(struct disk *d, const char *from, const char *to)
{
    int r;

    if (struck(&r)) {
        return r;
    }
    struct disk_file **at = find(d, from);
    if (at == NULL) {
        return -E_NOT_FOUND;
    }
    struct disk_file *f = *at;
    note_past(d);
    *at = NULL;
    struct disk_file **old = find(d, to);
    if (old != NULL) {
        *old = NULL;
    }
    add_name(d, to, f);
    return 0;
}

int disk_unlink(struct disk *d, const char *name)
{
    int r;

    if (struck(&r)) {
        return r;
    }
    struct disk_file **at = find(d, name);
    if (at == NULL) {
        return -E_NOT_FOUND;
    }
    note_past(d);
    *at = NULL;
    return 0;
}

int disk_sync(struct disk *d)
{
    int r;

    if (struck(&r)) {
        return r;
    }
    d->past_count = 0;
    return 0;
}

int disk_create(struct disk *d, const char *name, uint64_t bytes, struct disk_file **ret)
{
    int r;

    if (struck(&r)) {
        return r;
    }
    if (sim->watching && strikes(sim->swarm.full)) {
        trace("disk: no space for a segment");
        return -E_NO_SPACE;
    }
    if (find(d, name) != NULL) {
        return -E_EXISTS;
    }
    struct disk_file *f = xcalloc(1, sizeof(*f));
    f->bytes = bytes;
    f->now = xcalloc(1, bytes);
    f->safe = xcalloc(1, bytes);
    f->next = d->files;
    d->files = f;
    note_past(d);
    add_name(d, name, f);
    *ret = f;
    return 0;
}

int disk_open_file(struct disk *d, const char *name, bool write, struct disk_file **ret)
{
    struct disk_file **at = find(d, name);

    if (at == NULL) {
        return -E_NOT_FOUND;
    }
    *ret = *at;
    return 0;
}

void disk_close_file(struct disk_file *f)
{
}

int disk_size(struct disk_file *f, uint64_t *ret_bytes)
{
    *ret_bytes = f->bytes;
    return 0;
}

static void put(struct disk_file *f, const void *p, size_t n, uint64_t offset)
{
    memcpy(f->now + offset, p, n);
    f->from = f->from == f->to ? offset : MIN(f->from, offset);
    f->to = MAX(f->to, offset + n);
}

/* Commands, and not a head. */
static bool is_record(const void *p, uint64_t offset)
{
    return offset > 0 && ((const uint8_t *)p)[0] != 0;
}

int disk_write(struct disk_file *f, const void *p, size_t n, uint64_t offset)
{
    const bool was_dead = sim->dead;
    int r;

    check(offset + n <= f->bytes);
    if (was_dead) {
        return -E_IO;
    }
    if (struck(&r)) { /* as much of it as got there */
        put(f, p, below(n + 1), offset);
        if (is_record(p, offset)) {
            broker_written();
        }
        return r;
    }
    put(f, p, n, offset);
    if (is_record(p, offset)) {
        f->record = true;
        broker_written();
    }
    return 0;
}

int disk_read(struct disk_file *f, void *p, size_t n, uint64_t offset, size_t *ret_n)
{
    const uint64_t there = offset < f->bytes ? MIN(n, f->bytes - offset) : 0;

    memcpy(p, f->now + offset, there);
    *ret_n = there;
    return 0;
}

int disk_flush(struct disk_file *f)
{
    int r;

    if (struck(&r)) {
        return r;
    }
    memcpy(f->safe + f->from, f->now + f->from, f->to - f->from);
    f->from = f->to = 0;
    if (f->record) {
        f->record = false;
        broker_flushed();
    }
    return 0;
}

void disk_killed(bool power)
{
    struct disk *d = sim->disk;

    for (struct disk_file *f = d != NULL ? d->files : NULL; f != NULL; f = f->next) {
        f->record = false;
    }
    if (d == NULL || !power) {
        return;
    }
    trace("disk: the power is gone");
    for (struct disk_file *f = d->files; f != NULL; f = f->next) {
        for (uint64_t at = 0; at < f->bytes; at += SECTOR) {
            if (memcmp(f->now + at, f->safe + at, SECTOR) != 0) {
                uint8_t *from = one_in(2) ? f->now : f->safe;
                memcpy((from == f->now ? f->safe : f->now) + at, from + at, SECTOR);
            }
        }
        f->from = f->to = 0;
    }
    if (d->past_count > 0 && one_in(2)) {
        d->now = d->past[below(d->past_count)];
    }
    d->past_count = 0;
}

void disk_release(void)
{
    struct disk *d = sim->disk;

    while (d != NULL && d->files != NULL) {
        struct disk_file *f = d->files;
        d->files = f->next;
        free(f->now);
        free(f->safe);
        free(f);
    }
    free(d);
    sim->disk = NULL;
}
