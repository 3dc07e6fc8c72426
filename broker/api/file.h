/* Bytes as an answer: a whole or the range that was asked for. Threads: the connection's. */
#ifndef DAVIT_API_FILE_H
#define DAVIT_API_FILE_H

#include "broker/api/range.h"
#include "broker/api/request.h"

/* What the request's Range header wants of `total` bytes. -E_RANGE: nothing of it is there. */
int file_range(struct request *rq, uint64_t total, struct range *ret);

/* Adds the headers that go with the range (response NULL: does nothing). Returns 200 or 206. */
unsigned file_headers(struct MHD_Response *response, const struct range *range, uint64_t total,
                      const char *type);

/* The digest of the whole as ETag. */
void file_etag(struct MHD_Response *response, const uint8_t digest[SHA256_BYTES]);

/* Opens a blob, which may have to come from S3 first: 0, and *ret_fd is -1 where the request was
 * parked, and its handler will be called again. */
int file_open_blob(struct request *rq, const uint8_t digest[SHA256_BYTES], int *ret_fd,
                   uint64_t *ret_size);

/* The response for an open file, which is taken over, `digest` is what its ETag says, for If-Range;
 * *ret may come as NULL (no memory), which answer_response understands. -E_RANGE. */
int file_response(struct request *rq, int fd, uint64_t size, const uint8_t digest[SHA256_BYTES],
                  const char *type, unsigned *ret_status, struct MHD_Response **ret);

#endif
