#include "common/base.h"

#include "broker/core/apply.h"
#include "broker/core/rollout.h"
#include "common/crypto.h"
#include "common/limits.h"

#include <stdlib.h>

/* A plan is foreign input, even when our own compiler made it: the core runs only what it has
 * checked itself. */

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool unique(struct core *c, const char **names, size_t n)
{
    const char **sorted = arena_array(c->arena, n + 1, sizeof(*sorted));

    memcpy(sorted, names, n * sizeof(*names));
    qsort(sorted, n, sizeof(*sorted), compare);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(sorted[i - 1], sorted[i]) == 0) {
            return false;
        }
    }
    return true;
}

static int check_names(struct core *c, const Pb__Plan *plan)
{
    const char **names = arena_array(c->arena, plan->n_jobs + 1, sizeof(*names));

    for (size_t i = 0; i < plan->n_stages; i++) {
        if (!name_ok(plan->stages[i])) {
            return reject(c, -E_INVALID, "bad name of stage %zu", i);
        }
    }
    for (size_t i = 0; i < plan->n_jobs; i++) {
        names[i] = plan->jobs[i]->name;
        if (!name_ok(names[i])) {
            return reject(c, -E_INVALID, "bad name of job %zu", i);
        }
    }
    if (!unique(c, (const char **)plan->stages, plan->n_stages)) {
        return reject(c, -E_INVALID, "two stages of one name");
    }
    if (!unique(c, names, plan->n_jobs)) {
        return reject(c, -E_INVALID, "two jobs of one name");
    }
    return 0;
}

/* Jobs stand by stage, and every stage holds one. */
static int check_stages(struct core *c, const Pb__Plan *plan)
{
    uint32_t expected = 0;

    for (size_t i = 0; i < plan->n_jobs; i++) {
        const uint32_t stage = plan->jobs[i]->stage;
        if (stage != expected && (stage != expected + 1 || i == 0)) {
            return reject(c, -E_INVALID, "jobs are not in the order of their stages");
        }
        expected = stage;
    }
    if (expected + 1 != plan->n_stages) {
        return reject(c, -E_INVALID, "a stage without jobs");
    }
    return 0;
}

static bool enums_ok(const Pb__PlanJob *job)
{
    return (unsigned)job->when <= WHEN_DELAYED &&
           (unsigned)job->on_worker_lost <= PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE_ALWAYS &&
           (job->artifacts == NULL ||
            (unsigned)job->artifacts->when <= PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS);
}

static bool tags_ok(const Pb__PlanJob *job)
{
    if (job->n_tags > LIMIT_TAGS) {
        return false;
    }
    for (size_t i = 0; i < job->n_tags; i++) {
        if (!name_ok(job->tags[i]) || (i > 0 && strcmp(job->tags[i - 1], job->tags[i]) >= 0)) {
            return false;
        }
    }
    return true;
}

static bool retry_ok(const Pb__PlanJob *job)
{
    if (job->retry_max > 2 || job->n_retry_when > LIMIT_TAGS) {
        return false;
    }
    for (size_t i = 0; i < job->n_retry_when; i++) {
        if (!name_ok(job->retry_when[i])) {
            return false;
        }
    }
    return true;
}

static bool names_ok(const Pb__PlanJob *job)
{
    return text_ok(job->resource_group, LIMIT_NAME) && text_ok(job->executor, LIMIT_NAME) &&
           text_ok(job->base_name, LIMIT_NAME) && text_ok(job->pool, LIMIT_NAME);
}

static bool trigger_ok(const Pb__PlanJob *job)
{
    const Pb__TriggerSpec *t = job->trigger;

    return t == NULL || (t->config.len > 0 && t->config.len <= LIMIT_TRIGGER_CONFIG &&
                         t->inputs.len <= LIMIT_VARIABLE_VALUE && job->n_script == 0 &&
                         (unsigned)t->strategy <= PB__TRIGGER_STRATEGY__TRIGGER_STRATEGY_MIRROR);
}

