/* A store that is full in the middle of a command: the command fails as an error of its
 * transaction, at whatever write that is, and what was committed before stays sound. */
#include "common/base.h"

#include "tests/kit/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static Pb__Plan *plan(struct world *w, unsigned jobs)
{
    struct buf text = BUF_INIT;
    Pb__Plan *p;

    for (unsigned i = 0; i < jobs; i++) {
        buf_addf(&text, "j%u: stage=s%u group=g%u%s\n", i, i / 8, i % 3,
                 i % 5 == 4 ? " needs=j0" : "");
    }
    p = plan_from_text(tx_arena(w->tx), buf_cstr(&text));
    buf_release(&text);
    return p;
}

/* Applies without the checks of world_apply. The transaction is lost when it fails. */
static int try_apply(struct world *w, int body_case, void *body)
{
    Pb__Command *cmd = world_command(w, "ann");
    int r;

    cmd->body_case = (Pb__Command__BodyCase)body_case;
    cmd->init_store = body;
    effects_clear(&w->fx);
    r = core_apply(w->tx, cmd, &w->fx, &w->reply);
    if (r < 0) {
        assert_int_equal(r, -E_FULL);
        assert_int_equal(tx_error(w->tx), -E_FULL);
        assert_int_equal(w->fx.count, 0);
        tx_abort(w->tx);
        assert_int_equal(tx_begin(w->store, true, &w->tx), 0);
    }
    return r;
}

static void ignore(void *ctx, const char *text)
{
    fprintf(stderr, "%s\n", text);
}

/* Fills the store with pipelines of that size, then cancels what it holds. Returns the failures. */
static unsigned fill(unsigned jobs)
{
    struct world w;
    unsigned failures = 0;
    uint64_t first = 0;
    int r;

    world_init_small(&w, 640u * 1024);
    do {
        Pb__PipelineCreate body = PB__PIPELINE_CREATE__INIT;
        body.project = (char *)"demo";
        body.plan = plan(&w, jobs);
        r = try_apply(&w, PB__COMMAND__BODY_PIPELINE_CREATE, &body);
        if (r == 0) {
            first = first != 0 ? first : w.reply.pipeline_id;
            if (tx_commit(w.tx) < 0) { /* full only at the commit */
                r = -E_FULL;
            }
            assert_int_equal(tx_begin(w.store, true, &w.tx), 0);
        }
    } while (r == 0);
    failures++;
    for (unsigned i = 0; i < 3 && first != 0; i++) {
        Pb__PipelineCancel cancel = PB__PIPELINE_CANCEL__INIT;
        Pb__PipelineRetry retry = PB__PIPELINE_RETRY__INIT;
        cancel.pipeline_id = retry.pipeline_id = first;
        r = i % 2 == 0 ? try_apply(&w, PB__COMMAND__BODY_PIPELINE_CANCEL, &cancel)
                       : try_apply(&w, PB__COMMAND__BODY_PIPELINE_RETRY, &retry);
        if (r < 0) {
            failures++;
            break; /* the next would be refused for its state */
        }
    }
    assert_int_equal(core_audit(w.tx, ignore, NULL), 0);
    world_release(&w);
    return failures;
}

static void a_full_store_fails_the_command_and_nothing_else(void **state)
{
    unsigned failures = 0;

    for (unsigned jobs = 1; jobs <= 60; jobs += 3) {
        failures += fill(jobs);
    }
    printf("  %u commands failed on a full store\n", failures);
    assert_true(failures >= 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_store_fails_the_command_and_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
