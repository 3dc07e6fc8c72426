#include "common/base.h"

#include "worker/exec/exec.h"

static const struct executor *const executors[] = {&executor_shell, &executor_sandbox,
                                                   &executor_docker};

void executor_names(struct buf *out)
{
    for (size_t i = 0; i < ARRAY_LEN(executors); i++) {
        buf_addf(out, "%s%s", i > 0 ? ", " : "", executors[i]->name);
    }
}

const struct executor *executor_by_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(executors); i++) {
        if (strcmp(executors[i]->name, name) == 0) {
            return executors[i];
        }
    }
    return NULL;
}
