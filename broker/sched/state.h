/* What the scheduler keeps in memory, for the files of this folder.
 *
 *     class --- want (class, project) --- lanes, one a priority
 *       |         |
 *     demand -- ask        a pool's heap of those who want a class there: demand.asks
 *       |
 *      bid                 a group's heap of the classes that it can serve: group.bids
 *
 * A heap is in order whenever a function of this folder returns that is not static. What decides an
 * order changes in one of two ways: the thing is in one place of each heap (then it is moved), or
 * in several (the running jobs of a project in a pool: then all are taken out, changed, and put
 * back). All but heaps and hash tables lives in one arena and goes with sched_reset. */
#ifndef DAVIT_SCHED_STATE_H
#define DAVIT_SCHED_STATE_H

#include <uthash.h>
#include <utlist.h>

#include "broker/core/query.h"
#include "broker/core/state.h"
#include "broker/sched/sched.h"
#include "common/heap.h"

struct word { /* a tag that some class asks for */
    char *text;
    UT_hash_handle hh;
};

struct project {
    uint64_t id;
    const char *name;
    uint32_t weight;
    uint32_t max_running; /* 0: no bound */
    uint32_t running;
    struct want *wants;
    UT_hash_handle hh;
};

struct pool {
    const char *name;
    const Pb__PoolRecord *record; /* NULL: it has none */
    uint32_t running;
    uint64_t clock; /* `used` of the project that was last given something */
    struct group *groups;
    struct demand *demands;
    struct share *shares; /* by project id */
    struct heap yields;   /* groups where some job may be displaced */
    UT_hash_handle hh;
};

/* A project in a pool. */
struct share {
    uint64_t project_id;
    struct project *project;
    struct pool *pool;
    uint32_t running;
    uint32_t waiting; /* wants with jobs */
    uint64_t used;    /* time of the pool that its jobs took, for its weight */
    struct ask *asks;
    UT_hash_handle hh;
};

struct class
{
    uint64_t id;
    const Pb__ClassRecord *record;
    struct want *wants; /* by project id */
    struct demand *demands;
    UT_hash_handle hh;
};

struct demand {
    struct pool *pool;
    struct class *class;
    struct heap asks;
    struct bid *bids;
    struct demand *next_of_pool, *next_of_class;
};

struct bid {
    struct demand *demand;
    struct group *group;
    struct heap_node node; /* in group.bids, unless nobody asks or it is aside */
    bool aside;            /* no worker of the group has enough left */
    struct bid *next_of_demand;
    struct bid *next_aside;
};

/* Workers of a pool that offer the same. */
struct group {
    struct str offer;     /* as bytes: its key */
    Pb__WorkerRecord *as; /* what they have in common */
    struct pool *pool;
    struct heap workers; /* that have a free slot */
    struct heap bids;
    struct heap yields;     /* workers that have such a job, and are as good as free without it */
    struct heap_node yield; /* in pool.yields */
    struct bid *aside;
    uint64_t serial;
    struct group *next_of_pool;
    struct group *free_prev, *free_next; /* list of those with a free worker */
    bool is_free;
    UT_hash_handle hh;
};

struct waiting {
    uint64_t seq;
    uint64_t job_id;
    uint64_t queued_ms;
};

struct lane {
    struct want *want;
    int32_t priority;
    struct waiting *jobs; /* its front, in order */
    uint32_t first;
    uint32_t count;
    uint32_t cap;
    bool whole;           /* there are no more than these */
    uint64_t round;       /* of `after` */
    struct waiting after; /* the last one proposed in that round: still in the store */
    struct lane *next;
};

struct want {
    uint64_t project_id;
    struct class *class;
    struct project *project;
    struct lane *lanes; /* the highest priority first */
    struct ask *asks;
    struct lane *best;     /* NULL: nothing waits */
    int32_t band;          /* of its first job, with its age */
    uint64_t due_ms;       /* when some band rises; UINT64_MAX: never */
    struct heap_node node; /* in sched.aging */
    bool dirty;
    struct want *next_dirty;
    struct want *next_of_project;
    UT_hash_handle hh;
};

struct ask {
    struct want *want;
    struct demand *demand;
    struct share *share;
    struct heap_node node; /* in demand.asks, unless nothing waits or a limit is reached */
    struct ask *next_of_want;
    struct ask *next_of_share;
};

#define WORKER_ROOM 512u /* of the record of most workers */

/* Actions take no slots. What a worker takes of them stands in a worker of its own with the same
 * id, its `twin`, in groups that offer nothing else; so each is counted and matched by itself. */
struct worker {
    uint64_t id;
    struct worker *twin; /* NULL: it has taken no actions yet, or is a twin */
    bool is_twin;
    struct arena arena; /* of the record; outlives a reset */
    const Pb__WorkerRecord *record;
    struct pool *pool;   /* NULL: not placed yet */
    struct group *group; /* NULL: what it offers has changed */
    bool open;
    bool gone; /* to be forgotten when all is built anew */
    bool shut; /* the core refused what it was to be given */
    uint32_t used;
    uint64_t cpu_used;
    uint64_t memory_used;
    uint64_t disk_used;
    struct heap_node node;  /* in group.workers, while it has a free slot */
    struct heap yields;     /* jobs of it that may be displaced, the least claim first */
    struct heap_node yield; /* in group.yields */
    bool changed;
    struct worker *next_changed;
    UT_hash_handle hh;
};

