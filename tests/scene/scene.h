/* Plays a scene: commands in words against the real core, store and scheduler, with a clock that
 * only the scene moves, and writes down what came of each. README.md has the language.
 *
 * The fleet of a scene is a model of the real one: a worker is online from its connect on; gone
 * silent, it is lost after LEASE_MS; back, it says which jobs it still has.
 * Ownership: stage_init, stage_release. Threads: one. */
#ifndef DAVIT_SCENE_H
#define DAVIT_SCENE_H

#include "tests/kit/rig.h"
#include "tests/kit/world.h"

#define LEASE_MS     10000u
#define ACTORS_MAX   16u
#define ROLLOUTS_MAX 16u

struct actor { /* a worker */
    char name[32];
    uint64_t worker_id;
    bool online;
    uint64_t lost_at_ms; /* 0: not silent, or lost already */
    char tags[64];
    char executors[64];
    char pool[32];
    uint64_t memory;
    uint32_t slots;
    bool untagged;
};

struct stage {
    struct world world;
    struct actor actors[ACTORS_MAX];
    size_t actor_count;
    uint64_t pipelines[64]; /* ids, in the order of the scene */
    size_t pipeline_count;
    struct {
        uint64_t id;
        char name[64]; /* "queue/NAME" */
    } lone[64];        /* jobs without a pipeline */
    size_t lone_count;
    uint64_t begin_ms;
    uint64_t seen_event;
    struct rig rig; /* of rollouts; its world is NULL as long as there are none */
    uint64_t notes_seen[ROLLOUTS_MAX];
    struct buf *out;
};

void stage_init(struct stage *s, struct buf *out);
void stage_release(struct stage *s);

/* One command with the lines of its plan (may be empty); its trace goes to `out`. 0, or -E_USAGE
 * with a line in `out` when it is no command. */
int stage_play(struct stage *s, struct str command, struct str plan);

/* trace.c */
void trace(struct stage *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* What the latest command did: its events and effects, or why it was refused. */
void trace_result(struct stage *s, int r);
const char *trace_job(struct stage *s, uint64_t job_id);
const char *trace_worker(struct stage *s, uint64_t worker_id);
size_t trace_pipeline(const struct stage *s, uint64_t pipeline_id); /* 1-based; 0: unknown */
void trace_show(struct stage *s);                                   /* all statuses */
void trace_rows(struct stage *s); /* what the project demo has: environments, caches, ... */
void trace_spec(struct stage *s, uint64_t job_id);
void trace_why(struct stage *s, uint64_t job_id);

/* rollout.c: a command that begins with "rollout". 0, or -E_USAGE. */
int rollout_play(struct stage *s, const struct str *words, size_t count);

/* fleet.c */
struct actor *actor_find(struct stage *s, struct str name);
void actor_connect(struct stage *s, struct actor *a);
/* `without`: the job that it does not have any more; 0: none. */
void actor_return(struct stage *s, struct actor *a, uint64_t without);
void stage_schedule(struct stage *s);
void stage_elapse(struct stage *s, uint64_t ms);
bool actor_online(void *ctx, uint64_t worker_id); /* for sched_why; ctx is the stage */

#endif
