/* What the child pipelines of a submit will be compiled from (broker/trigger/bundle.h), taken from
 * its body. Threads: a work thread: it waits for the disk. */
#ifndef DAVIT_API_BUNDLE_H
#define DAVIT_API_BUNDLE_H

#include "broker/api/files.h"

/* Stores the files, with those fetched since, and the facts of `in`, if the plan has trigger jobs;
 * else *ret is NULL. It lives in the arena of `files`. */
int bundle_of_submit(const struct files *files, const struct pipeline_input *in,
                     const Pb__Plan *plan, Pb__SnapshotSource **ret);

#endif
