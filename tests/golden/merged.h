/* The merged file of a compilation must compile to the same plan: see pipeline/emit.h. */
#ifndef DAVIT_TESTS_MERGED_H
#define DAVIT_TESTS_MERGED_H

#include "pipeline/pipeline.h"

/* True where `in` makes no plan, too. `out` gets the merged text, and what is wrong with it. */
bool merged_compiles_alike(const struct pipeline_input *in, struct buf *out);

#endif
