/* What the executor leaves in the job's folder for the step programs: the spec with everything
 * expanded. Variables are final (file variables hold their path), artifact paths and names too.
 * FOLDER/prepared.pb holds the job's token: mode 0600, removed by the executor's cleanup. */
#ifndef DAVIT_EXEC_PREPARED_H
#define DAVIT_EXEC_PREPARED_H

#include "common/expand.h"
#include "proto/pb.h"

/* `vars` are expanded. */
int prepared_write(const char *folder, const Pb__JobSpec *spec, const struct vars *vars);
int prepared_read(const char *folder, struct arena *arena, Pb__JobSpec **ret);
void prepared_remove(const char *folder);

/* FOLDER/artifacts.pb: what was uploaded, from the step to exec_outcome. */
int prepared_artifacts_write(const char *folder, const Pb__ArtifactOut *out);
/* -E_NOT_FOUND: nothing was. */
int prepared_artifacts_read(const char *folder, struct arena *arena, Pb__ArtifactOut **ret);

#endif
