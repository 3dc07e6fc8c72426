/* The corpus of processing cases against the core: see README.md. Their files must compile as well.
 */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"
#include "tests/golden/corpus.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct test {
    struct world world;
    const char *name;
    uint64_t pipeline_id;
    uint64_t worker_id;
    unsigned failures;
};

static const char *text(const json_t *object, const char *key, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(object, key));

    return s != NULL ? s : otherwise;
}

/* Keys of a configuration that are no jobs. */
static bool is_job(const char *key, const json_t *value)
{
    return json_is_object(value) && strcmp(key, "stages") != 0 && key[0] != '.';
}

/* In these cases a rule is an `if` that does not hold: the job is left out. */
static bool is_present(const json_t *job)
{
    return json_object_get(job, "rules") == NULL;
}

static Pb__When when_of(const char *s)
{
    static const char *const names[] = {"on_success", "on_failure", "always", "manual", "delayed"};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(s, names[i]) == 0) {
            return (Pb__When)i;
        }
    }
    check_failed("a known when", __FILE__, __LINE__);
}

static Pb__PlanJob *plan_job(struct arena *a, const char *name, const json_t *config,
                             uint32_t stage)
{
    Pb__PlanJob *job = arena_alloc(a, sizeof(*job));
    const json_t *allow = json_object_get(config, "allow_failure");

    pb__plan_job__init(job);
    job->name = (char *)name;
    job->stage = stage;
    job->when = when_of(text(config, "when", "on_success"));
    job->allow_failure = allow != NULL ? json_is_true(allow) : job->when == WHEN_MANUAL;
    job->start_in_ms = job->when == WHEN_DELAYED ? 5000 : 0;
    return job;
}

static uint32_t index_of(const Pb__Plan *plan, const char *name)
{
    for (uint32_t i = 0; i < plan->n_jobs; i++) {
        if (strcmp(plan->jobs[i]->name, name) == 0) {
            return i;
        }
    }
    return UINT32_MAX;
}

static void add_needs(struct arena *a, Pb__Plan *plan, Pb__PlanJob *job, const json_t *needs)
{
    size_t i;
    const json_t *need;

    job->dag = needs != NULL;
    job->needs = arena_array(a, LIMIT_JOB_NEEDS, sizeof(*job->needs));
    json_array_foreach(needs, i, need)
    {
        const char *name = json_is_string(need) ? json_string_value(need) : text(need, "job", "");
        const uint32_t index = index_of(plan, name);
        if (index == UINT32_MAX) { /* left out, and so the need is optional */
            check(json_is_true(json_object_get(need, "optional")));
            continue;
        }
        job->needs[job->n_needs] = arena_alloc(a, sizeof(Pb__Need));
        pb__need__init(job->needs[job->n_needs]);
        job->needs[job->n_needs++]->job = index;
    }
}

static void add_stage(struct arena *a, Pb__Plan *plan, const char *stage, const json_t *config)
{
    const char *name;
    json_t *job;
    bool used = false;

    json_object_foreach((json_t *)config, name, job)
    {
        if (is_job(name, job) && is_present(job) &&
            strcmp(text(job, "stage", "test"), stage) == 0) {
            plan->jobs[plan->n_jobs++] = plan_job(a, name, job, (uint32_t)plan->n_stages);
            used = true;
        }
    }
    if (used) {
        plan->stages[plan->n_stages++] = (char *)stage;
    }
}

static Pb__Plan *plan_of(struct arena *a, const json_t *config)
{
    static const char *const defaults[] = {"build", "test", "deploy"};
    const json_t *stages = json_object_get(config, "stages");
    Pb__Plan *plan = arena_alloc(a, sizeof(*plan));

    pb__plan__init(plan);
    plan->stages = arena_array(a, 16, sizeof(*plan->stages));
    plan->jobs = arena_array(a, 16, sizeof(*plan->jobs));
    for (size_t i = 0; i < (stages != NULL ? json_array_size(stages) : 3); i++) {
        add_stage(a, plan,
                  stages != NULL ? json_string_value(json_array_get(stages, i)) : defaults[i],
                  config);
    }
    for (size_t i = 0; i < plan->n_jobs; i++) {
        add_needs(a, plan, plan->jobs[i],
                  json_object_get(json_object_get(config, plan->jobs[i]->name), "needs"));
    }
    return plan;
}

