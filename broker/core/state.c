#include "common/base.h"

#include "broker/core/query.h"
#include "broker/core/state.h"

struct job_state_row {
    const char *text;
    uint32_t flags;
    uint32_t next;
};

static const struct job_state_row job_states[JOB_STATE_COUNT] = {
#define TO(state)                           | (1u << (state))
#define JOB_STATE(state, text, flags, next) [state] = {text, flags, 0u next},
#include "broker/core/job_state.def"
#undef JOB_STATE
#undef TO
};

static const struct status_row {
    const char *text;
    uint32_t flags;
} statuses[STATUS_COUNT] = {
#define STATUS(status, text, flags) [status] = {text, flags},
#include "broker/core/status.def"
#undef STATUS
};

static const struct reason_row {
    const char *text;
    enum reason_class class;
    const char *retry_name;
} reasons[REASON_COUNT] = {
#define REASON(reason, text, class, retry_name) [reason] = {text, class, retry_name},
#include "broker/core/reason.def"
#undef REASON
};

static const char *const event_texts[] = {
#define EVENT(kind, text) [kind] = text,
#include "broker/core/event.def"
#undef EVENT
};

static const struct job_state_row *job_state_row(Pb__JobState s)
{
    check((unsigned)s < JOB_STATE_COUNT);
    return &job_states[s];
}

static const struct status_row *status_row(Pb__Status s)
{
    check((unsigned)s < STATUS_COUNT);
    return &statuses[s];
}

const char *job_state_text(Pb__JobState s)
{
    return job_state_row(s)->text;
}

uint32_t job_state_flags(Pb__JobState s)
{
    return job_state_row(s)->flags;
}

bool job_state_terminal(Pb__JobState s)
{
    return (job_state_flags(s) & STATE_ENDED) != 0;
}

bool job_state_may_move(Pb__JobState from, Pb__JobState to)
{
    check((unsigned)to < JOB_STATE_COUNT);
    return (job_state_row(from)->next & (1u << to)) != 0;
}

uint32_t job_flags(const Pb__JobRecord *job, Pb__JobState s)
{
    const uint32_t flags = job_state_flags(s);

    if (job->unsupported) {
        return flags & (STATE_ENDED);
    }
    return job_is_alone(job) ? flags & ~(uint32_t)(STATE_READY | STATE_HELD) : flags;
}

bool job_may_move(const Pb__JobRecord *job, Pb__JobState to)
{
    const Pb__JobState from = job->state;
    const bool refused = from == JOB_PENDING && to == JOB_FAILED;
    const bool alone = (from == JOB_PENDING && to == JOB_RUNNING) ||
                       (from == JOB_RUNNING && (to == JOB_CANCELED || to == JOB_SKIPPED));
    const bool with_worker = to == JOB_ASSIGNED || to == JOB_CANCELING;

    if (job->unsupported) {
        return job_state_may_move(from, to) && !alone && !with_worker;
    }
    return job_state_may_move(from, to) && (job_is_alone(job) ? !with_worker && !refused : !alone);
}

const char *status_text(Pb__Status s)
{
    return status_row(s)->text;
}

uint32_t status_flags(Pb__Status s)
{
    return status_row(s)->flags;
}

bool status_terminal(Pb__Status s)
{
    return (status_flags(s) & STATE_ENDED) != 0;
}

bool status_may_move(enum status_machine m, Pb__Status from, Pb__Status to)
{
    if (from == to || to == STATUS_CREATED) {
        return false;
    }
    return m == MACHINE_STAGE || to != STATUS_PENDING || (status_flags(from) & STATE_FRESH) != 0;
}

const char *reason_text(Pb__Reason r)
{
    check((unsigned)r < REASON_COUNT);
    return reasons[r].text;
}

