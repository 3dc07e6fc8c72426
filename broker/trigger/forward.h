/* What variables a child pipeline gets of its trigger job: what is known of the commit and project
 * as it is for the parent, and above all else in the child, as far as `trigger:forward` says so,
 * the job's own variables from the file, expanded with all that the parent knows, the parent's
 * submitted ones, and those that were given when the job was started by hand. Threads: pure but for
 * the read tx. */
#ifndef DAVIT_TRIGGER_FORWARD_H
#define DAVIT_TRIGGER_FORWARD_H

#include "broker/store/tx.h"
#include "pipeline/pipeline.h"

struct forward {
    Pb__Variable **predefined;
    size_t predefined_count;
    Pb__Variable **submitted;
    size_t submitted_count;
};

/* Everything lives in the arena. -E_CORRUPT, -E_LIMIT (values too long when expanded). */
int forward_read(struct forward *f, struct tx *tx, struct arena *arena, uint64_t job_id,
                 const Pb__PlanJob *plan);

/* The same for the compiler. */
void forward_as_vars(const struct forward *f, struct arena *arena, struct pipeline_input *in);

#endif
