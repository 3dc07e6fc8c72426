/* Rollouts as JSON. */
#include "common/base.h"

#include "broker/api/view.h"
#include "broker/rollout/decide.h"

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

json_t *view_rollout(const struct rollout_view *v, uint64_t now_ms, struct arena *a)
{
    const Pb__RolloutRecord *r = v->record;
    const bool ended = (rollout_state_flags(r->state) & ROLLOUT_ENDED) != 0;
    json_t *o = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o}", "id", json_id(r->id),
        "project", json_text(v->project), "environment", json_text(v->environment), "target",
        json_text(v->service ? v->service->target : NULL), "service_id", json_id(r->service_id),
        "job_id", json_id(r->job_id), "pipeline_id", json_id(r->pipeline_id), "version",
        json_text(r->version), "state", rollout_state_text(r->state), "state_since",
        json_time(r->state_ms), "created_by", json_text(r->created_by), "created_at",
        json_time(r->created_ms));
    json_object_set_new(o, "snapshot_id", json_id(r->snapshot_id));
    json_object_set_new(o, "from_snapshot_id", json_id(r->from_snapshot_id));
    json_object_set_new(o, "ended_at", json_time(r->ended_ms));
    json_object_set_new(o, "step", number(r->step));
    json_object_set_new(o, "step_count", number(v->plan->n_steps));
    json_object_set_new(o, "weight_bp", number(r->weight_bp));
    json_object_set_new(o, "observed_bp", number(r->observed_bp));
    json_object_set_new(o, "ready", number(r->ready));
    json_object_set_new(o, "ready_old", number(r->ready_old));
    json_object_set_new(o, "paused", json_boolean(r->paused));
    json_object_set_new(o, "held", json_boolean(r->held));
    json_object_set_new(o, "undo", json_boolean(r->undo));
    json_object_set_new(o, "group", json_text(r->group));
    json_object_set_new(o, "why", json_text(rollout_why_text(r->why)));
    json_object_set_new(o, "why_text", json_text(r->why_text));
    json_object_set_new(o, "by", json_text(r->by));
    json_object_set_new(o, "waits_for",
                        ended ? json_null() : json_text(rollout_waits_for(v, now_ms, a)));
    return o;
}

json_t *view_rollout_note(const Pb__RolloutNoteRecord *n)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "seq", number(n->seq), "at", json_time(n->time_ms),
                     "kind", json_text(n->kind), "text", json_text(n->text));
}

json_t *view_rollout_metric(const struct metric_rule *rule, const Pb__RolloutMetricRecord *m,
                            struct arena *a)
{
    return json_pack("{s:o, s:s, s:s, s:o, s:o}", "index", number(m->index), "rule",
                     metric_rule_text(rule, a), "verdict", verdict_text(m->verdict), "at",
                     json_time(m->verdict_ms), "text", json_text(m->text));
}

/* "done", "now", "next" */
static const char *step_state(const Pb__RolloutRecord *r, size_t i)
{
    const bool over = r->state == ROLLOUT_PROMOTE || r->state == ROLLOUT_BAKE ||
                      r->state == ROLLOUT_RETIRE || r->state == ROLLOUT_DONE;
    return over || i < r->step                            ? "done"
           : i == r->step && r->state == ROLLOUT_STEPPING ? "now"
                                                          : "next";
}

static json_t *steps(const struct rollout_view *v)
{
    json_t *list = json_array();
    for (size_t i = 0; i < v->plan->n_steps; i++) {
        const Pb__RolloutStepRecord *s = v->plan->steps[i];
        json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:o, s:o}", "name",
                                              json_text(s->name), "state", step_state(v->record, i),
                                              "for_ms", number(s->for_ms), "roles",
                                              view_text_list(s->roles, s->n_roles), "approvals",
                                              number(s->approvals)));
    }
    return list;
}

static json_t *metrics(const struct rollout_view *v, struct arena *a)
{
    json_t *list = json_array();
    struct metric_rule *rules;
    size_t count;
    const char *why;
    if (metric_rules(v->plan->spec, v->plan->target, a, &rules, &count, &why) < 0) {
        return list;
    }
    for (size_t i = 0; i < v->metric_count; i++) {
        if (v->metrics[i]->index < count) {
            json_array_append_new(
                list, view_rollout_metric(&rules[v->metrics[i]->index], v->metrics[i], a));
        }
    }
    return list;
}

static json_t *actions(const struct rollout_view *v)
{
    static const char *const kinds[] = {"ensure", "status", "remove",    "route", "read",
                                        "sample", "run",    "synthetic", "notify"};
    static const char *const states[] = {"running", "good", "bad"};
    json_t *list = json_array();
    for (size_t i = 0; i < v->action_count; i++) {
        const Pb__RolloutActionRecord *x = v->actions[i];
        const char *kind = (size_t)x->kind < ARRAY_LEN(kinds) ? kinds[x->kind] : "";
        const char *state = (size_t)x->state < ARRAY_LEN(states) ? states[x->state] : "";
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "kind", kind, "state", state,
                            "driver", json_text(x->driver), "job_id", json_id(x->job_id),
                            "begun_at", json_time(x->begun_ms), "error", json_text(x->error)));
    }
    return list;
}

static json_t *approvals(const Pb__RolloutRecord *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_approvals; i++) {
        const Pb__RolloutApproval *p = r->approvals[i];
        json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "by", json_text(p->by), "role",
                                              json_text(p->role), "at", json_time(p->at_ms)));
    }
    return list;
}

json_t *view_rollout_whole(const struct rollout_view *v, uint64_t now_ms, struct arena *a)
{
    json_t *o = view_rollout(v, now_ms, a);
    json_object_set_new(o, "steps", steps(v));
    json_object_set_new(o, "metrics", metrics(v, a));
    json_object_set_new(o, "actions", actions(v));
    json_object_set_new(o, "approvals", approvals(v->record));
    return o;
}
