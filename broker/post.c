#include "common/base.h"

#include "broker/post.h"

#include <stdlib.h>

struct post *post_new(const char *actor)
{
    struct post *p = xcalloc(1, sizeof(*p));

    arena_init(&p->arena, 0);
    pb__command__init(&p->command);
    p->command.version = COMMAND_VERSION;
    p->command.actor = arena_strdup(&p->arena, str_from(actor));
    return p;
}

struct arena *post_arena(struct post *p)
{
    return &p->arena;
}

Pb__Command *post_command(struct post *p)
{
    return &p->command;
}

void post_free(struct post *p)
{
    if (p == NULL) {
        return;
    }
    arena_release(&p->arena);
    free(p);
}

void post_done(struct post *p, int r)
{
    if (p->done != NULL) {
        p->done(p->ctx, r, &p->reply);
    }
    post_free(p);
}
