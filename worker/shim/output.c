#include "common/base.h"

#include "worker/shim/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/os.h"

/* The spool's numbers are little-endian and so are all machines that Davit is built for. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the spool is written as it is in memory");
_Static_assert(sizeof(struct spool_header) == 24, "packed");

static int create(const char *folder, const char *name, int *ret_fd)
{
    char *path = os_path_join(folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = fd < 0 ? err_from_errno(errno) : 0;
    free(path);
    if (r == 0) {
        *ret_fd = fd;
    }
    return r;
}

int output_open(struct output *o, const char *folder, uint64_t head_limit, uint64_t tail_limit,
                struct mask *mask)
{
    *o = (struct output){
        .head_limit = head_limit, .tail_limit = tail_limit, .last_byte = '\n', .mask = mask};
    int r = create(folder, "spool", &o->spool_fd);
    if (r == 0) {
        r = create(folder, "tail", &o->tail_fd);
        if (r < 0) {
            close(o->spool_fd);
        }
    }
    return r;
}

/* A frame is there as a whole or not at all. */
static bool write_frame(struct output *o, uint32_t stream, const char *p, size_t n)
{
    struct spool_header header = {
        .magic = SPOOL_MAGIC,
        .length = (uint32_t)n,
        .time_ms = os_realtime_ms(),
        .stream = stream,
        .crc = crypto_crc32(0, p, n),
    };
    memcpy(o->frame, &header, sizeof(header));
    memcpy(o->frame + sizeof(header), p, n);
    if (os_pwrite_all(o->spool_fd, o->frame, sizeof(header) + n, o->spool_size) < 0) {
        (void)!ftruncate(o->spool_fd, (off_t)o->spool_size);
        return false;
    }
    o->spool_size += sizeof(header) + n;
    return true;
}

/* Returns how many bytes the head took. After a failure it is closed for good: a gap in the middle
 * of it could not be told. */
static size_t head_add(struct output *o, uint32_t stream, const char *p, size_t n)
{
    uint64_t room = o->head_closed ? 0 : o->head_limit - o->head_bytes;
    size_t done = 0;
    n = (size_t)MIN(n, room);
    while (done < n && !o->head_closed) {
        size_t part = MIN(n - done, FRAME_BYTES_MAX);
        if (write_frame(o, stream, p + done, part)) {
            done += part;
        } else {
            o->head_closed = true;
        }
    }
    o->head_bytes += done;
    o->head_closed = o->head_closed || o->head_bytes == o->head_limit;
    return done;
}

static bool ring_write(struct output *o, const char *p, size_t n)
{
    uint64_t at = o->ring_bytes % o->tail_limit;
    size_t first = (size_t)MIN(n, o->tail_limit - at);
    return os_pwrite_all(o->tail_fd, p, first, at) == 0 &&
           os_pwrite_all(o->tail_fd, p + first, n - first, 0) == 0;
}

static void ring_add(struct output *o, const char *p, size_t n)
{
    if (n == 0 || o->tail_limit == 0) {
        return;
    }
    if (n > o->tail_limit) {
        p += n - o->tail_limit;
        n = (size_t)o->tail_limit;
        o->ring_bytes = 0;
    }
    if (ring_write(o, p, n)) {
        o->ring_bytes += n;
    } else {
        o->ring_bytes = 0; /* the last bytes are one piece: it begins anew behind the gap */
    }
}

static void keep(struct output *o, uint32_t stream, const char *p, size_t n)
{
    if (n == 0) {
        return;
    }
    size_t taken = head_add(o, stream, p, n);
    ring_add(o, p + taken, n - taken);
    o->total_bytes += n;
    o->last_byte = p[n - 1];
}

static void keep_shown(struct output *o, uint32_t stream)
{
    keep(o, stream, o->shown.p, o->shown.n);
    buf_clear(&o->shown);
}

void output_add(struct output *o, uint32_t stream, const char *p, size_t n)
{
    if (mask_is_empty(o->mask)) {
        keep(o, stream, p, n);
        return;
    }
    mask_feed(o->mask, str_of(p, n), &o->shown);
    keep_shown(o, stream);
}

/* What may have been the beginning of a secret, and was none. */
static void let_go(struct output *o)
{
    mask_end(o->mask, &o->shown);
    keep_shown(o, STREAM_JOB);
}

PRINTF_LIKE(2, 0)
static void add_line(struct output *o, const char *fmt, va_list ap)
{
    struct buf line = BUF_INIT;
    if (o->last_byte != '\n') {
        buf_add_char(&line, '\n');
    }
    buf_vaddf(&line, fmt, ap);
    buf_add_char(&line, '\n');
    keep(o, STREAM_DAVIT, line.p, line.n);
    buf_release(&line);
}

void output_say(struct output *o, const char *fmt, ...)
{
    va_list ap;
    let_go(o);
    va_start(ap, fmt);
    add_line(o, fmt, ap);
    va_end(ap);
}

void output_interject(struct output *o, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_line(o, fmt, ap);
    va_end(ap);
}

void output_describe(const struct output *o, struct shim_status *ret)
{
    ret->head_bytes = o->head_bytes;
    ret->tail_bytes = MIN(o->ring_bytes, o->tail_limit);
    ret->elided_bytes = o->total_bytes - ret->head_bytes - ret->tail_bytes;
    ret->tail_start = o->ring_bytes > o->tail_limit ? o->ring_bytes % o->tail_limit : 0;
}

void output_close(struct output *o, struct shim_status *ret)
{
    let_go(o);
    fsync(o->spool_fd);
    if (o->ring_bytes > 0) {
        fsync(o->tail_fd);
    }
    close(o->spool_fd);
    close(o->tail_fd);
    buf_release(&o->shown);
    output_describe(o, ret);
}
