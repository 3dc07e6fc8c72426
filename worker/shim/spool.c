/* Reading what davit-shim keeps of a job's output, while it writes or later. */
#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/os.h"
#include "worker/shim/output.h"

/* Some frames at once: scripts print by lines, and a line is a frame. */
#define BLOCK_BYTES ((size_t)4 * FRAME_BYTES_MAX)

/* What a container could write may be a link or a fifo by now: neither is followed or waited for.
 */
static int open_file(const char *folder, const char *name, int *ret_fd)
{
    char *path = os_path_join(folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    free(path);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    *ret_fd = fd;
    return 0;
}

int spool_open(struct spool_reader *r, const char *folder)
{
    int fd = -1;
    int result = open_file(folder, "spool", &fd);
    if (result == 0) {
        *r = (struct spool_reader){.fd = fd};
    }
    return result;
}

void spool_close(struct spool_reader *r)
{
    if (r->fd >= 0) {
        close(r->fd);
    }
    r->fd = -1;
}

enum frame { FRAME_WHOLE, FRAME_PART, FRAME_BAD };

/* What a block begins with. A frame whose bytes are all there and wrong was written just now, or
 * the disk lost them: who knows the file's end can tell. */
static enum frame frame_at(struct str block, struct spool_header *ret)
{
    if (block.n < sizeof(*ret)) {
        return FRAME_PART;
    }
    memcpy(ret, block.p, sizeof(*ret));
    if (ret->magic != SPOOL_MAGIC || ret->length == 0 || ret->length > FRAME_BYTES_MAX) {
        return FRAME_BAD;
    }
    if (block.n - sizeof(*ret) < ret->length) {
        return FRAME_PART;
    }
    bool good = crypto_crc32(0, block.p + sizeof(*ret), ret->length) == ret->crc;
    return good ? FRAME_WHOLE : FRAME_BAD;
}

/* Takes the wanted bytes of one frame; true when the reader may go to the next. */
static bool take(struct spool_reader *r, const struct spool_header *h, const char *bytes,
                 uint64_t from, size_t max, struct buf *out)
{
    uint64_t end = r->log_offset + h->length;
    if (from < end) {
        size_t skip = (size_t)(from - r->log_offset);
        size_t n = MIN(h->length - skip, max);
        buf_add(out, bytes + skip, n);
        if (skip + n < h->length) {
            return false;
        }
    }
    r->log_offset = end;
    r->file_offset += sizeof(*h) + h->length;
    return true;
}

/* Reads on from one block. *ret_more: another block may give more. */
static int read_block(struct spool_reader *r, char *bytes, uint64_t from, size_t max,
                      struct buf *out, bool *ret_more)
{
    size_t n;
    size_t start = out->n;
    uint64_t block_offset = r->file_offset;
    int result = os_pread_all(r->fd, bytes, BLOCK_BYTES, block_offset, &n);
    if (result < 0) {
        return result;
    }
    *ret_more = false;
    while (out->n - start < max) {
        struct spool_header h;
        struct str rest = str_sub(str_of(bytes, n), (size_t)(r->file_offset - block_offset), n);
        enum frame frame = frame_at(rest, &h);
        if (frame != FRAME_WHOLE) {
            bool at_end = n < BLOCK_BYTES;
            *ret_more = !at_end;
            return frame == FRAME_BAD && !at_end ? -E_CORRUPT : 0;
        }
        size_t left = max - (out->n - start);
        uint64_t at = MAX(from + (out->n - start), r->log_offset);
        if (!take(r, &h, rest.p + sizeof(h), at, left, out)) {
            return 0;
        }
    }
    return 0;
}

int spool_read(struct spool_reader *r, uint64_t from, size_t max, struct buf *out)
{
    size_t start = out->n;
    bool more = max > 0;
    int result = 0;
    if (from < r->log_offset) {
        r->file_offset = 0;
        r->log_offset = 0;
    }
    char *bytes = xmalloc(BLOCK_BYTES);
    while (result == 0 && more) {
        size_t done = out->n - start;
        result = read_block(r, bytes, from + done, max - done, out, &more);
        more = more && out->n - start < max;
    }
    free(bytes);
    return result;
}

static void add_mark(const struct shim_status *status, struct buf *out)
{
    if (status->elided_bytes > 0) {
        buf_addf(out,
                 "\n\033[33;1m[%" PRIu64 " bytes of output are left out here: the log is too long, "
                 "or the worker's disk was full]\033[0;m\n",
                 status->elided_bytes);
    }
}

int shim_tail_read(const char *folder, const struct shim_status *status, struct buf *out)
{
    int fd = -1;
    size_t n = (size_t)status->tail_bytes;
    size_t got_end = 0;
    size_t got_start = 0;
    if (n == 0) {
        add_mark(status, out);
        return 0;
    }
    if (status->tail_start >= n || n > LIMIT_LOG_BYTES) {
        return -E_CORRUPT;
    }
    int r = open_file(folder, "tail", &fd);
    if (r < 0) {
        return r;
    }
    /* The ring's oldest byte is at tail_start; before it is its newest part. */
    char *bytes = xmalloc(n);
    size_t older = n - (size_t)status->tail_start;
    r = os_pread_all(fd, bytes, older, status->tail_start, &got_end);
    if (r == 0) {
        r = os_pread_all(fd, bytes + older, n - older, 0, &got_start);
    }
    if (r == 0 && got_end + got_start != n) {
        r = -E_CORRUPT;
    }
    if (r == 0) {
        add_mark(status, out);
        buf_add(out, bytes, n);
    }
    free(bytes);
    close(fd);
    return r;
}

int shim_tail_parse(struct str text, struct shim_status *ret)
{
    struct shim_status found = {0};
    uint64_t *const fields[] = {&found.tail_bytes, &found.elided_bytes, &found.tail_start};
    struct str part;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (!str_split(&text, ' ', &part) || str_to_u64(part, fields[i]) < 0) {
            return -E_INVALID;
        }
    }
    ret->tail_bytes = found.tail_bytes;
    ret->elided_bytes = found.elided_bytes;
    ret->tail_start = found.tail_start;
    return text.n == 0 ? 0 : -E_INVALID;
}
