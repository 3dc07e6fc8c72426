/* A part of a pipeline: jobs that were asked for by name, and what they need.
 *
 * A job needs what `needs` names; one without needs what can give it something: its `dependencies`,
 * else every job of an earlier stage that leaves artifacts. A job that deploys keeps the one that
 * stops its environment, which goes on waiting for somebody to start it. */
#include "common/base.h"

#include "pipeline/compile.h"

struct part {
    struct compile *c;
    Pb__Plan *plan;
    bool *kept;
    uint32_t *open; /* kept; what they need is to be kept too */
    size_t open_count;
    size_t givers; /* of the jobs before this one, those that leave artifacts are kept */
};

static void keep(struct part *p, uint32_t index)
{
    if (!p->kept[index]) {
        p->kept[index] = true;
        p->open[p->open_count++] = index;
    }
}

static void keep_needs(struct part *p, const Pb__PlanJob *job)
{
    for (size_t i = 0; i < job->n_needs; i++) {
        keep(p, job->needs[i]->job);
    }
    for (size_t i = 0; i < job->n_dependencies; i++) {
        keep(p, job->dependencies[i]);
    }
    if (!job->dag && !job->has_dependencies) {
        for (; p->plan->jobs[p->givers]->stage < job->stage; p->givers++) {
            if (p->plan->jobs[p->givers]->artifacts) {
                keep(p, (uint32_t)p->givers);
            }
        }
    }
    if (job->environment && job->environment->has_on_stop) {
        keep(p, job->environment->on_stop);
    }
}

/* Somebody asked for it: nothing else has to start it, or to fail before. */
static void start_by_itself(Pb__PlanJob *job)
{
    if (job->when != WHEN_ALWAYS) {
        job->when = WHEN_ON_SUCCESS;
        job->start_in_ms = 0;
    }
}

static void report_absent(struct part *p, struct str name)
{
    struct compile *c = p->c;
    const char **names = arena_array(c->arena, c->job_count + 1, sizeof(*names));
    for (size_t i = 0; i < c->job_count; i++) {
        names[i] = c->jobs[i].plan.base_name;
        if (str_eqz(name, names[i]) || str_eq(name, c->jobs[i].name)) {
            report(
                c, c->jobs[i].at, "job-absent", "`davit explain JOB` says which rule leaves it out",
                "the job `" STR_FMT "` was asked for, but is not in this pipeline", STR_ARG(name));
            return;
        }
    }
    report(c, NULL, "unknown-job", suggest(c, name, names, c->job_count),
           "there is no job `" STR_FMT "`", STR_ARG(name));
}

static void keep_named(struct part *p, struct str name)
{
    bool found = false;
    if (!compile_charge(p->c, p->plan->n_jobs, NULL)) {
        return;
    }
    for (uint32_t i = 0; i < p->plan->n_jobs; i++) {
        Pb__PlanJob *job = p->plan->jobs[i];
        if (str_eqz(name, job->name) || str_eqz(name, job->base_name)) {
            found = true;
            keep(p, i);
            start_by_itself(job);
        }
    }
    if (!found) {
        report_absent(p, name);
    }
}

/* Jobs and stages that stay move together; ret_places[i] is where job i is then. */
static void close_up(struct part *p, uint32_t *ret_places)
{
    Pb__Plan *plan = p->plan;
    size_t jobs = 0;
    size_t stages = 0;
    uint32_t last_stage = 0;
    for (size_t i = 0; i < plan->n_jobs; i++) {
        Pb__PlanJob *job = plan->jobs[i];
        if (!p->kept[i]) {
            continue;
        }
        if (stages == 0 || job->stage != last_stage) {
            last_stage = job->stage;
            plan->stages[stages++] = plan->stages[last_stage];
        }
        job->stage = (uint32_t)stages - 1;
        ret_places[i] = (uint32_t)jobs;
        plan->jobs[jobs++] = job;
    }
    plan->n_jobs = jobs;
    plan->n_stages = stages;
}

static void drop_others(struct part *p)
{
    Pb__Plan *plan = p->plan;
    uint32_t *places = arena_array(p->c->arena, plan->n_jobs + 1, sizeof(*places));
    close_up(p, places);
    for (size_t i = 0; i < plan->n_jobs; i++) {
        Pb__PlanJob *job = plan->jobs[i];
        for (size_t k = 0; k < job->n_needs; k++) {
            job->needs[k]->job = places[job->needs[k]->job];
        }
        for (size_t k = 0; k < job->n_dependencies; k++) {
            job->dependencies[k] = places[job->dependencies[k]];
        }
        if (job->environment && job->environment->has_on_stop) {
            job->environment->on_stop = places[job->environment->on_stop];
        }
    }
}

void plan_only(struct compile *c, Pb__Plan *plan)
{
    struct part p = {.c = c, .plan = plan};
    p.kept = arena_array(c->arena, plan->n_jobs + 1, sizeof(*p.kept));
    p.open = arena_array(c->arena, plan->n_jobs + 1, sizeof(*p.open));
    for (size_t i = 0; i < c->in->only_count; i++) {
        keep_named(&p, c->in->only[i]);
    }
    for (size_t i = 0; i < p.open_count; i++) {
        keep_needs(&p, plan->jobs[p.open[i]]);
    }
    if (!compile_failed(c)) {
        drop_others(&p);
    }
}
