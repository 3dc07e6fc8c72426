/* A scheduler over the real core and store, and workers and jobs for it. A test's *state is its
 * struct world. */
#ifndef DAVIT_TESTS_SCHED_FIXTURE_H
#define DAVIT_TESTS_SCHED_FIXTURE_H

#include "tests/kit/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

int set_up(void **state);
int tear_down(void **state);

struct offer {
    const char *name;
    const char *tags;
    const char *pool;
    uint32_t slots;
    uint64_t memory;
    bool tagged_only;
};

/* A worker that says so, and is open for work. */
uint64_t worker(struct world *w, struct offer o);
uint64_t submit(struct world *w, const char *project, const char *plan);

/* In the order in which they were found. */
size_t propose(struct world *w, struct sched_proposal *ret, size_t max);
/* One assignment after the other; the names of the jobs, with blanks between. */
const char *assign_all(struct world *w);
void finish(struct world *w, uint64_t pipeline_id, const char *name);

void set_project(struct world *w, const char *name, uint32_t weight, uint32_t max_running);
void set_pool(struct world *w, const char *name, uint32_t max_running, uint32_t each, bool preempt);

#define QUEUED_PIPELINES 50u
#define QUEUED_JOBS      2000u

/* So many pipelines of so many jobs, a third with tag x, a third with y. */
void fill(struct world *w);

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