/* A job in a worker's hands. */
struct held {
    uint64_t job_id;
    struct worker *worker;
    struct share *share;
    struct class *class;
    struct lane *lane; /* where it was proposed from, until the store shows it; else NULL */
    int32_t claim;     /* the band in which it got its slot */
    bool displaceable;
    bool passed_over;
    uint64_t since_ms;
    struct heap_node yield;   /* in worker.yields, if it is displaceable and not passed over */
    struct held *prev, *next; /* in sched.passed_over */
    struct held *next_unused;
    UT_hash_handle hh;
};

struct sched {
    bool stale;    /* all is to be built anew */
    struct tx *tx; /* during sched_propose */
    struct arena arena;
    struct word *words;
    struct project *projects;
    struct pool *pools;
    struct class *classes;
    struct group *groups;
    struct group *free_groups;
    struct worker *workers;
    struct worker *changed; /* set since the last round */
    struct held *held;
    struct held *unused;
    struct held *passed_over; /* were named as victims in this round */
    struct want *dirty;
    struct heap aging;
    uint64_t round;
    uint64_t next_serial;
    uint64_t *proposed; /* jobs of the last round */
    size_t proposed_count;
    size_t proposed_cap;
    size_t lane_count; /* with empty ones */
    size_t lane_limit;
    size_t class_limit;
    uint64_t rows;
    uint64_t weighed;
    uint64_t fitted;
};

/* need.c: who wants what, and in which order */
struct project *project_of(struct sched *s, uint64_t id);
struct class *class_of(struct sched *s, uint64_t id); /* NULL: there is none */
struct want *want_of(struct sched *s, struct class *class, uint64_t project_id);
struct share *share_of(struct sched *s, struct pool *pool, struct project *project);
/* A class and a pool have met. */
void demand_add(struct sched *s, struct pool *pool, struct class *class);
void bid_add(struct sched *s, struct demand *d, struct group *g);
/* To be called before one of its lanes changes: it stands in no heap until want_update. */
void want_mark(struct sched *s, struct want *w);
/* The want's first job may be another one, or its band: puts it where it belongs. */
void want_update(struct sched *s, struct want *w, uint64_t now_ms);
bool want_due_before(const struct heap_node *a, const struct heap_node *b); /* of sched.aging */
struct ask *demand_top(const struct demand *d);
bool ask_before(const struct ask *a, const struct ask *b);
void bid_update(struct bid *b);
/* A job of the share begins (delta 1) or ends (-1); `used` is added to its time. */
void share_running(struct share *sh, int delta, uint64_t used);

/* lane.c: the front of a lane */
struct lane *lane_of(struct sched *s, struct want *w, int32_t priority);
void lane_insert(struct sched *s, struct lane *l, struct waiting job);
void lane_remove(struct lane *l, uint64_t seq, uint64_t job_id);
struct waiting lane_take(struct sched *s, struct lane *l); /* its first; there is one */
void lane_forget(struct lane *l); /* what is known of it: to be read again */
void lane_fill(struct sched *s, struct lane *l);
void lanes_open(struct sched *s); /* all that the store has */
/* What a job of the priority that waits since queued_ms comes to, and when that next rises. */
int32_t band_at(int32_t priority, uint64_t queued_ms, uint64_t now_ms, uint64_t *ret_due_ms);

/* supply.c: workers and their groups */
struct worker *worker_of(struct sched *s, uint64_t id); /* loaded from the store if need be */
/* The same, or its twin: whichever takes jobs of the class. */
struct worker *worker_for(struct sched *s, uint64_t id, const Pb__ClassRecord *class);
struct worker *worker_new(struct sched *s, uint64_t id);
void worker_free(struct worker *w);
/* What it offers from now on; the twin is made if need be. It stands in no group. */
void worker_offers(struct worker *w, const Pb__WorkerRecord *record);
void worker_regroup(struct sched *s, struct worker *w);
void worker_update(struct sched *s, struct worker *w);
/* Out of its group, before what it offers changes; workers_settle places all such again. */
void worker_leave(struct sched *s, struct worker *w);
void workers_settle(struct sched *s);
bool worker_fits(const struct worker *w, const Pb__ClassRecord *class);
struct worker *group_pick(struct sched *s, const struct group *g, const Pb__ClassRecord *class);
bool word_known(struct sched *s, const char *text);
void word_add(struct sched *s, const char *text);

/* learn.c */
void held_add(struct sched *s, struct held what);
void held_remove(struct sched *s, struct held *h, uint64_t now_ms, bool charge);
struct held *held_find(struct sched *s, uint64_t job_id);
void sched_rebuild(struct sched *s, uint64_t now_ms);

/* preempt.c */
bool group_yields_before(const struct heap_node *a, const struct heap_node *b); /* of pool.yields */
bool worker_yields_before(const struct heap_node *a,
                          const struct heap_node *b); /* of group.yields */
bool held_yields_before(const struct heap_node *a,
                        const struct heap_node *b); /* of worker.yields */
void held_make_displaceable(struct held *h);        /* where its pool allows that */
void held_not_displaceable(struct sched *s, struct held *h);
/* The worker's place in its group, after its slots, its readiness or its jobs have changed. */
void worker_yields(struct worker *w);
void worker_yields_not(struct worker *w); /* before it leaves its group */
/* A new round: those that were passed over may be named again. */
void victims_reconsider(struct sched *s);

#endif
