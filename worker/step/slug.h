/* Names that go into addresses. Threads: pure. */
#ifndef DAVIT_STEP_SLUG_H
#define DAVIT_STEP_SLUG_H

#include "common/buf.h"

/* pages:path_prefix as GitLab makes it: lower case, at most 63 bytes, everything but letters,
 * digits and periods a hyphen, no hyphen or period at either end. */
void slug_pages_prefix(struct str text, struct buf *out);

#endif
