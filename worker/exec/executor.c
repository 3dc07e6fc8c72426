#include "common/base.h"

#include "worker/exec/exec.h"

static const struct executor *const executors[] = {&executor_shell};

const struct executor *executor_by_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(executors); i++) {
        if (strcmp(executors[i]->name, name) == 0) {
            return executors[i];
        }
    }
    return NULL;
}
