#include "common/base.h"

#include "tests/scene/scene.h"

#include <stdarg.h>

void trace(struct stage *s, const char *fmt, ...)
{
    va_list ap;

    buf_addf(s->out, "[%6" PRIu64 "] ", s->world.now_ms - s->begin_ms);
    va_start(ap, fmt);
    buf_vaddf(s->out, fmt, ap);
    va_end(ap);
    buf_add_char(s->out, '\n');
}

size_t trace_pipeline(const struct stage *s, uint64_t pipeline_id)
{
    for (size_t i = 0; i < s->pipeline_count; i++) {
        if (s->pipelines[i] == pipeline_id) {
            return i + 1;
        }
    }
    return 0;
}

static const char *trace_pipeline_job(struct stage *s, uint64_t job_id)
{
    const Pb__JobRecord *job = job_get(s->world.tx, job_id);
    const size_t pipeline = job != NULL ? trace_pipeline(s, job->pipeline_id) : 0;

    if (job == NULL) {
        return "a job that is gone";
    }
    return pipeline == 1 ? job->name
                         : arena_printf(tx_arena(s->world.tx), "%zu/%s", pipeline, job->name);
}

/* Jobs of the first pipeline go by their name, of the second by "2/name", those without a pipeline
 * by "queue/name". */
const char *trace_job(struct stage *s, uint64_t job_id)
{
    for (size_t i = 0; i < s->lone_count; i++) {
        if (s->lone[i].id == job_id) {
            return s->lone[i].name;
        }
    }
    return trace_pipeline_job(s, job_id);
}
const char *trace_worker(struct stage *s, uint64_t worker_id)
{
    const Pb__WorkerRecord *w = worker_get(s->world.tx, worker_id);

    return w != NULL ? w->name : "nobody";
}

static void trace_event(struct stage *s, const Pb__EventRecord *e)
{
    /* Ids as such say nothing in a trace. */
    const char *detail = strcmp(e->kind, "child") != 0 ? e->detail : "";
    const char *who = e->name;

    if (e->job_id != 0) {
        who = trace_job(s, e->job_id);
    } else if (strcmp(e->kind, "job") != 0 && e->pipeline_id != 0) {
        who = arena_printf(tx_arena(s->world.tx), "%zu%s%s", trace_pipeline(s, e->pipeline_id),
                           e->name[0] != '\0' ? " " : "", e->name);
    }
    trace(s, "%s %s: %s%s%s%s%s%s", e->kind, who, e->from, e->from[0] != '\0' ? " -> " : "", e->to,
          detail[0] != '\0' ? " (" : "", detail, detail[0] != '\0' ? ")" : "");
}

static void trace_effect(struct stage *s, const struct effect *e)
{
    static const char *const kinds[] = {"gently", "by force", "fenced"};
    const char *worker = trace_worker(s, e->worker_id);
    const char *job = e->job_id != 0 ? trace_job(s, e->job_id) : "";

    switch (e->kind) {
    case EFFECT_ASSIGN:
        trace(s, "tell %s: assign %s attempt %" PRIu64 " epoch %" PRIu64, worker, job, e->attempt,
              e->epoch);
        break;
    case EFFECT_CANCEL:
        trace(s, "tell %s: cancel %s epoch %" PRIu64 " %s", worker, job, e->epoch,
              kinds[e->cancel_kind]);
        break;
    case EFFECT_FINISHED:
        trace(s, "tell %s: the end of %s epoch %" PRIu64 " is recorded", worker, job, e->epoch);
        break;
    case EFFECT_WORKER:
        trace(s, "tell %s: its record changed", worker);
        break;
    case EFFECT_TERMINAL:
        trace(s, "close log of %s attempt %" PRIu64, job, e->attempt);
        break;
    case EFFECT_SETTINGS: /* nobody hears of it but the scheduler */
        break;
    case EFFECT_TRIGGER:
        trace(s, "make the child pipeline of %s epoch %" PRIu64, job, e->epoch);
        break;
    case EFFECT_ENDED:
        trace(s, "tell who waits: %s has ended: %s, %s, exit code %d", job,
              job_state_text(e->state), reason_text(e->reason), e->exit_code);
        break;
    }
}

void trace_result(struct stage *s, int r)
{
    const Pb__EventRecord *events[256];
    size_t n;

    if (r < 0) {
        trace(s, "refused: %s (%s)", s->world.reply.text, err_code(r));
        return;
    }
    do {
        n = events_after(s->world.tx, 0, s->seen_event, ARRAY_LEN(events), events);
        for (size_t i = 0; i < n; i++) {
            trace_event(s, events[i]);
            s->seen_event = events[i]->seq;
        }
    } while (n == ARRAY_LEN(events));
    for (size_t i = 0; i < s->world.fx.count; i++) {
        trace_effect(s, &s->world.fx.items[i]);
    }
}

static void show_pipeline(struct stage *s, const Pb__PipelineRecord *p)
{
    buf_addf(s->out, "pipeline %zu %s\n", trace_pipeline(s, p->id), status_text(p->status));
    for (uint32_t i = 0; i < p->stage_count; i++) {
        const Pb__StageRecord *stage = stage_get(s->world.tx, p->id, i);
        buf_addf(s->out, "  %s %s:", stage->name, status_text(stage->status));
        for (uint32_t j = 0; j < stage->job_count; j++) {
            const Pb__JobRecord *job = job_get(s->world.tx, p->first_job_id + stage->first_job + j);
            buf_addf(s->out, " %s %s%s", job->name, job_state_text(job->state),
                     j + 1 < stage->job_count ? "," : "\n");
        }
    }
}

