/* Reads YAML as GitLab's loader (Ruby's Psych) does, from libyaml's events to a tree of nodes.
 *
 * Bounded while the events come in: size, depth, and nodes with aliases counted as written out.
 * Aliases are shared nodes; a repeated anchor means its latest node; `<<` merges at the place where
 * it stands; of equal keys the last one wins, with a warning. Dates are refused, as GitLab does.
 * Ownership: nodes live in the arena; scalars' text is copied into it. Threads: pure. */
#ifndef DAVIT_PIPELINE_YAML_H
#define DAVIT_PIPELINE_YAML_H

#include "common/err.h"
#include "pipeline/node.h"

struct yaml_file {
    const struct node *header; /* the document with `spec:` before the `---`; NULL: none */
    const struct node *body;   /* NULL: the file is empty */
};

/* 0, or -E_PIPELINE with the error in `diags`. */
int yaml_read(struct arena *arena, const char *file, struct str text, struct diags *diags,
              struct yaml_file *ret);

/* Sets type and value of a plain scalar from its text. */
void scalar_resolve(struct node *n);
bool scalar_is_date(struct str s);

#endif
