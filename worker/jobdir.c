#include "common/base.h"

#include "worker/jobdir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

#define NOTE_MAX (4u * KIB)

bool job_key_eq(struct job_key a, struct job_key b)
{
    return a.job_id == b.job_id && a.attempt == b.attempt && a.epoch == b.epoch;
}

struct job_key job_key_of(const Pb__JobKey *key)
{
    return key == NULL ? (struct job_key){0}
                       : (struct job_key){key->job_id, key->attempt, key->epoch};
}

char *jobdir_path(const char *jobs_dir, struct job_key key)
{
    struct buf path = BUF_INIT;
    buf_addf(&path, "%s/%" PRIu64 "-%" PRIu64 "-%" PRIu64, jobs_dir, key.job_id, key.attempt,
             key.epoch);
    return buf_take(&path);
}

int jobdir_parse(const char *name, struct job_key *ret)
{
    struct job_key key;
    uint64_t *const fields[] = {&key.job_id, &key.attempt, &key.epoch};
    struct str rest = str_from(name);
    struct str part;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (!str_split(&rest, '-', &part) || str_to_u64(part, fields[i]) < 0) {
            return -E_INVALID;
        }
    }
    if (rest.n > 0) {
        return -E_INVALID;
    }
    *ret = key;
    return 0;
}

static int write_in(const char *dir, const char *name, struct str bytes)
{
    char *path = os_path_join(dir, name);
    int r = os_write_file(path, bytes.p, bytes.n, 0600);
    free(path);
    return r;
}

/* No wait for the disk: a crash of the machine ends the job, and its slot with it. */
static int write_slot(const char *dir, uint32_t slot)
{
    struct buf text = BUF_INIT;
    char *path = os_path_join(dir, "slot");
    buf_addf(&text, "%" PRIu32 "\n", slot);
    int r = os_put_file(path, text.p, text.n, 0600);
    free(path);
    buf_release(&text);
    return r;
}

static int read_in(const char *dir, const char *name, size_t limit, struct buf *out)
{
    char *path = os_path_join(dir, name);
    int r = os_read_file(path, limit, out);
    free(path);
    return r;
}

static bool is_in(const char *dir, const char *name)
{
    char *path = os_path_join(dir, name);
    bool there = os_exists(path);
    free(path);
    return there;
}

static int write_spec(const char *dir, const Pb__JobSpec *spec)
{
    struct buf bytes = BUF_INIT;
    PB_PACK(spec, &bytes);
    int r = write_in(dir, "spec.pb", buf_str(&bytes));
    buf_release(&bytes);
    return r;
}

int jobdir_create(const char *dir, uint32_t slot, const Pb__JobSpec *spec)
{
    char *parent = os_path_join(dir, "..");
    int r = os_mkdir_p(dir, 0700);
    if (r == 0) {
        r = write_slot(dir, slot);
    }
    if (r == 0) {
        r = write_spec(dir, spec);
    }
    if (r == 0) {
        r = os_fsync_dir(parent);
    }
    if (r < 0) {
        (void)os_remove_tree(dir);
    }
    free(parent);
    return r;
}

static int load_slot(const char *dir, uint32_t *ret)
{
    struct buf text = BUF_INIT;
    uint64_t slot = 0;
    int r = read_in(dir, "slot", 32, &text);
    if (r == 0 && (str_to_u64(str_trim(buf_str(&text)), &slot) < 0 || slot > UINT32_MAX)) {
        r = -E_CORRUPT;
    }
    buf_release(&text);
    if (r == 0) {
        *ret = (uint32_t)slot;
    }
    return r;
}

static int load_message(const char *dir, const char *name, struct arena *arena,
                        const ProtobufCMessageDescriptor *desc, ProtobufCMessage **ret)
{
    struct buf bytes = BUF_INIT;
    int r = read_in(dir, name, LIMIT_JOB_SPEC, &bytes);
    if (r == 0 && pb_unpack(arena, desc, buf_cstr(&bytes), bytes.n, LIMIT_JOB_SPEC, ret) < 0) {
        r = -E_CORRUPT;
    }
    buf_release(&bytes);
    return r;
}

static void forget_script(void *ctx, const char *name)
{
    if (str_ends(str_from(name), STR(".sh"))) {
        char *path = os_path_join(ctx, name);
        unlink(path);
        free(path);
    }
}

/* What the end has no more use for, and what values of variables may stand in. */
static void forget_values(const char *dir)
{
    static const char *const names[] = {"spec.pb", "prepared.pb", "shim.conf"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *path = os_path_join(dir, names[i]);
        unlink(path);
        free(path);
    }
    (void)os_list_dir(dir, forget_script, (void *)(uintptr_t)dir);
}

/* The job as it was, or all that is left of one that has ended. */
static int load_spec(const char *dir, struct arena *arena, struct jobdir *d)
{
    int r = load_message(dir, "spec.pb", arena, &pb__job_spec__descriptor,
                         (ProtobufCMessage **)&d->spec);
    if (d->outcome == NULL || r == 0) {
        return r;
    }
    d->spec = arena_alloc(arena, sizeof(*d->spec));
    pb__job_spec__init(d->spec);
    return 0;
}

int jobdir_load(const char *dir, struct arena *arena, struct jobdir *ret)
{
    struct jobdir d = {0};
    int r = load_message(dir, "outcome.pb", arena, &pb__outcome__descriptor,
                         (ProtobufCMessage **)&d.outcome);
    r = r == -E_NOT_FOUND ? 0 : r;
    r = r < 0 ? r : load_spec(dir, arena, &d);
    if (r == 0) {
        r = load_slot(dir, &d.slot);
    }
    if (r == 0 && d.outcome != NULL) {
        forget_values(dir); /* the process that wrote the end may have been killed before */
    }
    if (r == 0) {
        d.started = is_in(dir, "pid");
        *ret = d;
    }
    return r;
}

int jobdir_shim_pid(const char *dir, pid_t *ret)
{
    struct buf text = BUF_INIT;
    struct str rest, part;
    uint64_t pid = 0;
    int r = read_in(dir, "pid", 64, &text);
    rest = buf_str(&text);
    if (r == 0 && (!str_split(&rest, ' ', &part) || str_to_u64(part, &pid) < 0 || pid == 0 ||
                   pid > INT32_MAX)) {
        r = -E_CORRUPT;
    }
    buf_release(&text);
    if (r == 0) {
        *ret = (pid_t)pid;
    }
    return r;
}

bool jobdir_claim(const char *dir)
{
    char *path = os_path_join(dir, "pid");
    FILE *file = fopen(path, "wxe");
    bool first = file != NULL || errno != EEXIST;
    if (file != NULL) {
        fclose(file);
    }
    free(path);
    return first;
}

int jobdir_end(const char *dir, const Pb__Outcome *outcome, struct str note)
{
    int r = note.n == 0 ? 0 : write_in(dir, "note", note);
    if (r == 0) {
        struct buf bytes = BUF_INIT;
        PB_PACK(outcome, &bytes);
        r = write_in(dir, "outcome.pb", buf_str(&bytes));
        buf_release(&bytes);
    }
    if (r == 0) {
        forget_values(dir);
    }
    return r;
}

void jobdir_note(const char *dir, struct buf *out)
{
    (void)read_in(dir, "note", NOTE_MAX, out);
}

uint32_t slot_lowest_free(const uint32_t *taken, size_t count)
{
    uint32_t slot = 0;
    for (size_t i = 0; i < count; i++) {
        if (taken[i] == slot) {
            slot++;
            i = SIZE_MAX; /* from the front again: the numbers are in no order */
        }
    }
    return slot;
}
