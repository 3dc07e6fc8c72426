/* A plan is foreign input: each kind of wrong one is refused by name, and nothing is written. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    world_init(w);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    world_release(*state);
    free(*state);
    return 0;
}

/* A right plan to make wrong. */
static Pb__Plan *plan(struct world *w)
{
    return plan_from_text(tx_arena(w->tx), "a: stage=one artifacts=x\n"
                                           "b: stage=one needs=a tags=linux\n"
                                           "c: stage=two needs=a,b deps=a\n"
                                           "d: stage=two\n");
}

static void refused(struct world *w, Pb__Plan *p, int r, const char *why)
{
    assert_int_equal(world_submit(w, p, "main", "1"), r); /* world_apply: nothing was written */
    if (strstr(w->reply.text, why) == NULL) {
        fail_msg("refused with '%s' instead of '%s'", w->reply.text, why);
    }
    assert_int_equal(tx_count(w->tx, T_PROJECT), 0);
}

static void a_right_plan_is_accepted(void **state)
{
    assert_int_equal(world_submit(*state, plan(*state), "main", "1"), 0);
}

static void names_must_be_unique_and_printable(void **state)
{
    Pb__Plan *p = plan(*state);

    p->jobs[1]->name = p->jobs[0]->name;
    refused(*state, p, -E_INVALID, "two jobs of one name");
    p = plan(*state);
    p->stages[1] = p->stages[0];
    refused(*state, p, -E_INVALID, "two stages of one name");
    p = plan(*state);
    p->jobs[0]->name = (char *)"line\nbreak";
    refused(*state, p, -E_INVALID, "bad name of job 0");
    p->jobs[0]->name = (char *)"\xff";
    refused(*state, p, -E_INVALID, "bad name of job 0");
    p->jobs[0]->name = arena_alloc(tx_arena(((struct world *)*state)->tx), LIMIT_NAME + 2);
    memset(p->jobs[0]->name, 'x', LIMIT_NAME + 1);
    refused(*state, p, -E_INVALID, "bad name of job 0");
}

static void stages_must_hold_jobs_in_order(void **state)
{
    Pb__Plan *p = plan(*state);

    p->jobs[0]->stage = 1;
    refused(*state, p, -E_INVALID, "order of their stages");
    p = plan(*state);
    p->jobs[3]->stage = 2;
    refused(*state, p, -E_INVALID, "a stage without jobs");
    p = plan(*state);
    p->n_stages = 1;
    refused(*state, p, -E_INVALID, "a stage without jobs");
    p = plan(*state);
    p->n_jobs = 0;
    refused(*state, p, -E_INVALID, "no jobs");
}

static void needs_must_point_back_and_not_in_circles(void **state)
{
    Pb__Plan *p = plan(*state);

    p->jobs[2]->needs[0]->job = 4;
    refused(*state, p, -E_INVALID, "bad need 0");
    p->jobs[2]->needs[0]->job = 2;
    refused(*state, p, -E_INVALID, "bad need 0");
    p->jobs[2]->needs[0]->job = 1; /* twice the same */
    refused(*state, p, -E_INVALID, "bad need 1");
    p = plan(*state);
    p->jobs[1]->needs[0]->job = 3; /* of a later stage */
    refused(*state, p, -E_INVALID, "bad need 0");
    p = plan(*state);
    p->jobs[0]->dag = true;
    p->jobs[0]->needs = p->jobs[2]->needs + 1; /* a needs b needs a */
    p->jobs[0]->n_needs = 1;
    refused(*state, p, -E_INVALID, "circle");
    p = plan(*state);
    p->jobs[1]->dag = false;
    refused(*state, p, -E_INVALID, "not declared");
    p = plan(*state);
    p->jobs[2]->dependencies[0] = 2;
    refused(*state, p, -E_INVALID, "bad dependency 0");
}

static void values_must_be_in_their_range(void **state)
{
    Pb__Plan *p = plan(*state);

    p->jobs[0]->when = (Pb__When)9;
    refused(*state, p, -E_INVALID, "unknown when");
    p = plan(*state);
    p->jobs[0]->when = WHEN_DELAYED;
    refused(*state, p, -E_INVALID, "bad start_in");
    p = plan(*state);
    p->jobs[0]->retry_max = 3;
    refused(*state, p, -E_INVALID, "bad retry");
    p = plan(*state);
    p->jobs[0]->timeout_ms = LIMIT_TIMEOUT_MS + 1;
    refused(*state, p, -E_INVALID, "timeout");
    p = plan(*state);
    p->jobs[0]->node_index = 3;
    p->jobs[0]->node_total = 2;
    refused(*state, p, -E_INVALID, "parallel");
    p = plan(*state);
    p->jobs[0]->tags = (char *[]){(char *)"b", (char *)"a"};
    p->jobs[0]->n_tags = 2;
    refused(*state, p, -E_INVALID, "tags");
}

