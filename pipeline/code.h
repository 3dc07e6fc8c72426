/* The codes of diagnostics, from codes.def. Threads: pure. */
#ifndef DAVIT_PIPELINE_CODE_H
#define DAVIT_PIPELINE_CODE_H

#include "common/diag.h"

struct code {
    const char *name;
    enum diag_level level;
    const char *text; /* what it means, in one sentence */
};

extern const struct code diag_codes[];
extern const size_t diag_code_count;

const struct code *code_find(const char *name); /* NULL: there is none */

#endif
