/* What the executor leaves in the job's folder for the step programs: the spec with everything
 * expanded. Variables are final (file variables hold their path), so are artifacts, caches and
 * pages; what dotenv reports may still bring something to (release, the environment's URL) is not.
 * FOLDER/prepared.pb holds the job's token: mode 0600, removed by the executor's cleanup. */
#ifndef DAVIT_EXEC_PREPARED_H
#define DAVIT_EXEC_PREPARED_H

#include "common/expand.h"
#include "proto/pb.h"

/* `vars` are expanded. */
int prepared_write(const char *folder, const Pb__JobSpec *spec, const struct vars *vars);
int prepared_read(const char *folder, struct arena *arena, Pb__JobSpec **ret);
void prepared_remove(const char *folder);

/* FOLDER/STEP.part: what a step adds to the job's outcome, from the step to exec_outcome. Durable
 * when it returns: a good end of the step must not lose it. */
int prepared_part_write(const char *folder, const char *step, const Pb__Outcome *part);
/* -E_NOT_FOUND: the step adds nothing. */
int prepared_part_read(const char *folder, const char *step, struct arena *arena,
                       Pb__Outcome **ret);

/* Another message in a file of the folder that is for this machine alone, mode 0600. */
int prepared_write_file(const char *folder, const char *name, const ProtobufCMessage *m);
int prepared_read_file(const char *folder, const char *name, struct arena *arena,
                       const ProtobufCMessageDescriptor *desc, ProtobufCMessage **ret);

/* The variables as messages that refer to the set. */
Pb__Variable **prepared_variables(struct arena *arena, const struct vars *vars);

#endif
