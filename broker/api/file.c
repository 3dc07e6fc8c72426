#include "common/base.h"

#include "broker/api/file.h"

#include <stdio.h>
#include <unistd.h>

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

void file_etag(struct MHD_Response *response, const uint8_t digest[SHA256_BYTES])
{
    char etag[2 * SHA256_BYTES + 3] = "\"";
    if (response) {
        str_to_hex(digest, SHA256_BYTES, etag + 1);
        etag[sizeof(etag) - 2] = '"';
        MHD_add_response_header(response, "ETag", etag);
    }
}

int file_response(struct request *rq, int fd, uint64_t size, const char *type, unsigned *ret_status,
                  struct MHD_Response **ret)
{
    struct range range;
    int r = file_range(rq, size, &range);
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
