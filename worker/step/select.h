/* Which files artifacts: names. Nothing outside of the folder, nothing through a link. */
#ifndef DAVIT_STEP_SELECT_H
#define DAVIT_STEP_SELECT_H

#include "worker/step/step.h"

struct selection {
    struct step *s;
    const Pb__ArtifactSpec *spec;
    char **paths; /* relative to the working folder; in the step's arena */
    size_t count;
    size_t cap;
    bool too_many; /* above LIMIT_ARTIFACT_FILES */
};

void selection_init(struct selection *sel, struct step *s, const Pb__ArtifactSpec *spec);
void selection_release(struct selection *sel);
/* Adds what one of `paths` names, says how much, warns where that is nothing. */
void selection_add_pattern(struct selection *sel, struct str pattern);
/* Adds the files that git does not track, ignored ones too. */
int selection_add_untracked(struct selection *sel);
/* Sorted, each once. */
void selection_finish(struct selection *sel);

#endif
