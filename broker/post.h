/* A post from the inside: what turn.h hides from those who only submit. Threads: its owner's. */
#ifndef DAVIT_POST_H
#define DAVIT_POST_H

#include "broker/turn.h"

struct post {
    struct arena arena;
    Pb__Command command;
    turn_done_fn done;
    void *ctx;
    int r;              /* what became of it, until the commit lets it out */
    struct reply reply; /* likewise */
    bool applied;
};

/* Tells the submitter and frees the post. */
void post_done(struct post *p, int r);

#endif
