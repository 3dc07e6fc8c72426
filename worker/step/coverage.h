/* Finds the coverage in a log, as GitLab does: the last line that the expression matches, of its
 * last match the last group (the whole match, where there are no groups), therein the first number.
 * A match without a number does not count. Control sequences of terminals are taken out before.
 * The log comes in pieces of any size. Threads: one at a time. */
#ifndef DAVIT_STEP_COVERAGE_H
#define DAVIT_STEP_COVERAGE_H

#include "common/buf.h"
#include "common/regex.h"

struct coverage {
    struct regex *re;
    struct buf line; /* begun, not ended; at most LIMIT_COVERAGE_LINE */
    struct buf plain;
    bool found;
    uint32_t hundredths;
    bool unsure; /* on some line the expression took too long */
};

void coverage_init(struct coverage *c, struct regex *re);
void coverage_release(struct coverage *c);
void coverage_add(struct coverage *c, struct str piece);
void coverage_end(struct coverage *c); /* of the log: its last line may have no end */

/* Appends the text without ESC sequences. */
void coverage_strip(struct str text, struct buf *out);
/* The first number of a text, in hundredths, rounded. False: there is none. */
bool coverage_number(struct str text, uint32_t *ret_hundredths);

#endif
