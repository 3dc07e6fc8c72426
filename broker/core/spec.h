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

/* spec.c: what a job would get now, its inputs and variables alone. 0, -E_NOT_FOUND, -E_CORRUPT. */
int spec_gather(struct spec *s, struct tx *tx, uint64_t job_id);

/* A pointer array of the arena with room for one more. */
void *spec_grown(struct arena *a, void *items, size_t n, size_t *cap);

/* spec_variables.c: all variables, a later one of the same name wins. Weakest first: predefined,
 * the core's, the job's, dotenv, the stored ones (sealed), those of the submit, of the play. */
void spec_add_variables(struct spec *s);
/* Of a job without a pipeline: the few that the core knows, the job's, those of the play. */
void spec_add_lone_variables(struct spec *s);
/* Of an action of a rollout: what starts instances, or is a script of a step, gets the variables
 * and files of the version that it is about. */
void spec_add_rollout(struct spec *s);
/* A text of the plan with the job's variables, but without dotenv. */
struct str spec_expand(struct spec *s, ProtobufCBinaryData text);

void spec_add_artifact(struct spec *s, const char *job_name, const Pb__SnapshotArtifact *a);
/* spec_inputs.c: artifacts and dotenv variables of the jobs before this one, and of outer needs. */
void spec_add_inputs(struct spec *s);

#endif
