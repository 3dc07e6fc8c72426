/* A broker without HTTP, in a folder of its own, for the tests of the turn and the fleet. */
#ifndef DAVIT_TESTS_TURN_FIXTURE_H
#define DAVIT_TESTS_TURN_FIXTURE_H

#include "broker/turn_run.h"

#define FIXTURE_WORKER_TOKEN "dvw_of-the-test"
#define FIXTURE_ADMIN_TOKEN  "dva_of-the-test"
#define FIXTURE_USER_TOKEN   "dvu_of-the-test"

struct fixture_options {
    uint32_t heartbeat_ms; /* 0: 100 s, so that nothing happens by time */
    uint32_t lease_ms;
    uint32_t hello_ms;
    uint64_t map_bytes;
    struct turn_trigger trigger;
    uint64_t keep_pipelines_ms;
    bool listen;
    bool no_journal;     /* every round commits the store */
    uint32_t relaxed_ms; /* of the journal */
    bool stepped;        /* no thread, and the clocks are those of the fixture */
    bool empty;          /* the store knows nothing, not even tokens */
};

struct fixture {
    char dir[64];
    char journal_dir[80]; /* below it */
    struct fixture_options options;
    struct store *store;
    struct bus *bus;
    struct inbox *inbox;
    struct logs *logs;
    struct fleet *fleet;
    struct turn *turn;
    uint16_t port;
    uint64_t real_ms; /* of a stepped one */
    uint64_t mono_ms;
};

/* A new folder with a store that knows both tokens. */
void fixture_up(struct fixture *f, const struct fixture_options *o);
void fixture_down(struct fixture *f);
/* The broker ends and starts again on the same folder. */
void fixture_restart(struct fixture *f);
/* A stepped one ends as if the process had been killed; and starts again. */
void fixture_end(struct fixture *f);
void fixture_start(struct fixture *f);
void fixture_kill(struct fixture *f); /* both */
/* Submits the post, and steps where there is no thread, until it is answered. */
int fixture_call(struct fixture *f, struct post *p, struct reply *ret_reply);

/* A post with a pipeline of `jobs` jobs in one stage, each of which runs "true". */
struct post *fixture_pipeline_post(const char *project, size_t jobs);
/* Submits a pipeline and returns the id of its first job; the others follow. */
uint64_t fixture_submit_post(struct fixture *f, struct post *p);
uint64_t fixture_submit(struct fixture *f, size_t jobs);

void fixture_revoke_token(struct fixture *f, const char *token);
int fixture_cancel_job(struct fixture *f, uint64_t job_id);

Pb__JobState fixture_job_state(struct fixture *f, uint64_t job_id);
uint64_t fixture_job_epoch(struct fixture *f, uint64_t job_id);
uint64_t fixture_job_attempt(struct fixture *f, uint64_t job_id);
uint32_t fixture_job_losses(struct fixture *f, uint64_t job_id);
/* Waits up to 5 s. */
bool fixture_wait_job(struct fixture *f, uint64_t job_id, Pb__JobState state);
/* A read transaction on all that was acknowledged. */
void fixture_read(struct fixture *f, struct tx **ret);
/* No rule between rows of the store is broken. */
void fixture_audit(struct fixture *f);

#endif
