/* Rollouts from begin to end: the core with the decider, and a fleet that acts. */
#include "common/base.h"

#include "tests/kit/rig.h"

#include "broker/core/rollout.h"
#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define HOUR_MS (3600u * 1000)

struct fixture {
    struct world w;
    struct rig rig;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    world_init(&f->w);
    rig_init(&f->rig, &f->w);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    world_release(&f->w);
    free(f);
    return 0;
}

/* The service's first version, which goes out at once. */
static uint64_t first(struct fixture *f)
{
    const uint64_t job_id = rig_submit(&f->rig, "v1");
    const uint64_t id = rig_rollout_of(&f->rig, job_id);

    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
    f->rig.highest_bp = 0;
    return id;
}

static const Pb__ServiceRecord *service(struct fixture *f)
{
    const Pb__ProjectRecord *p = project_by_name(f->w.tx, "demo");
    const Pb__EnvironmentRecord *e = environment_by_name(f->w.tx, p->id, "production");

    return service_by_name(f->w.tx, e->id, "web");
}

static const char *job_state(struct fixture *f, uint64_t job_id)
{
    return job_state_text(job_get(f->w.tx, job_id)->state);
}

static void a_first_version_goes_out_at_once(void **state)
{
    struct fixture *f = *state;
    const uint64_t job_id = rig_submit(&f->rig, "v1");
    const uint64_t id = rig_rollout_of(&f->rig, job_id);
    const Pb__ServiceRecord *s;

    assert_int_not_equal(id, 0);
    assert_string_equal(job_state(f, job_id), "running");
    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
    assert_string_equal(job_state(f, job_id), "success");
    s = service(f);
    assert_int_equal(s->live_rollout_id, 0);
    assert_string_equal(snapshot_get(f->w.tx, s->stable_snapshot_id)->version, "v1");
    assert_int_equal(f->rig.slots[s->stable_slot].instances[0], 2);
    assert_false(f->rig.broken);
}

static void a_good_canary_becomes_stable(void **state)
{
    struct fixture *f = *state;
    const uint64_t before = first(f);
    const uint64_t was = service(f)->stable_snapshot_id;
    const uint64_t job_id = rig_submit(&f->rig, "v2");
    const uint64_t id = rig_rollout_of(&f->rig, job_id);
    const Pb__ServiceRecord *s;

    assert_true(rig_until(&f->rig, id, ROLLOUT_STEPPING, HOUR_MS));
    assert_int_equal(service(f)->stable_snapshot_id, was);
    assert_true(rig_until(&f->rig, id, ROLLOUT_BAKE, HOUR_MS));
    assert_int_equal(service(f)->stable_snapshot_id, was);
    assert_int_equal(f->rig.weight_b_bp, ROLLOUT_FULL_BP);
    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
    s = service(f);
    assert_int_not_equal(s->stable_snapshot_id, was);
    assert_int_equal(s->stable_slot, ROLLOUT_SLOT_B);
    assert_int_equal(s->n_snapshot_ids, 2);
    assert_string_equal(job_state(f, job_id), "success");
    assert_int_equal(f->rig.slots[ROLLOUT_SLOT_A].instances[0], 0);
    assert_false(f->rig.broken);
    assert_int_not_equal(before, id);
}

static void a_bad_canary_goes_back(void **state)
{
    struct fixture *f = *state;
    const Pb__JobRecord *job;
    uint64_t was, job_id, id;

    first(f);
    was = service(f)->stable_snapshot_id;
    job_id = rig_submit(&f->rig, "v2");
    id = rig_rollout_of(&f->rig, job_id);
    assert_true(rig_until(&f->rig, id, ROLLOUT_STEPPING, HOUR_MS));
    rig_run(&f->rig, 10000);
    assert_int_equal(f->rig.weight_b_bp, 500);
    f->rig.never_ready = true;
    assert_true(rig_until(&f->rig, id, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(rollout_get(f->w.tx, id)->why, ROLLOUT_WHY_HARD_CHECK);
    assert_int_equal(f->rig.highest_bp, 500);
    assert_int_equal(f->rig.weight_b_bp, 0);
    assert_int_equal(f->rig.slots[ROLLOUT_SLOT_B].instances[0], 0);
    assert_int_equal(service(f)->stable_snapshot_id, was);
    job = job_get(f->w.tx, job_id);
    assert_int_equal(job->state, JOB_FAILED);
    assert_int_equal(job->reason, REASON_ROLLOUT_FAILED);
    assert_false(f->rig.broken);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_first_version_goes_out_at_once),
        TEST(a_good_canary_becomes_stable),
        TEST(a_bad_canary_goes_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
