/* Bytes to a broker: in one request, or, above LIMIT_WHOLE_UPLOAD, as an upload of tus 1.0.0 that
 * goes on where it broke (docs/http-api.md). Threads: as http.h. */
#ifndef DAVIT_UPLOAD_H
#define DAVIT_UPLOAD_H

#include "common/buf.h"
#include "common/crypto.h"
#include "common/err.h"

struct upload {
    const char *api; /* http://host:port/api/v1 */
    const char *token;
    const char *content_type;
    int fd; /* sent from its start */
    uint64_t size;
    const uint8_t *digest; /* of the bytes: what the broker has must have it */
    /* After a try that came to nothing, for a reason that another may change: waits and returns
     * true, or false: no more. `tries` counts from 0 since a byte arrived. */
    bool (*again)(void *ctx, unsigned tries, const char *why);
    void *ctx;
};

/* 0 and a status of 201: the broker has it. 0 and another status: refused, with its answer in
 * `out`. -E_UNREACHABLE, -E_TIMEOUT, -E_IO with a line in `why`; -E_CORRUPT: something else arrived
 * than was sent. */
int upload_file(const struct upload *u, int *ret_status, struct buf *out, struct buf *why);

/* Whether another try may change that. */
bool upload_may_go_on(int r, int status);

#endif
