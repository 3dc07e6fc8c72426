#include "common/base.h"

#include "broker/journal/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/crypto.h"

#define SPARE_NAME "spare"
#define SUFFIX     ".journal"

struct segment *journal_segment(struct journal *j)
{
    check(j->began && j->count > 0);
    return &j->segments[j->count - 1];
}

static void segment_name(uint64_t generation, char ret[SEGMENT_NAME_BYTES])
{
    snprintf(ret, SEGMENT_NAME_BYTES, "%016" PRIx64 SUFFIX, generation);
}

static bool is_segment_name(const char *name)
{
    const size_t digits = 16;

    return strlen(name) == digits + strlen(SUFFIX) && strspn(name, "0123456789abcdef") == digits &&
           strcmp(name + digits, SUFFIX) == 0;
}

static void add_segment(struct journal *j, const struct segment *s)
{
    j->segments = xrealloc(j->segments, (j->count + 1) * sizeof(*j->segments));
    j->segments[j->count] = *s;
    j->segments[j->count++].stamp = stamp_of(j->o.secret, s->head.generation);
    j->generation = MAX(j->generation, s->head.generation);
}

struct listing {
    struct journal *j;
    struct buf *why;
    int r;
};

static int read_head(const struct segment *s, struct segment_head *ret)
{
    uint8_t p[SEGMENT_HEAD_BYTES];
    size_t n;
    int r = disk_read(s->file, p, sizeof(p), 0, &n);

    if (r < 0) {
        return r;
    }
    return n == sizeof(p) ? segment_head_parse(p, ret) : -E_CORRUPT;
}

static int check_head(const struct journal *j, const struct segment *s, struct buf *why)
{
    char name[SEGMENT_NAME_BYTES];

    if (memcmp(s->head.store_id, j->store_id, sizeof(j->store_id)) != 0) {
        buf_addf(why, "the journal %s/%s belongs to another store", j->o.dir, s->name);
        return -E_CONFLICT;
    }
    segment_name(s->head.generation, name);
    if (strcmp(name, s->name) != 0) {
        buf_addf(why, "the journal %s/%s says that it is %s", j->o.dir, s->name, name);
        return -E_CORRUPT;
    }
    return 0;
}

static void open_segment(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct segment s = {.file = NULL};

    if (l->r < 0 || !is_segment_name(name)) {
        return;
    }
    memcpy(s.name, name, strlen(name) + 1);
    l->r = disk_open_file(l->j->disk, name, !l->j->o.read_only, &s.file);
    if (l->r == 0) {
        l->r = disk_size(s.file, &s.bytes);
    }
    if (l->r == 0) {
        l->r = read_head(&s, &s.head);
    }
    if (l->r < 0) {
        buf_addf(l->why, "cannot read the journal %s/%s: %s", l->j->o.dir, name, err_text(l->r));
    } else {
        l->r = check_head(l->j, &s, l->why);
    }
    if (l->r < 0) {
        disk_close_file(s.file);
        return;
    }
    add_segment(l->j, &s);
}

static int by_generation(const void *a, const void *b)
{
    const uint64_t x = ((const struct segment *)a)->head.generation;
    const uint64_t y = ((const struct segment *)b)->head.generation;

    return (x > y) - (x < y);
}

static int open_folder(struct journal *j, struct buf *why)
{
    struct listing l = {.j = j, .why = why};
    int r = disk_open(j->o.dir, !j->o.read_only, &j->disk);

    if (r == -E_NOT_FOUND && j->o.read_only) {
        return 0; /* none was ever written */
    }
    if (r == 0) {
        r = disk_list(j->disk, open_segment, &l);
    }
    if (r < 0) {
        buf_addf(why, "cannot open the journal %s: %s", j->o.dir, err_text(r));
        return r;
    }
    if (j->count > 0) {
        qsort(j->segments, j->count, sizeof(*j->segments), by_generation);
    }
    return l.r;
}

