/* The folder of one job in the worker's hands, STATE/jobs/JOB-ATTEMPT-EPOCH. It is the truth: a new
 * worker process learns from it all that the old one knew.
 *
 *   slot        the slot's number, for builds/SLOT/PROJECT
 *   spec.pb     the JobSpec: the job is accepted once this is on disk, before it the folder is void
 *   pid         of the shim: the job was started (worker/shim/shim.h has this and the shim's files)
 *   note        what the worker adds to the end of the job's log
 *   outcome.pb  the Outcome without the log's size and checksum: the job has ended
 *
 * Values of variables stand in spec.pb and in what is made of it (docs/decisions/0022). With the
 * end written they go: a job that has ended has no spec.pb, and an empty JobSpec is loaded for it.
 * The folder goes when the broker has acknowledged the end. Threads: any, one at a time a folder.
 */
#ifndef DAVIT_WORKER_JOBDIR_H
#define DAVIT_WORKER_JOBDIR_H

#include <sys/types.h>

#include "proto/pb.h"

struct job_key {
    uint64_t job_id;
    uint64_t attempt;
    uint64_t epoch;
};

bool job_key_eq(struct job_key a, struct job_key b);
struct job_key job_key_of(const Pb__JobKey *key); /* all zero for NULL */

char *jobdir_path(const char *jobs_dir, struct job_key key); /* heap */
int jobdir_parse(const char *name, struct job_key *ret);     /* -E_INVALID: no job's folder */

/* Makes the folder, durable when it returns 0, else not there. */
int jobdir_create(const char *dir, uint32_t slot, const Pb__JobSpec *spec);

struct jobdir {
    uint32_t slot;
    Pb__JobSpec *spec;
    Pb__Outcome *outcome; /* NULL: has not ended */
    bool started;
};
/* -E_NOT_FOUND: half-written. -E_CORRUPT, -E_IO. */
int jobdir_load(const char *dir, struct arena *arena, struct jobdir *ret);

int jobdir_shim_pid(const char *dir, pid_t *ret); /* -E_NOT_FOUND: never started */
/* Takes the place of the shim in a folder that shall not be run any more: false when one came
 * first. One that comes later ends at once. */
bool jobdir_claim(const char *dir);
/* Records the end; the note (a line, or nothing) first. */
int jobdir_end(const char *dir, const Pb__Outcome *outcome, struct str note);
void jobdir_note(const char *dir, struct buf *out); /* appends it */

/* The lowest number that is not among `taken`. */
uint32_t slot_lowest_free(const uint32_t *taken, size_t count);

#endif
