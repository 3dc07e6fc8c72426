/* A tree of nodes as YAML: what yaml_read makes of the text is the same tree, sharing aside. Quotes
 * stand where they must, texts of several lines as blocks where that keeps every byte. Threads:
 * pure. */
#ifndef DAVIT_PIPELINE_EMIT_H
#define DAVIT_PIPELINE_EMIT_H

#include "pipeline/node.h"

void emit_yaml(const struct node *n, struct buf *out);

#endif
