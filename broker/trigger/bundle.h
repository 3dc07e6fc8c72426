/* What a child pipeline will be compiled from, kept at the submit of its oldest parent as one blob
 * (message Bundle): all files that came with the submit, and what was said of the repository.
 * Threads: pure but for the blobs. */
#ifndef DAVIT_TRIGGER_BUNDLE_H
#define DAVIT_TRIGGER_BUNDLE_H

#include "broker/blob/blob.h"
#include "proto/pb.h"

bool plan_has_triggers(const Pb__Plan *plan);

/* Packs and stores it: waits for the disk. *ret lives in the arena. -E_TOO_BIG above LIMIT_BUNDLE,
 * and the errors of blob.h. */
int bundle_store(struct blobs *b, const Pb__Bundle *bundle, struct arena *arena,
                 Pb__SnapshotSource **ret);

/* Into the arena. -E_NOT_FOUND, -E_CORRUPT, -E_IO. */
int bundle_load(struct blobs *b, const Pb__SnapshotSource *at, struct arena *arena,
                Pb__Bundle **ret);

/* NULL: it is not among the files. */
const Pb__BundleFile *bundle_file(const Pb__Bundle *b, struct str name);

#endif
