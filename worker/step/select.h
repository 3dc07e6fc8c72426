/* Which files artifacts, reports and caches name. Nothing outside of the folder, nothing through a
 * link. */
#ifndef DAVIT_STEP_SELECT_H
#define DAVIT_STEP_SELECT_H

#include "worker/step/step.h"

struct selection {
    struct step *s;
    const ProtobufCBinaryData *exclude; /* patterns; set after selection_init */
    size_t exclude_count;
    bool quiet;       /* says nothing of what is found or not */
    const char *root; /* what the paths are relative to: the working folder, or one below it */
    char **paths;     /* in the step's arena */
    size_t count;
    size_t cap;
    bool too_many; /* above LIMIT_ARTIFACT_FILES */
};

void selection_init(struct selection *sel, struct step *s);
void selection_release(struct selection *sel);
/* Adds what the patterns name and, where wanted, the files that git does not track, ignored ones
 * too. Says how much, warns where that is nothing. At the end all is sorted, each once. */
void selection_add_all(struct selection *sel, const ProtobufCBinaryData *patterns, size_t count,
                       bool untracked);
/* Everything in one folder of the project, which becomes the root. -E_NOT_FOUND: there is none. */
int selection_add_folder(struct selection *sel, const char *folder);

#endif
