#include "common/base.h"

#include "tests/scene/scene.h"

#include "common/limits.h"
#include "proto/rollout.h"

/* Rollouts of a scene: a rig (tests/kit/rig.h) is their fleet, and what they noted is the trace. */

/* What it waits for, and numbers and ids in texts, are not what a scene is about. */
static bool is_told(const Pb__RolloutNoteRecord *n)
{
    return strcmp(n->kind, "verdict") != 0 && strstr(n->text, "waits: ") == NULL &&
           strstr(n->text, "rollout ") == NULL;
}

static void trace_notes(struct stage *s, size_t index, uint64_t rollout_id)
{
    const Pb__RolloutNoteRecord *notes[LIMIT_ROLLOUT_NOTES];
    const size_t n = rollout_notes_before(s->world.tx, rollout_id, 0, ARRAY_LEN(notes), notes);

    for (size_t i = n; i-- > 0;) {
        if (notes[i]->seq > s->notes_seen[index]) {
            s->notes_seen[index] = notes[i]->seq;
            if (!is_told(notes[i])) {
                continue;
            }
            buf_addf(s->out, "[%6" PRIu64 "] rollout %zu %s: %s\n", notes[i]->time_ms - s->begin_ms,
                     index + 1, notes[i]->kind, notes[i]->text);
        }
    }
}

static size_t all_rollouts(struct stage *s, const Pb__RolloutRecord **ret)
{
    return rollouts_before(s->world.tx, 0, 0, ROLLOUTS_MAX, ret);
}

/* Without the ids that come first. */
static void trace_refused(struct stage *s)
{
    const char *why = strrchr(s->world.reply.text, ':');

    trace(s, "refused%s", why != NULL ? why : "");
}

static void trace_all_notes(struct stage *s)
{
    const Pb__RolloutRecord *all[ROLLOUTS_MAX];
    const size_t n = all_rollouts(s, all);

    for (size_t i = 0; i < n; i++) { /* the newest comes first */
        trace_notes(s, i, all[n - 1 - i]->id);
    }
}

static void show(struct stage *s)
{
    const Pb__RolloutRecord *all[ROLLOUTS_MAX];
    const size_t n = all_rollouts(s, all);

    for (size_t i = 0; i < n; i++) {
        const Pb__RolloutRecord *r = all[n - 1 - i];
        const Pb__JobRecord *job = r->job_id != 0 ? job_get(s->world.tx, r->job_id) : NULL;
        trace(s, "rollout %zu of %s is %s%s%s; its job %s", i + 1, r->version,
              rollout_state_text(r->state), r->why != ROLLOUT_WHY_NONE ? ", because of " : "",
              rollout_why_text(r->why), job != NULL ? job_state_text(job->state) : "is none");
    }
    trace(s, "slot a has %u instances, slot b %u; %u.%02u %% of the traffic goes to b",
          s->rig.slots[0].instances[0], s->rig.slots[1].instances[0], s->rig.weight_b_bp / 100,
          s->rig.weight_b_bp % 100);
}

static int behave(struct stage *s, struct str how)
{
    s->rig.never_ready = str_eqz(how, "instances");
    s->rig.deaf = str_eqz(how, "router");
    s->rig.silent = str_eqz(how, "fleet");
    return s->rig.never_ready || s->rig.deaf || s->rig.silent || str_eqz(how, "nothing") ? 0
                                                                                         : -E_USAGE;
}

/* What a person does to the newest one. */
static int act(struct stage *s, struct str verb)
{
    const Pb__RolloutRecord *newest;
    unsigned v = 0;

    while (v <= ROLLOUT_VERB_OVERRIDE && !str_eqz(verb, rollout_verb_text((Pb__RolloutVerb)v))) {
        v++;
    }
    if (v > ROLLOUT_VERB_OVERRIDE || rollouts_before(s->world.tx, 0, 0, 1, &newest) != 1) {
        return -E_USAGE;
    }
    if (rig_act_on(&s->rig, newest->id, (Pb__RolloutVerb)v, "") < 0) {
        trace_refused(s);
    }
    return 0;
}

static int undo(struct stage *s)
{
    const Pb__RolloutRecord *newest;
    const Pb__ServiceRecord *service;
    Pb__RolloutBegin body = PB__ROLLOUT_BEGIN__INIT;

    if (rollouts_before(s->world.tx, 0, 0, 1, &newest) != 1) {
        return -E_USAGE;
    }
    service = service_get(s->world.tx, newest->service_id);
    body.service_id = service->id;
    if (WORLD_APPLY(&s->world, "ann", ROLLOUT_BEGIN, &body) < 0) {
        trace_refused(s);
    }
    return 0;
}

static int play(struct stage *s, const struct str *words, size_t count)
{
    uint64_t ms;

    if (str_eqz(words[1], "of") && count == 3) {
        rig_submit(&s->rig, arena_strdup(tx_arena(s->world.tx), words[2]));
    } else if (str_eqz(words[1], "breaks") && count == 3) {
        return behave(s, words[2]);
    } else if (str_eqz(words[1], "runs") && count == 3 && str_to_duration_ms(words[2], &ms) == 0) {
        rig_run(&s->rig, ms);
    } else if (str_eqz(words[1], "restart")) {
        rig_restart(&s->rig);
    } else if (str_eqz(words[1], "show")) {
        show(s);
    } else if (str_eqz(words[1], "undo")) {
        return undo(s);
    } else {
        return act(s, words[1]);
    }
    return 0;
}

int rollout_play(struct stage *s, const struct str *words, size_t count)
{
    int r;

    if (count < 2) {
        return -E_USAGE;
    }
    if (s->rig.w == NULL) {
        rig_init(&s->rig, &s->world);
    }
    r = play(s, words, count);
    rig_settle(&s->rig);
    trace_all_notes(s);
    check(!s->rig.broken);
    return r;
}
