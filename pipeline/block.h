/* Blocks `$[[ ... ]]` of interpolation in the text of a file. GitLab replaces them before it reads
 * the YAML, so they may stand where YAML would see brackets, as in `tags: [$[[ inputs.tag ]]]`.
 * block_protect puts characters of a private plane in place of the ASCII ones inside of blocks, one
 * for one, so that lines and columns stay what they are; block_restore undoes it in what was read.
 * Threads: pure. */
#ifndef DAVIT_PIPELINE_BLOCK_H
#define DAVIT_PIPELINE_BLOCK_H

#include "common/arena.h"

/* The text itself where it holds no block (or the private characters already). */
struct str block_protect(struct arena *arena, struct str text);
struct str block_restore(struct arena *arena, struct str text);

/* The next block of *rest, which stands on one line; *ret_before is the text before it, *ret_inside
 * what is between the brackets, *rest what follows. False: none is left. */
bool block_next(struct str *rest, struct str *ret_before, struct str *ret_inside);
bool block_in(struct str text);

#endif
