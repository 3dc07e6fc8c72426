#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "broker/core/rollout.h"
#include "tests/kit/rig.h"
#include "tests/unit/turn/fixture.h"

/* Rollouts in a turn without a thread: they begin and are decided in its rounds, and by its clock.
 * There is no worker, so every action waits. */

static const struct fixture_options stepped = {.stepped = true};

static void declare(struct fixture *f)
{
    struct post *p = post_new("config");
    struct arena *a = post_arena(p);
    Pb__Configure *body = arena_alloc(a, sizeof(*body));
    struct reply reply;

    pb__configure__init(body);
    body->targets = arena_array(a, 1, sizeof(Pb__RolloutTarget *));
    body->targets[0] = rig_target(a);
    body->n_targets = 1;
    post_command(p)->body_case = PB__COMMAND__BODY_CONFIGURE;
    post_command(p)->configure = body;
    assert_int_equal(fixture_call(f, p, &reply), 0);
}

static uint64_t submit(struct fixture *f)
{
    struct post *p = fixture_pipeline_post("group/app", 1);

    post_command(p)->pipeline_create->plan = rig_plan(post_arena(p), "v1");
    return fixture_submit_post(f, p);
}

/* The record as the store has it now; ended rollouts, too. */
static Pb__RolloutRecord newest(struct fixture *f)
{
    const Pb__RolloutRecord *found = NULL;
    Pb__RolloutRecord copy = PB__ROLLOUT_RECORD__INIT;
    struct tx *tx;

    fixture_read(f, &tx);
    if (rollouts_before(tx, 0, 0, 1, &found) == 1) {
        copy = *found;
        copy.holds = copy.why_text = NULL; /* of the tx, as all texts */
    }
    tx_abort(tx);
    return copy;
}

static uint64_t jobs_in(struct fixture *f, Pb__JobState state)
{
    struct tx *tx;

    fixture_read(f, &tx);
    const uint64_t n = meta_get(tx)->job_counts[state];
    tx_abort(tx);
    return n;
}

static void elapse_until(struct fixture *f, Pb__RolloutState state, uint64_t for_ms)
{
    const uint64_t until_ms = f->mono_ms + for_ms;

    while (newest(f).state != state) {
        const uint64_t next_ms = MAX(turn_next_step_ms(f->turn), f->mono_ms + 1);
        assert_true(next_ms <= until_ms);
        f->real_ms += next_ms - f->mono_ms;
        f->mono_ms = next_ms;
        assert_int_equal(turn_step(f->turn), 0);
    }
}

static void a_rollout_begins_in_the_round_of_its_jobs_turn(void **state)
{
    struct fixture f;

    fixture_up(&f, &stepped);
    declare(&f);
    const uint64_t job_id = submit(&f);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_RUNNING);
    const Pb__RolloutRecord r = newest(&f);
    assert_int_equal(r.job_id, job_id);
    assert_int_equal(r.state, ROLLOUT_PROVISION); /* decided in the same round, too */
    assert_true(jobs_in(&f, JOB_PENDING) > 0);    /* its actions */
    assert_true(turn_next_step_ms(f.turn) <= f.mono_ms + 2000);
    fixture_audit(&f);
    fixture_down(&f);
}

static void a_job_without_a_target_fails_with_a_word_on_it(void **state)
{
    struct fixture f;
    struct tx *tx;

    fixture_up(&f, &stepped);
    const uint64_t job_id = submit(&f);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_FAILED);
    fixture_read(&f, &tx);
    assert_int_equal(job_get(tx, job_id)->reason, REASON_CONFIG_ERROR);
    assert_string_equal(attempt_get(tx, job_id, 1)->detail,
                        "no target web is declared for environment production");
    tx_abort(tx);
    fixture_down(&f);
}

static void time_alone_moves_a_rollout_that_nobody_answers(void **state)
{
    struct fixture f;

    fixture_up(&f, &stepped);
    declare(&f);
    const uint64_t job_id = submit(&f);
    elapse_until(&f, ROLLOUT_ROLLBACK, 11 * 60 * 1000);
    assert_int_equal(newest(&f).why, ROLLOUT_WHY_DEADLINE);
    elapse_until(&f, ROLLOUT_NEEDS_HUMAN, 60 * 1000);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_RUNNING);
    fixture_audit(&f);
    fixture_down(&f);
}

static void a_start_is_told_to_rollouts_once(void **state)
{
    struct fixture f;

    fixture_up(&f, &stepped);
    declare(&f);
    submit(&f);
    const Pb__RolloutRecord before = newest(&f);
    for (unsigned starts = 1; starts <= 3; starts++) {
        f.real_ms += 10;
        fixture_kill(&f);
        assert_int_equal(turn_step(f.turn), 0);
        assert_int_equal(turn_step(f.turn), 0);
        const Pb__RolloutRecord r = newest(&f);
        assert_int_equal(r.epoch, before.epoch + starts);
        assert_int_equal(r.observed_ms, 0);
        assert_int_equal(r.evidence_from_ms, f.real_ms);
        assert_int_equal(r.state, before.state);
        fixture_audit(&f);
    }
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rollout_begins_in_the_round_of_its_jobs_turn),
        cmocka_unit_test(a_job_without_a_target_fails_with_a_word_on_it),
        cmocka_unit_test(time_alone_moves_a_rollout_that_nobody_answers),
        cmocka_unit_test(a_start_is_told_to_rollouts_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
