/* The Range header of RFC 9110, one range of bytes. Threads: pure. */
#ifndef DAVIT_API_RANGE_H
#define DAVIT_API_RANGE_H

#include "common/err.h"

struct range {
    uint64_t offset;
    uint64_t size;
    bool partial; /* false: the whole */
};

/* `text` NULL: the whole. What is no single range of bytes is ignored, as the RFC allows.
 * -E_RANGE: nothing of it is there. */
int range_parse(const char *text, uint64_t total, struct range *ret);

#endif
