/* Which blobs running jobs have uploaded with their tokens: a job makes no cache of bytes that it
 * knows the digest of and has never had. The newest SENT_MAX are remembered, and a new start
 * forgets all: a job whose upload is not known sends it again. Threads: all safe. */
#ifndef DAVIT_API_SENT_H
#define DAVIT_API_SENT_H

#include "common/crypto.h"

#define SENT_MAX 100000u

struct sent;
struct sent *sent_new(void);
void sent_free(struct sent *s); /* NULL is fine */

void sent_note(struct sent *s, uint64_t job_id, const uint8_t digest[SHA256_BYTES]);
bool sent_has(struct sent *s, uint64_t job_id, const uint8_t digest[SHA256_BYTES]);

#endif