static void caches_and_containers_must_be_sound(void **state)
{
    Pb__CacheSpec cache = PB__CACHE_SPEC__INIT;
    Pb__CacheSpec *caches[LIMIT_CACHES + 1] = {&cache, &cache, &cache, &cache, &cache};
    Pb__Service service = PB__SERVICE__INIT;
    Pb__Service *services[] = {&service};
    Pb__Plan *p = plan(*state);

    p->jobs[0]->caches = caches;
    p->jobs[0]->n_caches = LIMIT_CACHES + 1;
    refused(*state, p, -E_INVALID, "bad cache");
    p->jobs[0]->n_caches = 1;
    cache.when = (Pb__ArtifactWhen)7;
    refused(*state, p, -E_INVALID, "bad cache");
    p = plan(*state);
    p->jobs[0]->services = services;
    p->jobs[0]->n_services = 1;
    refused(*state, p, -E_INVALID, "bad image or service");
}

static void what_is_published_must_be_sound(void **state)
{
    Pb__ReportSpec report = PB__REPORT_SPEC__INIT;
    Pb__ReportSpec *reports[] = {&report};
    Pb__ArtifactSpec artifacts = PB__ARTIFACT_SPEC__INIT;
    Pb__PagesSpec pages = PB__PAGES_SPEC__INIT;
    Pb__IdTokenSpec token = PB__ID_TOKEN_SPEC__INIT;
    Pb__IdTokenSpec *tokens[] = {&token};
    Pb__Plan *p = plan(*state);

    p->jobs[0]->artifacts = &artifacts;
    artifacts.reports = reports;
    artifacts.n_reports = 1;
    refused(*state, p, -E_INVALID, "bad report");
    p = plan(*state);
    p->jobs[0]->pages = &pages;
    refused(*state, p, -E_INVALID, "bad report, release or pages");
    p = plan(*state);
    p->jobs[0]->id_tokens = tokens;
    p->jobs[0]->n_id_tokens = 1;
    token.name = (char *)"TOKEN";
    refused(*state, p, -E_INVALID, "tokens");
}

static void a_job_that_no_message_could_carry_is_refused_at_once(void **state)
{
    struct world *w = *state;
    Pb__Plan *p = plan(w);
    uint8_t *script = arena_alloc(tx_arena(w->tx), LIMIT_JOB_SPEC);
    ProtobufCBinaryData line = {LIMIT_JOB_SPEC - 70000, script};

    p->jobs[0]->n_script = 1;
    p->jobs[0]->script = &line;
    refused(w, p, -E_TOO_BIG, "job a");
    line.len = LIMIT_JOB_SPEC - 110000;
    assert_int_equal(world_submit(w, p, "main", "1"), 0);
}

static void the_biggest_job_that_is_accepted_has_a_spec_that_fits(void **state)
{
    struct world *w = *state;
    Pb__Plan *p = plan_from_text(tx_arena(w->tx), "big: stage=one\n");
    uint8_t *script = arena_alloc(tx_arena(w->tx), LIMIT_JOB_SPEC);
    ProtobufCBinaryData line = {LIMIT_JOB_SPEC, script};
    Pb__JobSpec *spec;
    uint64_t id;

    p->jobs[0]->n_script = 1;
    p->jobs[0]->script = &line;
    while (world_submit(w, p, "main", "1") < 0) {
        line.len -= 512;
    }
    id = world_job_id(w, w->reply.pipeline_id, "big");
    assert_int_equal(world_assign(w, id, world_worker(w, "w1", "", "shell", 1, true)), 0);
    assert_int_equal(core_job_spec(w->tx, id, "token", &spec), 0);
    assert_true(pb__job_spec__get_packed_size(spec) > LIMIT_JOB_SPEC - 110000);
}

static void a_plan_at_the_limits_is_accepted(void **state)
{
    struct world *w = *state;
    struct buf text = BUF_INIT;

    for (unsigned i = 0; i < LIMIT_PIPELINE_JOBS; i++) {
        buf_addf(&text, "j%u: stage=s%u\n", i, i * LIMIT_PIPELINE_STAGES / LIMIT_PIPELINE_JOBS);
    }
    assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), buf_cstr(&text)), "main", "1"),
                     0);
    buf_release(&text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_right_plan_is_accepted),
        TEST(names_must_be_unique_and_printable),
        TEST(stages_must_hold_jobs_in_order),
        TEST(needs_must_point_back_and_not_in_circles),
        TEST(values_must_be_in_their_range),
        TEST(caches_and_containers_must_be_sound),
        TEST(what_is_published_must_be_sound),
        TEST(a_job_that_no_message_could_carry_is_refused_at_once),
        TEST(the_biggest_job_that_is_accepted_has_a_spec_that_fits),
        TEST(a_plan_at_the_limits_is_accepted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
