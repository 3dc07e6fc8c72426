/* What libyaml says about a file that is no YAML, in the words of what its author did. Threads:
 * pure. */
#ifndef DAVIT_PIPELINE_YAML_PROBLEM_H
#define DAVIT_PIPELINE_YAML_PROBLEM_H

#include "common/diag.h"

struct yaml_mark {
    uint32_t line; /* 1-based; 0: none */
    uint32_t column;
};

struct yaml_problem {
    const char *file;
    struct str text;     /* of the file */
    const char *problem; /* libyaml's; never NULL */
    const char *context; /* "while parsing a block mapping"; NULL: none */
    struct yaml_mark at;
    struct yaml_mark begin; /* where the context begins */
};

void yaml_problem_report(const struct yaml_problem *p, struct diags *diags);

#endif
