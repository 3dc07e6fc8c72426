/* Redis' protocol, version 2. Threads: pure. */
#ifndef DAVIT_BENCH_RESP_H
#define DAVIT_BENCH_RESP_H

#include "common/buf.h"

struct resp {
    char type;       /* + - : $ * */
    struct str text; /* of + - $; STR_NULL for a null */
    int64_t number;  /* of : and the elements that follow a * (-1: a null) */
};

/* The next value off the front; false when it is not whole yet. The elements of an array are taken
 * one by one behind it. */
bool resp_take(struct str *rest, struct resp *ret);

void resp_begin(struct buf *out, size_t arguments);
void resp_add(struct buf *out, struct str argument);

#endif
