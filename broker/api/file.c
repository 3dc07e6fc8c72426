#include "common/base.h"

#include "broker/api/file.h"

#include <stdio.h>
#include <unistd.h>

#include "broker/api/server.h"

#define ETAG_CHARS (2 * SHA256_BYTES + 3) /* quotes around it and its end */

int file_range(struct request *rq, uint64_t total, struct range *ret)
{
    if (range_parse(request_header(rq, "Range"), total, ret) < 0) {
        rq->total = total;
        return request_fail(rq, -E_RANGE, "there are %" PRIu64 " bytes", total);
    }
    return 0;
}

unsigned file_headers(struct MHD_Response *response, const struct range *range, uint64_t total,
                      const char *type)
{
    if (response) {
        MHD_add_response_header(response, "Content-Type", type);
        MHD_add_response_header(response, "Accept-Ranges", "bytes");
    }
    if (response && range->partial) {
        char text[80];
        snprintf(text, sizeof(text), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, range->offset,
                 range->offset + range->size - 1, total);
        MHD_add_response_header(response, "Content-Range", text);
    }
    return range->partial ? MHD_HTTP_PARTIAL_CONTENT : MHD_HTTP_OK;
}

static void etag_text(const uint8_t digest[SHA256_BYTES], char ret[ETAG_CHARS])
{
    ret[0] = '"';
    str_to_hex(digest, SHA256_BYTES, ret + 1);
    ret[ETAG_CHARS - 2] = '"';
    ret[ETAG_CHARS - 1] = '\0';
}

void file_etag(struct MHD_Response *response, const uint8_t digest[SHA256_BYTES])
{
    char etag[ETAG_CHARS];
    if (response) {
        etag_text(digest, etag);
        MHD_add_response_header(response, "ETag", etag);
    }
}

/* "If the entity tag does not match, the whole": RFC 9110, 13.1.5. */
static bool wants_other(struct request *rq, const char *etag)
{
    const char *want = request_header(rq, "If-Range");
    return want && strcmp(want, etag) != 0;
}

/* On a work thread. */
static int fetch(struct request *rq)
{
    return blob_fetch(rq->api->config.blobs, rq->digest);
}

static int fetched(struct request *rq)
{
    return rq->result < 0 && rq->result != -E_NOT_FOUND ? rq->result : rq->route->handler(rq);
}

int file_open_blob(struct request *rq, const uint8_t digest[SHA256_BYTES], int *ret_fd,
                   uint64_t *ret_size)
{
    int r = blob_open_here(rq->api->config.blobs, digest, ret_fd, ret_size);
    if (r != -E_NOT_FOUND || rq->fetched) {
        return r;
    }
    rq->fetched = true;
    *ret_fd = -1;
    memcpy(rq->digest, digest, SHA256_BYTES);
    return request_work(rq, fetch, fetched);
}

int file_response(struct request *rq, int fd, uint64_t size, const uint8_t digest[SHA256_BYTES],
                  const char *type, unsigned *ret_status, struct MHD_Response **ret)
{
    struct range range = {.size = size};
    char etag[ETAG_CHARS];
    etag_text(digest, etag);
    int r = wants_other(rq, etag) ? 0 : file_range(rq, size, &range);
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret = MHD_create_response_from_fd_at_offset64(range.size, fd, range.offset);
    if (!*ret) {
        close(fd);
    }
    *ret_status = file_headers(*ret, &range, size, type);
    return 0;
}
