/* A plan as lines of text, for tests to compare. Threads: pure. */
#ifndef DAVIT_TESTS_PLAN_TEXT_H
#define DAVIT_TESTS_PLAN_TEXT_H

#include "proto/pb.h"

void plan_text(const Pb__Plan *plan, struct buf *out);

#endif