static bool wish_ok(const Pb__RolloutStepWish *w)
{
    for (size_t i = 0; i < w->n_approve; i++) {
        if (i >= LIMIT_TAGS || !name_ok(w->approve[i])) {
            return false;
        }
    }
    return w->weight_bp <= ROLLOUT_FULL_BP && w->mirror_bp <= ROLLOUT_FULL_BP &&
           w->scale <= LIMIT_ROLLOUT_INSTANCES && w->hold_ms <= LIMIT_TIMEOUT_MS &&
           w->analyze_ms <= LIMIT_TIMEOUT_MS && w->n_run <= LIMIT_ROLLOUT_SCRIPT &&
           w->approvals <= LIMIT_ROLLOUT_APPROVALS && text_ok(w->name, LIMIT_NAME);
}

bool rollout_spec_ok(const Pb__RolloutSpec *r)
{
    for (size_t i = 0; i < r->n_steps; i++) {
        if (i >= LIMIT_ROLLOUT_PLAN_STEPS || !wish_ok(r->steps[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < r->n_analysis; i++) {
        if (i >= LIMIT_ROLLOUT_METRICS || !name_ok(r->analysis[i]->metric) ||
            (unsigned)r->analysis[i]->rule > ROLLOUT_RULE_FAILURES) {
            return false;
        }
    }
    return name_ok(r->target) && text_ok(r->version, LIMIT_NAME) && text_ok(r->group, LIMIT_NAME) &&
           r->image.len <= LIMIT_VARIABLE_VALUE && r->command.len <= LIMIT_VARIABLE_VALUE &&
           r->bake_ms <= LIMIT_TIMEOUT_MS && r->progress_ms <= LIMIT_TIMEOUT_MS &&
           r->tick_ms <= LIMIT_TIMEOUT_MS && r->instances <= LIMIT_ROLLOUT_INSTANCES &&
           (unsigned)r->strategy <= ROLLOUT_ROLLING &&
           (unsigned)r->on_failure <= ON_ROLLOUT_FAILURE_HOLD &&
           (unsigned)r->on_thin <= ROLLOUT_POLICY_SYNTHETIC &&
           (unsigned)r->on_no_data <= ROLLOUT_POLICY_SYNTHETIC &&
           (unsigned)r->on_error <= ROLLOUT_POLICY_SYNTHETIC;
}

/* What it rolls out stands in the environment that it deploys to. */
static bool rollout_ok(const Pb__PlanJob *job)
{
    return job->rollout == NULL ||
           (rollout_spec_ok(job->rollout) && job->environment != NULL &&
            job->environment->action == ENVIRONMENT_START && job->n_script == 0 &&
            job->trigger == NULL && job->action == NULL);
}

/* What stops an environment must say so itself, or it would start it again. */
static bool on_stop_ok(const Pb__Plan *plan, const Pb__EnvironmentSpec *e)
{
    const Pb__EnvironmentSpec *by = e->on_stop < plan->n_jobs ? plan->jobs[e->on_stop]->environment
                                                              : NULL;

    return by != NULL && by->action == ENVIRONMENT_STOP && strcmp(by->name, e->name) == 0;
}

static bool environment_ok(const Pb__Plan *plan, const Pb__PlanJob *job)
{
    const Pb__EnvironmentSpec *e = job->environment;

    return e == NULL || (environment_name_ok(e->name) && e->url.len <= LIMIT_URL &&
                         (unsigned)e->action <= PB__ENVIRONMENT_ACTION__ENVIRONMENT_ACTION_ACCESS &&
                         e->auto_stop_in_ms <= LIMIT_EXPIRE_MS &&
                         (e->tier[0] == '\0' || environment_tier_ok(e->tier)) &&
                         (!e->has_on_stop || on_stop_ok(plan, e)));
}

static bool caches_ok(const Pb__PlanJob *job)
{
    for (size_t i = 0; i < job->n_caches; i++) {
        const Pb__CacheSpec *cache = job->caches[i];
        if (cache->key.len > LIMIT_CACHE_KEY || cache->key_prefix.len > LIMIT_CACHE_KEY ||
            cache->n_key_files > LIMIT_CACHE_KEY_FILES ||
            cache->n_fallback_keys > LIMIT_CACHE_FALLBACK_KEYS ||
            (unsigned)cache->when > PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS) {
            return false;
        }
    }
    return job->n_caches <= LIMIT_CACHES;
}

static bool image_ok(const Pb__Image *image)
{
    return text_ok(image->name, KIB) && text_ok(image->user, LIMIT_NAME) &&
           text_ok(image->platform, LIMIT_NAME) &&
           image->n_entrypoint <= LIMIT_CONTAINER_ARGUMENTS &&
           image->n_pull_policy <= LIMIT_CONTAINER_ARGUMENTS;
}

static bool containers_ok(const Pb__PlanJob *job)
{
    for (size_t i = 0; i < job->n_services; i++) {
        const Pb__Service *service = job->services[i];
        if (service->image == NULL || service->image->name[0] == '\0' ||
            !image_ok(service->image) || service->n_command > LIMIT_CONTAINER_ARGUMENTS ||
            service->n_variables > LIMIT_VARIABLES) {
            return false;
        }
    }
    return job->n_services <= LIMIT_SERVICES && (job->image == NULL || image_ok(job->image));
}

static bool published_ok(const Pb__PlanJob *job)
{
    const Pb__ArtifactSpec *a = job->artifacts;

    for (size_t i = 0; a != NULL && i < a->n_reports; i++) {
        if (!name_ok(a->reports[i]->type) || !text_ok(a->reports[i]->format, LIMIT_NAME)) {
            return false;
        }
    }
    return (a == NULL || (a->n_reports <= LIMIT_REPORTS && text_ok(a->access, LIMIT_NAME))) &&
           (job->release == NULL ||
            pb__release_spec__get_packed_size(job->release) <= LIMIT_RELEASE_BYTES) &&
           (job->pages == NULL ||
            (job->pages->publish.len > 0 && job->pages->publish.len <= LIMIT_NAME &&
             job->pages->path_prefix.len <= LIMIT_NAME &&
             job->pages->expire_in_ms <= LIMIT_EXPIRE_MS));
}

static bool tokens_ok(const Pb__PlanJob *job)
{
    for (size_t i = 0; i < job->n_id_tokens; i++) {
        const Pb__IdTokenSpec *token = job->id_tokens[i];
        if (!name_ok(token->name) || strchr(token->name, '=') != NULL || token->n_audiences == 0 ||
            token->n_audiences > LIMIT_ID_TOKEN_AUDIENCES) {
            return false;
        }
    }
    return job->n_id_tokens <= LIMIT_ID_TOKENS;
}

static bool lists_ok(const Pb__PlanJob *job)
{
    if (job->n_outer_needs > LIMIT_OUTER_NEEDS || !tokens_ok(job) ||
        job->n_unsupported > LIMIT_TAGS || strlen(job->manual_confirmation) > LIMIT_CONFIRMATION) {
        return false;
    }
    for (size_t i = 0; i < job->n_unsupported; i++) {
        if (!name_ok(job->unsupported[i])) {
            return false;
        }
    }
    return true;
}

int plan_job_check(struct core *c, const Pb__Plan *plan, const Pb__PlanJob *job)
{
    const char *wrong = NULL;

    if (!enums_ok(job)) {
        wrong = "unknown when or policy";
    } else if (!tags_ok(job)) {
        wrong = "tags are not sorted, unique names";
    } else if (!retry_ok(job)) {
        wrong = "bad retry";
    } else if (!names_ok(job)) {
        wrong = "bad resource group or executor";
    } else if (job->priority < -LIMIT_PRIORITY || job->priority > LIMIT_PRIORITY_ADMIN) {
        wrong = "priority out of range";
    } else if (job->timeout_ms > LIMIT_TIMEOUT_MS) {
        wrong = "timeout too long";
    } else if ((job->when == WHEN_DELAYED) != (job->start_in_ms > 0) ||
               job->start_in_ms > LIMIT_TIMEOUT_MS) {
        wrong = "bad start_in";
    } else if (job->node_index > job->node_total || job->node_total > LIMIT_PARALLEL ||
               (job->node_index == 0 && job->node_total > 0)) {
        wrong = "bad parallel";
    } else if (job->artifacts != NULL && job->artifacts->expire_in_ms > LIMIT_EXPIRE_MS) {
        wrong = "artifacts expire too late";
    } else if (!trigger_ok(job)) {
        wrong = "bad trigger";
    } else if (!rollout_ok(job)) {
        wrong = "bad rollout";
    } else if (!environment_ok(plan, job)) {
        wrong = "bad environment";
    } else if (!lists_ok(job)) {
        wrong = "too many outer needs, tokens, or a too long confirmation";
    } else if (!caches_ok(job)) {
        wrong = "bad cache";
    } else if (!containers_ok(job)) {
        wrong = "bad image or service";
    } else if (!published_ok(job)) {
        wrong = "bad report, release or pages";
    } else {
        wrong = plan_action_wrong(job);
    }
    if (wrong != NULL) {
        return reject(c, -E_INVALID, "job %.60s: %s", job->name, wrong);
    }
    return variables_check(c, job->variables, job->n_variables, job->name);
}

static int check_needs(struct core *c, const Pb__Plan *plan, uint32_t index, uint32_t *mark)
{
    const Pb__PlanJob *job = plan->jobs[index];

    if (job->n_needs > LIMIT_JOB_NEEDS || job->n_dependencies > LIMIT_PIPELINE_JOBS) {
        return reject(c, -E_LIMIT, "job %.60s: more than %u needs", job->name, LIMIT_JOB_NEEDS);
    }
    if ((job->n_needs > 0 && !job->dag) || (job->n_dependencies > 0 && !job->has_dependencies)) {
        return reject(c, -E_INVALID, "job %.60s: lists that are not declared", job->name);
    }
    for (size_t i = 0; i < job->n_needs; i++) {
        const uint32_t need = job->needs[i]->job;
        if (need >= plan->n_jobs || need == index || plan->jobs[need]->stage > job->stage ||
            mark[need] == index + 1) {
            return reject(c, -E_INVALID, "job %.60s: bad need %zu", job->name, i);
        }
        mark[need] = index + 1;
    }
    for (size_t i = 0; i < job->n_dependencies; i++) {
        const uint32_t on = job->dependencies[i];
        if (on >= plan->n_jobs || on == index || plan->jobs[on]->stage > job->stage) {
            return reject(c, -E_INVALID, "job %.60s: bad dependency %zu", job->name, i);
        }
    }
    return 0;
}

/* Takes away, again and again, the jobs whose needs are all taken away; a cycle is what stays. */
static int check_acyclic(struct core *c, const Pb__Plan *plan)
{
    const size_t n = plan->n_jobs;
    uint32_t *left = arena_array(c->arena, n, sizeof(*left));
    uint32_t *first = arena_array(c->arena, n + 2, sizeof(*first)); /* in needed_by, by job */
    uint32_t *queue = arena_array(c->arena, n, sizeof(*queue));
    uint32_t *needed_by, done = 0, end = 0;

    for (size_t i = 0; i < n; i++) {
        left[i] = (uint32_t)plan->jobs[i]->n_needs;
        for (size_t j = 0; j < plan->jobs[i]->n_needs; j++) {
            first[plan->jobs[i]->needs[j]->job + 2]++;
        }
    }
    for (size_t i = 1; i < n + 2; i++) {
        first[i] += first[i - 1];
    }
    needed_by = arena_array(c->arena, first[n + 1] + 1, sizeof(*needed_by));
    for (uint32_t i = 0; i < n; i++) {
        for (size_t j = 0; j < plan->jobs[i]->n_needs; j++) {
            needed_by[first[plan->jobs[i]->needs[j]->job + 1]++] = i;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        if (left[i] == 0) {
            queue[end++] = i;
        }
    }
    for (; done < end; done++) {
        const uint32_t job = queue[done];
        for (uint32_t i = first[job]; i < first[job + 1]; i++) {
            if (--left[needed_by[i]] == 0) {
                queue[end++] = needed_by[i];
            }
        }
    }
    return done == n ? 0 : reject(c, -E_INVALID, "needs go round in a circle");
}

/* What a job may have to fetch: a name, a digest and a size each. */
static size_t artifact_bytes(const Pb__PlanJob *job)
{
    const Pb__ArtifactSpec *a = job->artifacts;

    return a != NULL && (a->n_paths > 0 || a->untracked) ? strlen(job->name) + 64 : 0;
}

static bool makes_dotenv(const Pb__PlanJob *job)
{
    for (size_t i = 0; job->artifacts != NULL && i < job->artifacts->n_reports; i++) {
        if (strcmp(job->artifacts->reports[i]->type, "dotenv") == 0) {
            return true;
        }
    }
    return false;
}

/* What comes from outside of the plan: tokens, and what other pipelines' jobs made. */
static size_t outer_bytes(const Pb__PlanJob *job)
{
    return job->n_outer_needs * (LIMIT_DOTENV_BYTES + LIMIT_NAME + 64) +
           job->n_id_tokens * SPEC_TOKEN_BYTES;
}

/* A spec that would not fit a message must be refused now: later there is nobody to tell. */
static int check_size(struct core *c, const Pb__PipelineCreate *cmd)
{
    const Pb__Plan *plan = cmd->plan;
    const size_t shared = SPEC_FIXED_BYTES + SPEC_PLAY_BYTES +
                          variables_size(cmd->predefined, cmd->n_predefined) +
                          variables_size(cmd->submitted, cmd->n_submitted);
    size_t before = 0, of_stage = 0, dotenv = 0;

    for (size_t i = 0; i < plan->n_jobs; i++) {
        dotenv = makes_dotenv(plan->jobs[i]) ? LIMIT_PIPELINE_DOTENV : dotenv;
    }
    for (size_t i = 0; i < plan->n_jobs; i++) {
        const Pb__PlanJob *job = plan->jobs[i];
        size_t fetched;
        if (i > 0 && job->stage != plan->jobs[i - 1]->stage) {
            before += of_stage;
            of_stage = 0;
        }
        of_stage += artifact_bytes(job);
        fetched = before;
        if (job->dag) {
            fetched = 0;
            for (size_t j = 0; j < job->n_needs; j++) {
                fetched += artifact_bytes(plan->jobs[job->needs[j]->job]);
            }
        }
        fetched += dotenv + outer_bytes(job);
        if (job->trigger == NULL &&
            shared + fetched + pb__plan_job__get_packed_size(job) > LIMIT_JOB_SPEC) {
            return reject(c, -E_TOO_BIG, "job %.60s with its variables has more than %u bytes",
                          job->name, LIMIT_JOB_SPEC);
        }
    }
    return 0;
}

int plan_check(struct core *c, const Pb__PipelineCreate *cmd)
{
    const Pb__Plan *plan = cmd->plan;
    uint32_t *mark;
    int r;

    if (plan == NULL || plan->n_jobs == 0 || !text_ok(plan->name, LIMIT_NAME)) {
        return reject(c, -E_INVALID, "no jobs, or a bad name of the pipeline");
    }
    if (plan->n_jobs > LIMIT_PIPELINE_JOBS || plan->n_stages > LIMIT_PIPELINE_STAGES) {
        return reject(c, -E_LIMIT, "more than %u jobs or %u stages", LIMIT_PIPELINE_JOBS,
                      LIMIT_PIPELINE_STAGES);
    }
    if ((unsigned)plan->on_job_failure > PB__AUTO_CANCEL_ON_FAILURE__AUTO_CANCEL_ON_FAILURE_ALL) {
        return reject(c, -E_INVALID, "unknown on_job_failure");
    }
    if ((unsigned)plan->on_new_commit > AUTO_CANCEL_INTERRUPTIBLE) {
        return reject(c, -E_INVALID, "unknown on_new_commit");
    }
    r = check_names(c, plan);
    r = r < 0 ? r : check_stages(c, plan);
    mark = arena_array(c->arena, plan->n_jobs, sizeof(*mark));
    for (uint32_t i = 0; i < plan->n_jobs && r == 0; i++) {
        r = plan_job_check(c, plan, plan->jobs[i]);
        r = r < 0 ? r : check_needs(c, plan, i, mark);
    }
    r = r < 0 ? r : check_acyclic(c, plan);
    return r < 0 ? r : check_size(c, cmd);
}
