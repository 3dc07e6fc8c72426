/* Inside of the core: one job's spec while it is gathered (spec.c). Not for use outside
 * broker/core. */
#ifndef DAVIT_SPEC_H
#define DAVIT_SPEC_H

#include "broker/core/apply.h"

struct spec {
    struct tx *tx;
    struct arena *arena;
    Pb__JobSpec *out;
    const Pb__JobRecord *job;
    const Pb__PlanJob *plan;
    const Pb__PipelineRecord *pipeline; /* NULL: a job without one */
    const char *project;
    const char *stage;
    uint64_t assigned_ms;
    size_t variable_cap;
    size_t artifact_cap;
    Pb__Variable **dotenv; /* of the jobs whose artifacts this one takes */
    size_t dotenv_count;
    size_t dotenv_cap;
};

/* A pointer array of the arena with room for one more. */
void *spec_grown(struct arena *a, void *items, size_t n, size_t *cap);

/* spec_variables.c: all variables, a later one of the same name wins. Weakest first: predefined,
 * the core's, the job's, dotenv, the stored ones (sealed), those of the submit, of the play. */
void spec_add_variables(struct spec *s);
/* Of a job without a pipeline: the few that the core knows, the job's, those of the play. */
void spec_add_lone_variables(struct spec *s);
/* A text of the plan with the job's variables, but without dotenv. */
struct str spec_expand(struct spec *s, ProtobufCBinaryData text);

/* spec_inputs.c: artifacts and dotenv variables of the jobs before this one, and of outer needs. */
void spec_add_inputs(struct spec *s);

#endif
