/* A davit-worker process, its state folder, and a broker by hand. */
#ifndef DAVIT_TEST_WORLD_H
#define DAVIT_TEST_WORLD_H

#include "tests/unit/worker/peer.h"

struct world {
    struct peer peer;
    char root[64];
    char *state;
    const char *min_free_mb; /* the option of the next worker */
    const char *slots;       /* likewise */
    pid_t worker;            /* 0: none */
    pid_t other;             /* a second one */
};

int world_set_up(void **state); /* cmocka's; the worker runs and is welcome */
int world_tear_down(void **state);

pid_t worker_start(struct world *w); /* one more process on the same state folder */
int worker_wait(pid_t pid);          /* its exit code */
void worker_kill(struct world *w);   /* -9, and waited for */

char *job_file(const struct world *w, struct job_key key, const char *name); /* heap */
bool job_is_there(const struct world *w, struct job_key key);
pid_t job_shim(const struct world *w, struct job_key key);
/* Waits until it holds. */
void until_file(const char *path);
void until_gone(pid_t pid);
void until_no_folder(const struct world *w, struct job_key key);

#define TEST_WORLD(f) cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)

#endif
