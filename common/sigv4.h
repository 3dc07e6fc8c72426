/* AWS Signature Version 4 in a header, as S3 and what is like it want it. Source: "Authenticating
 * Requests (AWS Signature Version 4)" of the Amazon S3 API Reference. Threads: pure. */
#ifndef DAVIT_SIGV4_H
#define DAVIT_SIGV4_H

#include "common/buf.h"

struct sigv4_key {
    const char *access;
    const char *secret;
    const char *region;
};

struct sigv4_request {
    const char *method;
    const char *host;           /* as the header Host has it */
    const char *path;           /* encoded; begins with a slash */
    const char *query;          /* encoded and sorted by name, each with its `=`; "": none */
    const char *const *headers; /* signed besides Host: pairs of a name in small letters and a value
                                   without blanks around it, sorted by name; NULL at the end */
    const char *payload;        /* hex of the body's SHA-256, or UNSIGNED-PAYLOAD */
    uint64_t time_ms;
};

/* As AWS wants a part of a path or query: all but letters, digits and -._~ as %XX. */
void sigv4_encode(struct str text, struct buf *out);

#define SIGV4_TIME_CHARS 17u /* "20130524T000000Z" and its end */
void sigv4_time(uint64_t time_ms, char ret[SIGV4_TIME_CHARS]);

/* Appends the value of the header Authorization. The headers hold x-amz-date and
 * x-amz-content-sha256. */
void sigv4_authorization(const struct sigv4_key *key, const struct sigv4_request *req,
                         struct buf *out);
#endif