static void expect(struct test *t, const char *when, const char *what, const char *name,
                   const char *want, const char *have)
{
    if (strcmp(want, have) != 0) {
        t->failures++;
        fprintf(stderr, "%s: after %s: %s %s is %s, expected %s\n", t->name, when, what, name, have,
                want);
    }
}

static void expect_all(struct test *t, const char *when, const json_t *expected)
{
    struct tx *tx = t->world.tx;
    const Pb__PipelineRecord *p = pipeline_get(tx, t->pipeline_id);
    const json_t *stages = json_object_get(expected, "stages");
    const json_t *jobs = json_object_get(expected, "jobs");

    expect(t, when, "pipeline", "", text(expected, "pipeline", ""), status_text(p->status));
    for (uint32_t i = 0; i < p->stage_count; i++) {
        const Pb__StageRecord *s = stage_get(tx, p->id, i);
        expect(t, when, "stage", s->name, text(stages, s->name, "absent"), status_text(s->status));
    }
    for (uint32_t i = 0; i < p->job_count; i++) {
        const Pb__JobRecord *job = job_get(tx, p->first_job_id + i);
        expect(t, when, "job", job->name, text(jobs, job->name, "absent"),
               job_state_text(job->state));
    }
    if (p->stage_count != json_object_size(stages) || p->job_count != json_object_size(jobs)) {
        expect(t, when, "set of", "stages and jobs", "as expected", "another");
    }
}

static void event(struct test *t, const char *name, const char *job)
{
    struct world *w = &t->world;
    const uint64_t id = world_job_id(w, t->pipeline_id, job);

    if (strcmp(name, "success") == 0) {
        world_run(w, id, t->worker_id, JOB_SUCCESS);
    } else if (strcmp(name, "drop") == 0) {
        world_run(w, id, t->worker_id, JOB_FAILED);
    } else if (strcmp(name, "play") == 0) {
        check(world_play(w, id) == 0);
    } else if (strcmp(name, "retry") == 0) {
        check(world_retry_job(w, id) == 0);
    } else if (strcmp(name, "cancel") == 0) {
        check(world_cancel_job(w, id) == 0);
    } else {
        expect(t, name, "event", "", "known", "unknown");
    }
}

static unsigned run_case(const json_t *c)
{
    struct test t = {.name = text(c, "name", "")};
    const json_t *transition, *job;
    size_t i, j;

    world_init(&t.world);
    t.worker_id = world_worker(&t.world, "w1", "", "shell", 10, true);
    check(world_submit(&t.world, plan_of(tx_arena(t.world.tx), json_object_get(c, "config")),
                       "main", "1") == 0);
    t.pipeline_id = t.world.reply.pipeline_id;
    expect_all(&t, "init", json_object_get(json_object_get(c, "init"), "expect"));
    json_array_foreach(json_object_get(c, "transitions"), i, transition)
    {
        const char *name = text(transition, "event", "");
        json_array_foreach(json_object_get(transition, "jobs"), j, job)
        {
            event(&t, name, json_string_value(job));
        }
        expect_all(&t, name, json_object_get(transition, "expect"));
    }
    world_release(&t.world);
    return t.failures;
}

bool processing_run(struct corpus *k)
{
    json_t *cases = corpora_json(k->root, "pipeline-processing/cases.json");
    const json_t *c;
    size_t i;

    if (cases == NULL) {
        return false;
    }
    corpus_begin(k, "pipeline-processing");
    json_array_foreach(cases, i, c)
    {
        const bool passed = run_case(c) == 0 && processing_compiles(c);
        corpus_case(k, text(c, "name", NULL), passed ? CASE_PASSED : CASE_DIFFERS);
    }
    json_decref(cases);
    return true;
}
