/* What executors that run scripts on the host itself share. */
#include "common/base.h"

#include <unistd.h>

#include "worker/exec/steps.h"

static const struct host_shell shells[] = {
    {"/usr/local/bin/bash", true}, {"/usr/bin/bash", true}, {"/bin/bash", true},
    {"/usr/bin/sh", false},        {"/bin/sh", false},
};

const struct host_shell *host_shell(void)
{
    for (size_t i = 0; i < ARRAY_LEN(shells); i++) {
        if (access(shells[i].path, X_OK) == 0) {
            return &shells[i];
        }
    }
    return NULL;
}

/* The last guard: the scheduler should not have sent it here. */
int steps_refuse_containers(const Pb__JobSpec *spec, const char *executor, struct buf *why)
{
    if (spec->image != NULL && spec->image->name[0] != '\0') {
        buf_addf(why,
                 "job `%s` asks for image `%s`: the %s executor starts no containers; take it "
                 "out with `image: null`, in a file that includes this one, say",
                 spec->name, spec->image->name, executor);
        return -E_UNSUPPORTED;
    }
    if (spec->n_services > 0) {
        const Pb__Image *image = spec->services[0]->image;
        buf_addf(why,
                 "job `%s` asks for service `%s`: the %s executor starts no containers; take "
                 "it out with `services: []`, in a file that includes this one, say",
                 spec->name, image != NULL ? image->name : "", executor);
        return -E_UNSUPPORTED;
    }
    return 0;
}