int journal_open(const struct journal_options *o, struct journal **ret, struct buf *why)
{
    struct journal *j = xcalloc(1, sizeof(*j));

    check(o->segment_bytes % JOURNAL_BLOCK == 0);
    j->o = *o;
    j->o.dir = xstrdup(o->dir);
    j->o.segment_bytes = o->segment_bytes != 0 ? o->segment_bytes : JOURNAL_SEGMENT_BYTES;
    check(j->o.segment_bytes >= JOURNAL_SEGMENT_MIN);
    memcpy(j->store_id, o->store_id, sizeof(j->store_id));
    j->o.store_id = j->store_id;
    buf_init(&j->secret, 0);
    buf_add_str(&j->secret, o->secret);
    j->o.secret = buf_str(&j->secret);
    buf_init(&j->added, 0);
    int r = open_folder(j, why);
    if (r < 0) {
        journal_close(j);
        return r;
    }
    *ret = j;
    return 0;
}

bool journal_is_empty(const struct journal *j)
{
    return j->count == 0;
}

void journal_close(struct journal *j)
{
    if (j == NULL) {
        return;
    }
    for (size_t i = 0; i < j->count; i++) {
        disk_close_file(j->segments[i].file);
    }
    disk_close_file(j->spare.file);
    disk_close(j->disk);
    crypto_wipe(j->secret.p, j->secret.n);
    buf_release(&j->secret);
    buf_release(&j->added);
    free(j->segments);
    free((char *)j->o.dir);
    free(j);
}

/* The one of an earlier start, if it is as it should be; else a new one. */
static int make_spare(struct journal *j)
{
    struct segment s = {.name = SPARE_NAME};

    if (j->spare.file != NULL) {
        return 0;
    }
    int r = disk_open_file(j->disk, SPARE_NAME, true, &s.file);
    if (r == 0) {
        r = disk_size(s.file, &s.bytes);
        if (r == 0 && s.bytes == j->o.segment_bytes) {
            j->spare = s;
            j->names_pending = true; /* whoever called it so may have died before that was safe */
            return 0;
        }
        disk_close_file(s.file);
        r = r < 0 ? r : disk_unlink(j->disk, SPARE_NAME);
    }
    if (r < 0 && r != -E_NOT_FOUND) {
        return r;
    }
    r = disk_create(j->disk, SPARE_NAME, j->o.segment_bytes, &s.file);
    if (r == 0) {
        s.bytes = j->o.segment_bytes;
        j->spare = s;
        j->names_pending = true;
    }
    return r;
}

static int sync_names(struct journal *j)
{
    int r = j->names_pending ? disk_sync(j->disk) : 0;

    if (r == 0) {
        j->names_pending = false;
    }
    return r;
}

/* Makes the spare one the segment that is written to. What it held before has another stamp. */
static int use_spare(struct journal *j, uint64_t first_index)
{
    struct segment s = j->spare;
    uint8_t head[SEGMENT_HEAD_BYTES];

    s.head = (struct segment_head){.generation = j->generation + 1, .first_index = first_index};
    memcpy(s.head.store_id, j->store_id, sizeof(s.head.store_id));
    snprintf(s.head.writer, sizeof(s.head.writer), "%s", DAVIT_VERSION);
    segment_name(s.head.generation, s.name);
    segment_head_pack(&s.head, head);
    int r = sync_names(j); /* or a crash might bring it back under its last name */
    r = r < 0 ? r : disk_write(s.file, head, sizeof(head), 0);
    r = r < 0 ? r : disk_flush(s.file);
    r = r < 0 ? r : disk_rename(j->disk, SPARE_NAME, s.name);
    if (r < 0) {
        return r;
    }
    j->names_pending = true;
    j->spare = (struct segment){.file = NULL};
    add_segment(j, &s);
    j->stat.segments++;
    j->stat.bytes += sizeof(head);
    j->offset = SEGMENT_HEAD_BYTES;
    j->written_index = first_index - 1;
    j->durable_index = first_index - 1;
    return sync_names(j);
}

/* Takes the first `count` segments out: one becomes the spare, if there is none. */
static int retire(struct journal *j, size_t count)
{
    int r = 0;

    for (size_t i = 0; i < count && r == 0; i++) {
        struct segment *s = &j->segments[0];
        if (j->spare.file == NULL && s->bytes == j->o.segment_bytes) {
            r = disk_rename(j->disk, s->name, SPARE_NAME);
            if (r == 0) {
                j->spare = *s;
                memcpy(j->spare.name, SPARE_NAME, sizeof(SPARE_NAME));
            }
        } else {
            r = disk_unlink(j->disk, s->name);
            if (r == 0) {
                disk_close_file(s->file);
            }
        }
        if (r == 0) {
            j->names_pending = true;
            memmove(s, s + 1, --j->count * sizeof(*s));
        }
    }
    return r;
}

