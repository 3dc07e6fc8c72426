#include "common/base.h"

#include "pipeline/code.h"

const struct code diag_codes[] = {
#define CODE(name, level, text) {name, DIAG_##level, text},
#include "pipeline/codes.def"
#undef CODE
};
const size_t diag_code_count = ARRAY_LEN(diag_codes);

const struct code *code_find(const char *name)
{
    for (size_t i = 0; i < diag_code_count; i++) {
        if (strcmp(diag_codes[i].name, name) == 0) {
            return &diag_codes[i];
        }
    }
    return NULL;
}
