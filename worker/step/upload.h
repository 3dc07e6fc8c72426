/* What artifacts_out uploads: each selection of files becomes an artifact of the outcome's part
 * that the step leaves behind. */
#ifndef DAVIT_STEP_UPLOAD_H
#define DAVIT_STEP_UPLOAD_H

#include "common/archive.h"
#include "common/limits.h"
#include "worker/step/select.h"

struct uploads {
    struct step *s;
    Pb__Outcome part;
    Pb__ArtifactOut *list[LIMIT_JOB_ARTIFACTS];
};

/* How one artifact is described. */
struct product {
    const char *what; /* for people: "artifacts", "junit report" */
    const char *type; /* ArtifactOut.type */
    const char *format;
    const char *name;
    const char *root; /* of the names in the archive: the project's folder, or one below it */
    uint64_t expire_in_ms;
    const char *access;
    struct str expose_as;
};

void uploads_init(struct uploads *u, struct step *s);
/* Packs and uploads. Nothing selected: a warning. An error was said in the log. */
int uploads_add(struct uploads *u, struct selection *sel, const struct product *product);
/* Packs into fd; 0 or an err with a line in `why`. */
int upload_pack(struct step *s, const struct selection *sel, const char *root, int fd,
                struct archive_info *ret, struct buf *why);

#endif