int reason_from_text(const char *text, Pb__Reason *ret)
{
    for (unsigned i = 0; i < REASON_COUNT; i++) {
        if (strcmp(reasons[i].text, text) == 0) {
            *ret = (Pb__Reason)i;
            return 0;
        }
    }
    return -E_NOT_FOUND;
}

enum reason_class reason_class(Pb__Reason r)
{
    check((unsigned)r < REASON_COUNT);
    return reasons[r].class;
}

bool reason_matches(Pb__Reason r, const char *name)
{
    check((unsigned)r < REASON_COUNT);
    return strcmp(name, "always") == 0 || strcmp(name, reasons[r].text) == 0 ||
           strcmp(name, reasons[r].retry_name) == 0;
}

const char *environment_state_text(Pb__EnvironmentState s)
{
    static const char *const texts[] = {"available", "stopping", "stopped"};

    check((unsigned)s < ARRAY_LEN(texts));
    return texts[s];
}

const char *event_text(enum event_kind k)
{
    check((unsigned)k < ARRAY_LEN(event_texts));
    return event_texts[k];
}

uint32_t job_kind(Pb__JobState s, bool allow_failure)
{
    if (allow_failure && (s == JOB_FAILED || s == JOB_CANCELED)) {
        return KIND_WARNED;
    }
    return allow_failure && s == JOB_MANUAL ? KIND_IGNORED : (uint32_t)s;
}

bool job_kind_settled(uint32_t kind)
{
    check(kind < KIND_COUNT);
    return kind >= JOB_STATE_COUNT || job_state_terminal((Pb__JobState)kind);
}

#define BIT(kind) (1u << (kind))

static bool only(uint32_t kinds, uint32_t of)
{
    return (kinds & ~of) == 0;
}

/* The order of the questions is the meaning: each may rely on all before it having been denied. */
Pb__Status status_of_kinds(uint32_t kinds)
{
    const uint32_t quiet = BIT(KIND_WARNED) | BIT(KIND_IGNORED);
    const uint32_t well = quiet | BIT(JOB_SUCCESS) | BIT(JOB_SKIPPED);
    const uint32_t queued = BIT(JOB_PENDING) | BIT(JOB_ASSIGNED);

    if (kinds != 0 && only(kinds, BIT(JOB_SKIPPED) | BIT(KIND_IGNORED))) {
        return STATUS_SKIPPED;
    } else if (only(kinds, well)) {
        return STATUS_SUCCESS; /* also of no jobs at all */
    } else if (only(kinds, quiet | BIT(JOB_CREATED))) {
        return STATUS_CREATED;
    } else if (only(kinds, well | BIT(JOB_CANCELED))) {
        return STATUS_CANCELED;
    } else if (only(kinds, quiet | queued | BIT(JOB_CREATED) | BIT(JOB_SKIPPED))) {
        return STATUS_PENDING;
    } else if (kinds & (queued | BIT(JOB_RUNNING))) {
        return STATUS_RUNNING;
    } else if (kinds & BIT(JOB_CANCELING)) {
        return STATUS_CANCELING;
    } else if (kinds & BIT(JOB_WAITING_FOR_RESOURCE)) {
        return STATUS_WAITING_FOR_RESOURCE;
    } else if (kinds & BIT(JOB_MANUAL)) {
        return STATUS_MANUAL;
    } else if (kinds & BIT(JOB_SCHEDULED)) {
        return STATUS_SCHEDULED;
    } else if (kinds & BIT(JOB_CREATED)) {
        return STATUS_RUNNING;
    }
    return STATUS_FAILED;
}

Pb__Status status_of_needs(uint32_t kinds)
{
    if (kinds & (BIT(JOB_SKIPPED) | BIT(KIND_IGNORED))) {
        return STATUS_SKIPPED;
    }
    if (!only(kinds, BIT(JOB_SUCCESS) | BIT(JOB_FAILED) | BIT(JOB_CANCELED) | BIT(KIND_WARNED))) {
        return STATUS_PENDING;
    }
    return status_of_kinds(kinds);
}