void trace_show(struct stage *s)
{
    for (size_t i = 0; i < s->pipeline_count; i++) {
        const Pb__PipelineRecord *p = pipeline_get(s->world.tx, s->pipelines[i]);
        if (p != NULL) {
            show_pipeline(s, p);
        } else {
            buf_addf(s->out, "pipeline %zu is gone\n", i + 1);
        }
    }
}

static void show_environments(struct stage *s, uint64_t project_id)
{
    const Pb__EnvironmentRecord *list[32];
    const Pb__DeploymentRecord *deployments[32];
    const size_t n = environments_after(s->world.tx, project_id, NULL, ARRAY_LEN(list), list);

    for (size_t i = 0; i < n; i++) {
        const Pb__EnvironmentRecord *e = list[i];
        const size_t made = deployments_before(s->world.tx, e->id, 0, ARRAY_LEN(deployments),
                                               deployments);
        buf_addf(s->out, "environment %s (%s, %s) %s", e->name, e->slug, e->tier,
                 environment_state_text(e->state));
        if (e->url.len > 0) {
            buf_addf(s->out, " at " STR_FMT, STR_ARG(pb_str(e->url)));
        }
        if (e->on_stop_job_id != 0) {
            buf_addf(s->out, ", stopped by %s", trace_job(s, e->on_stop_job_id));
        }
        if (e->auto_stop_ms != 0) {
            buf_addf(s->out, ", stops at %" PRIu64, e->auto_stop_ms - s->begin_ms);
        }
        buf_add_char(s->out, '\n');
        for (size_t j = 0; j < made; j++) {
            buf_addf(s->out, "  deployment of %s %s%s\n", trace_job(s, deployments[j]->job_id),
                     job_state_text(deployments[j]->status),
                     deployments[j]->id == e->deployment_id ? ", the newest good one" : "");
        }
    }
}

static void show_published(struct stage *s, uint64_t project_id)
{
    const Pb__ReleaseRecord *list[32];
    const size_t n = releases_before(s->world.tx, project_id, 0, ARRAY_LEN(list), list);
    const struct key prefix = key_u64(project_id);
    struct cursor cur;

    for (size_t i = 0; i < n; i++) {
        buf_addf(s->out, "release " STR_FMT " of %s\n", STR_ARG(pb_str(list[i]->release->tag_name)),
                 trace_job(s, list[i]->job_id));
    }
    for (tx_seek(&cur, s->world.tx, T_PAGES, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        const struct key k = key_bytes(cur.key.p, cur.key.n);
        const Pb__PagesRecord *p = (const Pb__PagesRecord *)tx_get_msg(
            s->world.tx, T_PAGES, &k, &pb__pages_record__descriptor);
        buf_addf(s->out, "pages at '" STR_FMT "' of %s, %" PRIu64 " bytes\n",
                 STR_ARG(pb_str(p->path_prefix)), trace_job(s, p->job_id), p->size);
    }
    for (tx_seek(&cur, s->world.tx, T_CACHE, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        const struct key k = key_bytes(cur.key.p, cur.key.n);
        const Pb__CacheRecord *c = (const Pb__CacheRecord *)tx_get_msg(
            s->world.tx, T_CACHE, &k, &pb__cache_record__descriptor);
        buf_addf(s->out, "cache " STR_FMT " of %s, %" PRIu64 " bytes\n", STR_ARG(pb_str(c->key)),
                 trace_job(s, c->job_id), c->size);
    }
}

void trace_rows(struct stage *s)
{
    const Pb__ProjectRecord *p = project_by_name(s->world.tx, "demo");

    if (p != NULL) {
        show_environments(s, p->id);
        show_published(s, p->id);
        buf_addf(s->out, "blobs in use: %" PRIu64 "\n", tx_count(s->world.tx, T_BLOB_REF));
    }
}

void trace_spec(struct stage *s, uint64_t job_id)
{
    Pb__JobSpec *spec;
    const int r = core_job_spec(s->world.tx, job_id, "secret", &spec);

    if (r < 0) {
        trace(s, "no spec (%s)", err_code(r));
        return;
    }
    trace(s, "spec of %s in stage %s of %s", spec->name, spec->stage, spec->project);
    for (size_t i = 0; i < spec->n_variables; i++) {
        const Pb__Variable *v = spec->variables[i];
        buf_addf(s->out, "  %s=" STR_FMT "\n", v->name, STR_ARG(pb_str(v->value)));
    }
    for (size_t i = 0; i < spec->n_artifacts_in; i++) {
        const Pb__ArtifactIn *in = spec->artifacts_in[i];
        buf_addf(s->out, "  fetches what %s kept: ", in->job_name);
        if (in->digest.len == 0) {
            buf_addz(s->out, "it is not there\n");
        } else {
            buf_addf(s->out, "%" PRIu64 " bytes\n", in->size);
        }
    }
}

void trace_why(struct stage *s, uint64_t job_id)
{
    struct sched_why why[ACTORS_MAX];
    struct sched_outlook o;
    const size_t n = sched_why(s->world.tx, job_get(s->world.tx, job_id), actor_online, s, why,
                               ARRAY_LEN(why), &o);

    trace(s, "%s: place %" PRIu64 "%s", trace_job(s, job_id), o.position,
          o.never ? ", no worker could ever take it" : "");
    for (size_t i = 0; i < n; i++) {
        buf_addf(s->out, "  %s: %s\n", why[i].worker, why[i].reason);
    }
    for (size_t i = 0; i < MIN(o.pool_count, SCHED_WHY_POOLS); i++) {
        buf_addf(s->out, "  pool %s has no worker\n", o.pools[i]);
    }
}
