/* A node as JSON, on one line: numbers and booleans as such, all else as text. Threads: pure. */
#ifndef DAVIT_PIPELINE_JSON_H
#define DAVIT_PIPELINE_JSON_H

#include "common/buf.h"
#include "pipeline/node.h"

/* The limit of `out` bounds what is written, sharing written out. */
void json_add_node(struct buf *out, const struct node *n);

#endif
