#include "common/base.h"

#include <stdlib.h>

#include "broker/turn.h"
#include "tests/sim/sim.h"

/* Who makes child pipelines: in the broker a thread that compiles them, here somebody who takes his
 * time, and finds one in some of them that cannot be made. */

#define AGAIN_US (2 * SIM_SECOND)

struct wish {
    uint64_t job_id, epoch;
};

static void post_failed(uint64_t job_id, uint64_t epoch);

static void again(const struct wish *w)
{
    event_add_us(sim->now_us + AGAIN_US, EV_TRIGGER, (uint32_t)w->epoch, w->job_id);
}

static void answered(void *ctx, int r, const struct reply *reply)
{
    struct wish *w = ctx;

    if (r == -E_FULL || r == -E_NO_SPACE) {
        again(w);
    } else if (r == -E_INVALID || r == -E_LIMIT) {
        post_failed(w->job_id, w->epoch);
    } else if (r == 0 && !sim->dead) {
        broker_acknowledge("the answer to a child pipeline");
    }
    free(w);
}

static void submit(struct post *p, uint64_t job_id, uint64_t epoch)
{
    struct wish *w = xcalloc(1, sizeof(*w));

    *w = (struct wish){job_id, epoch};
    turn_submit(sim->turn, p, answered, w);
    broker_wish(sim->now_us + below(300));
}

void trigger_wish(void *ctx, uint64_t job_id, uint64_t epoch)
{
    event_add_us(sim->now_us + between(100, one_in(4) ? 3 * SIM_SECOND : 20 * SIM_MS), EV_TRIGGER,
                 (uint32_t)epoch, job_id);
}

static void post_failed(uint64_t job_id, uint64_t epoch)
{
    struct post *p = post_new("trigger");
    Pb__TriggerFailed *c = arena_alloc(post_arena(p), sizeof(*c));

    pb__trigger_failed__init(c);
    c->job_id = job_id;
    c->epoch = epoch;
    c->detail = (char *)"no such file";
    post_command(p)->body_case = PB__COMMAND__BODY_TRIGGER_FAILED;
    post_command(p)->trigger_failed = c;
    submit(p, job_id, epoch);
}

void trigger_make(uint64_t job_id, uint64_t epoch)
{
    const struct model_job *j = model_job(sim->model, job_id, NULL);

    if (!sim->up) {
        return; /* it will be asked for anew */
    }
    if (j == NULL || one_in(8)) {
        post_failed(job_id, epoch);
        return;
    }
    struct post *p = post_new("trigger");
    struct arena *a = post_arena(p);
    Pb__PipelineCreate *c = arena_alloc(a, sizeof(*c));
    pb__pipeline_create__init(c);
    c->plan = user_plan(a, rnd(), 3);
    c->project = arena_printf(a, "p%u", one_in(30) ? 1 + j->project % MODEL_PROJECTS : j->project);
    c->ref = arena_strdup(a, STR("main"));
    c->parent_job_id = job_id;
    c->parent_epoch = epoch;
    post_command(p)->body_case = PB__COMMAND__BODY_PIPELINE_CREATE;
    post_command(p)->pipeline_create = c;
    submit(p, job_id, epoch);
}