int journal_restart(struct journal *j, uint64_t applied)
{
    const size_t old = j->count;

    check(!j->o.read_only);
    journal_drop(j);
    j->began = false;
    int r = make_spare(j);
    if (r == -E_NO_SPACE && old > 0) {
        r = retire(j, old); /* one of them it is: nothing in them counts */
    }
    if (r == 0 && j->spare.file == NULL) {
        r = -E_NO_SPACE;
    }
    r = r < 0 ? r : use_spare(j, applied + 1);
    if (r < 0) {
        return r;
    }
    j->began = true;
    /* The journal goes on from here, whatever becomes of the old ones: what they hold is void, and
     * those that cannot be put away now are at the next restart. The spare one is a luxury, for
     * when the store cannot commit. */
    if (retire(j, j->count - 1) == 0) {
        make_spare(j);
    }
    return 0;
}

void journal_add(struct journal *j, uint64_t index, const Pb__Command *cmd)
{
    uint8_t head[COMMAND_HEAD_BYTES];

    if (j->added_count == 0) {
        static const uint8_t room[RECORD_HEAD_BYTES];
        buf_clear(&j->added);
        buf_add(&j->added, room, sizeof(room));
        j->added_first = index;
        check(index > j->written_index);
    }
    check(j->added_count == 0 || index == j->added_first + j->added_count);
    const size_t at = j->added.n;
    buf_add(&j->added, head, sizeof(head)); /* filled in below */
    PB_PACK(cmd, &j->added);
    put_u32((uint8_t *)j->added.p + at, (uint32_t)(j->added.n - at - sizeof(head)));
    j->added_count++;
}

void journal_drop(struct journal *j)
{
    j->added_count = 0;
    buf_clear(&j->added);
}

bool journal_has_added(const struct journal *j)
{
    return j->added_count > 0;
}

static void seal(struct journal *j, const struct segment *s)
{
    static const uint8_t zeros[JOURNAL_BLOCK];
    const uint64_t length = j->added.n - RECORD_HEAD_BYTES;
    const struct record_head head = {
        .length = (uint32_t)length,
        .count = j->added_count,
        .stamp = s->stamp,
        .first_index = j->added_first,
        .durable_index = j->durable_index,
        .version = j->o.command_version,
    };

    record_seal(&head, (uint8_t *)j->added.p);
    const size_t padding = (size_t)record_room(length) - j->added.n;
    buf_add(&j->added, zeros, padding);
}

int journal_write(struct journal *j)
{
    if (j->added_count == 0) {
        return 0;
    }
    if (!j->began) {
        return -E_FULL;
    }
    struct segment *s = journal_segment(j);
    const uint64_t bytes = record_room(j->added.n - RECORD_HEAD_BYTES);
    if (bytes > s->bytes - j->offset) {
        return -E_FULL;
    }
    if (j->added_first > j->written_index + 1) {
        j->durable_index = j->added_first - 1; /* the store has what is missing here */
    }
    seal(j, s);
    int r = disk_write(s->file, j->added.p, j->added.n, j->offset);
    if (r < 0) {
        j->began = false; /* what stands there now must not be followed by anything */
        journal_drop(j);
        return r;
    }
    j->offset += bytes;
    j->written_index = j->added_first + j->added_count - 1;
    j->stat.records++;
    j->stat.commands += j->added_count;
    j->stat.bytes += bytes;
    journal_drop(j);
    return 0;
}

int journal_extend(struct journal *j)
{
    if (!j->began || j->spare.file == NULL) {
        return -E_FULL;
    }
    int r = journal_flush(j); /* only the last segment may have an end that is not whole */
    if (r == 0) {
        r = use_spare(j, j->written_index + 1);
    }
    if (r == 0) {
        make_spare(j); /* or there is none */
    }
    return r;
}

int journal_flush(struct journal *j)
{
    if (journal_is_flushed(j)) {
        return 0;
    }
    int r = disk_flush(journal_segment(j)->file);
    if (r == 0) {
        j->durable_index = j->written_index;
        j->stat.flushes++;
    }
    return r;
}

bool journal_is_flushed(const struct journal *j)
{
    return !j->began || j->durable_index >= j->written_index;
}

void journal_get_stat(const struct journal *j, struct journal_stat *ret)
{
    *ret = j->stat;
}
