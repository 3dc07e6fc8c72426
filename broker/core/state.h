/* The state machines as tables, made of job_state.def, status.def, reason.def and event.def, and
 * what a job's state means to the status of its stage and pipeline. Pure. Threads: all safe. */
#ifndef DAVIT_STATE_H
#define DAVIT_STATE_H

#include "proto/pb.h"

enum state_flag {
    STATE_ENDED = 1,
    STATE_READY = 2,
    STATE_HELD = 4,
    STATE_LOCKS = 8,
    STATE_FRESH = 16,
};

enum reason_class {
    REASON_CLASS_NONE,
    REASON_CLASS_SCRIPT,
    REASON_CLASS_INFRASTRUCTURE,
    REASON_CLASS_DECISION,
};

enum event_kind {
#define EVENT(kind, text) kind,
#include "broker/core/event.def"
#undef EVENT
};

#define JOB_STATE_COUNT (JOB_SKIPPED + 1)
#define STATUS_COUNT    (STATUS_SKIPPED + 1)
#define REASON_COUNT    (REASON_ROLLOUT_FAILED + 1)

uint32_t job_state_flags(Pb__JobState s);
bool job_state_may_move(Pb__JobState from, Pb__JobState to);

/* A trigger job, or one that waits for a rollout: it has no worker. */
static inline bool job_is_alone(const Pb__JobRecord *job)
{
    return job->trigger || job->rollout;
}

/* The same for this job: not all have a worker. */
uint32_t job_flags(const Pb__JobRecord *job, Pb__JobState s);
bool job_may_move(const Pb__JobRecord *job, Pb__JobState to);

enum status_machine { MACHINE_PIPELINE, MACHINE_STAGE };
uint32_t status_flags(Pb__Status s);
bool status_may_move(enum status_machine m, Pb__Status from, Pb__Status to);

enum reason_class reason_class(Pb__Reason r);
/* Whether `name` of retry:when (GitLab's or ours, or "always") means this reason. */
bool reason_matches(Pb__Reason r, const char *name);

const char *event_text(enum event_kind k);

/* What a job is to a status: its state, but for an allowed failure and a manual job that blocks
 * nobody. Stage rows count their jobs by it, in this order. */
enum job_kind {
    KIND_WARNED = JOB_STATE_COUNT, /* failed or canceled, and allowed to */
    KIND_IGNORED,                  /* manual, and allowed to fail */
    KIND_COUNT,
};
uint32_t job_kind(Pb__JobState s, bool allow_failure);
/* The jobs after it can be decided: it will not change by itself. */
bool job_kind_settled(uint32_t kind);

/* The status of a set of jobs, given which kinds occur in it (bit 1 << kind). */
Pb__Status status_of_kinds(uint32_t kinds);
/* The same for the needs of a job: pending until all have ended, skipped as soon as one will not
 * run. */
Pb__Status status_of_needs(uint32_t kinds);

#endif
