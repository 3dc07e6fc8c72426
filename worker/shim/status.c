#include "common/base.h"

#include "worker/shim/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/os.h"
#include "worker/shim/record.h"

void status_encode(const struct shim_status *s, struct buf *out)
{
    size_t start = out->n;
    for (size_t i = 0; i < s->step_count; i++) {
        record_addz(out, "step");
        record_addz(out, s->steps[i].name);
        record_addz(out, s->steps[i].result);
        record_add_int(out, s->steps[i].code);
        record_add_u64(out, s->steps[i].duration_ms);
        record_end(out);
    }
    record_addz(out, "output");
    record_add_u64(out, s->head_bytes);
    record_add_u64(out, s->tail_bytes);
    record_add_u64(out, s->elided_bytes);
    record_add_u64(out, s->tail_start);
    record_end(out);
    record_addz(out, "leftover");
    record_add_u64(out, s->leftovers);
    record_end(out);
    record_addz(out, "oom");
    record_add_u64(out, s->oom_kills);
    record_end(out);
    record_addz(out, "end");
    record_end(out);
    check(out->n - start <= STATUS_BYTES_MAX);
}

/* False where it does not fit. */
static bool copy_field(char *to, size_t size, const char *field)
{
    if (field == NULL || strlen(field) >= size) {
        return false;
    }
    memcpy(to, field, strlen(field) + 1);
    return true;
}

static bool parse_step(struct shim_status *s, struct str record)
{
    if (s->step_count == SHIM_STEPS_MAX) {
        return false;
    }
    struct shim_step_status *step = &s->steps[s->step_count++];
    return copy_field(step->name, sizeof(step->name), record_field(&record)) &&
           copy_field(step->result, sizeof(step->result), record_field(&record)) &&
           record_field_int(&record, &step->code) && record_field_u64(&record, &step->duration_ms);
}

static bool read_count(struct str *record, uint32_t *ret)
{
    uint64_t count;
    if (!record_field_u64(record, &count) || count > UINT32_MAX) {
        return false;
    }
    *ret = (uint32_t)count;
    return true;
}

static bool parse_record(struct shim_status *s, struct str record, bool *end)
{
    const char *name = record_field(&record);
    if (name == NULL || *end) {
        return false;
    }
    if (strcmp(name, "step") == 0) {
        return parse_step(s, record);
    }
    if (strcmp(name, "output") == 0) {
        return record_field_u64(&record, &s->head_bytes) &&
               record_field_u64(&record, &s->tail_bytes) &&
               record_field_u64(&record, &s->elided_bytes) &&
               record_field_u64(&record, &s->tail_start);
    }
    if (strcmp(name, "leftover") == 0) {
        return read_count(&record, &s->leftovers);
    }
    if (strcmp(name, "oom") == 0) {
        return read_count(&record, &s->oom_kills);
    }
    *end = strcmp(name, "end") == 0;
    return *end;
}

/* A link is not followed, a fifo not waited for: in a container the job could put one there. */
static int read_text(const char *folder, struct buf *out)
{
    char bytes[STATUS_BYTES_MAX + 1];
    size_t n = 0;
    char *path = os_path_join(folder, "status");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    free(path);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    int r = os_pread_all(fd, bytes, sizeof(bytes), 0, &n);
    close(fd);
    if (r == 0 && n > STATUS_BYTES_MAX) {
        r = -E_TOO_BIG;
    }
    if (r == 0) {
        buf_add(out, bytes, n);
    }
    return r;
}

int shim_status_read(const char *folder, struct shim_status *ret)
{
    struct shim_status status = {0};
    struct buf text = BUF_INIT;
    struct str record;
    bool ok = true;
    bool end = false;
    int r = read_text(folder, &text);
    if (r == 0) {
        struct str rest = buf_str(&text);
        while (ok && record_next(&rest, &record)) {
            ok = parse_record(&status, record, &end);
        }
        r = ok && end && rest.n == 0 ? 0 : -E_CORRUPT;
    }
    buf_release(&text);
    if (r == 0) {
        *ret = status;
    }
    return r;
}
