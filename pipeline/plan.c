/* The graph and the plan: jobs by stage, names of needs and dependencies to indices, limits. */
#include "common/base.h"

#include <stdlib.h>

#include "pipeline/compile.h"

/* So many comparisons of a need with those before it count as one step. */
#define NEEDS_PER_WORK 32

struct planner {
    struct compile *c;
    struct node
        *names; /* name to place in c->jobs; the name before `parallel` to its first place */
    const char **base_names; /* of all jobs, for hints; NULL: not needed yet */
    struct job **order;      /* the selected jobs, as the plan has them */
    size_t count;
    Pb__Plan *plan;
};

static void add_name(struct planner *p, struct str name, size_t place, const struct node *at)
{
    struct node *value = node_new(p->c->arena, NODE_SCALAR, NULL);
    value->integer = (int64_t)place;
    if (node_find(p->names, name)) {
        report(p->c, at, "duplicate-job", NULL, "there are two jobs with the name `" STR_FMT "`",
               STR_ARG(name));
        return;
    }
    node_set(p->c->arena, p->names, node_text(p->c->arena, name, at), value);
}

static void index_names(struct planner *p)
{
    struct compile *c = p->c;
    p->names = node_new(c->arena, NODE_MAPPING, NULL);
    for (size_t i = 0; i < c->job_count; i++) {
        struct job *job = &c->jobs[i];
        add_name(p, job->name, i, job->at);
        if (job->long_name.n > 0) {
            add_name(p, job->long_name, i, job->at);
        }
        if (job->plan.node_index == 1) {
            add_name(p, str_from(job->plan.base_name), i, job->at);
        }
    }
}

/* The jobs that a name stands for: one, or all of a `parallel`. 0: there is none. */
static size_t find_jobs(struct planner *p, struct str name, struct job **ret_first)
{
    const struct pair *pair = node_find(p->names, name);
    if (!pair) {
        return 0;
    }
    *ret_first = &p->c->jobs[pair->value->integer];
    bool base = (*ret_first)->parallel > 0 && !str_eq((*ret_first)->name, name) &&
                !str_eq((*ret_first)->long_name, name);
    return base ? (*ret_first)->parallel : 1;
}

/* Where a part of a matrix is meant, but is not there: those that are. */
static const char *parts_hint(struct planner *p, struct str name)
{
    ptrdiff_t end = str_find(name, STR(": ["));
    struct job *first = NULL;
    struct buf list = BUF_INIT;
    size_t count = end < 0 ? 0 : find_jobs(p, str_sub(name, 0, (size_t)end), &first);
    if (count == 0 || first->matrix.count == 0) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        buf_addf(&list, "%s" STR_FMT, i == 0 ? "" : ", ", STR_ARG(first[i].name));
    }
    const char *hint = arena_printf(p->c->arena, "its parts are %.300s", buf_cstr(&list));
    buf_release(&list);
    return hint;
}

static void report_missing(struct planner *p, const struct need *need, const char *keyword)
{
    struct compile *c = p->c;
    if (c->incomplete) {
        return;
    }
    if (!p->base_names) {
        p->base_names = arena_array(c->arena, c->job_count + 1, sizeof(*p->base_names));
        for (size_t i = 0; i < c->job_count; i++) {
            p->base_names[i] = c->jobs[i].plan.base_name;
        }
    }
    const char *hint = str_starts(need->job, STR("."))
                           ? "a name that begins with a point is a template, not a job"
                           : parts_hint(p, need->job);
    report(c, need->at, "unknown-need",
           hint ? hint : suggest(c, need->job, p->base_names, c->job_count),
           "`%s`: there is no job `" STR_FMT "`", keyword, STR_ARG(need->job));
}

static void check_one(struct planner *p, const struct job *job, const struct need *need,
                      const char *keyword)
{
    struct job *other = NULL;
    if (find_jobs(p, need->job, &other) == 0) {
        if (!need->optional) {
            report_missing(p, need, keyword);
        }
        return;
    }
    if (other->stage > job->stage) {
        report(p->c, need->at, "need-later-stage", NULL,
               "`%s`: `" STR_FMT "` is in the later stage `" STR_FMT "`", keyword,
               STR_ARG(need->job), STR_ARG(p->c->stages.items[other->stage]));
    }
}

static void check_all(struct planner *p, const struct job *job, const struct needs *needs)
{
    for (size_t i = 0; i < needs->count; i++) {
        check_one(p, job, &needs->items[i], "needs");
    }
}

/* What is wrong whatever the rules will say. */
static void check_names(struct planner *p)
{
    struct compile *c = p->c;
    for (size_t i = 0; i < c->job_count && !c->incomplete; i++) {
        struct job *job = &c->jobs[i];
        c->job_at = job->at;
        if (job->plan.node_index <= 1 || job->needs.has_matrix) {
            check_all(p, job, &job->needs);
        }
        for (size_t r = 0; r < job->rules.count; r++) {
            const struct needs *needs = &job->rules.items[r].needs;
            if (job->plan.node_index <= 1 || needs->has_matrix) {
                struct needs all = needs_unfold(c, job, needs);
                check_all(p, job, &all);
            }
        }
        if (job->plan.node_index > 1) {
            continue;
        }
        if (job->environment.on_stop_at) {
            struct job *stop = NULL;
            find_jobs(p, job->environment.on_stop, &stop);
            environment_check_stop(c, job, stop);
        }
        for (size_t k = 0; k < job->dependency_count; k++) {
            check_one(p, job, &job->dependencies[k], "dependencies");
        }
    }
    c->job_at = NULL;
}

static int compare_jobs(const void *a, const void *b)
{
    const struct job *x = *(struct job *const *)a;
    const struct job *y = *(struct job *const *)b;
    if (x->stage != y->stage) {
        return x->stage < y->stage ? -1 : 1;
    }
    return x < y ? -1 : x > y;
}

static bool order_jobs(struct planner *p)
{
    struct compile *c = p->c;
    bool middle = false; /* a job in another stage than .pre and .post */
    p->order = arena_array(c->arena, c->job_count + 1, sizeof(struct job *));
    for (size_t i = 0; i < c->job_count; i++) {
        if (c->jobs[i].selected) {
            p->order[p->count++] = &c->jobs[i];
            middle |= c->jobs[i].stage > 0 && c->jobs[i].stage + 1 < c->stages.count;
        }
    }
    if (!middle) {
        report(c, NULL, "no-jobs",
               c->job_count > 0 ? "`davit explain` says for each job why it is left out"
                                : "names that begin with a point are templates, not jobs",
               p->count == 0 ? "the pipeline would have no jobs"
                             : "the pipeline would have jobs in the stages .pre and .post only");
        return false;
    }
    if (p->count > LIMIT_PIPELINE_JOBS) {
        report(c, NULL, "limit", NULL, "the pipeline would have %zu jobs, more than %u", p->count,
               LIMIT_PIPELINE_JOBS);
        return false;
    }
    qsort(p->order, p->count, sizeof(struct job *), compare_jobs);
    for (size_t i = 0; i < p->count; i++) {
        p->order[i]->plan_index = (uint32_t)i;
    }
    return true;
}

/* A job that is defined, but that its rules left out. */
static void report_absent(struct planner *p, const struct need *need)
{
    report(p->c, need->at, "need-absent", "`optional: true` lets the job run without it",
           "needs the job `" STR_FMT "`, which is not in this pipeline", STR_ARG(need->job));
}

static bool is_needed(const struct job *job, uint32_t index)
{
    for (size_t i = 0; i < job->plan.n_needs; i++) {
        if (job->plan.needs[i]->job == index) {
            return true;
        }
    }
    return false;
}

static void add_need(struct planner *p, struct job *job, const struct need *need, uint32_t index)
{
    if (!compile_charge(p->c, job->plan.n_needs / NEEDS_PER_WORK, need->at)) {
        return;
    }
    if (is_needed(job, index)) {
        report(p->c, need->at, "duplicate-need", NULL, "`needs` names `%s` twice",
               p->order[index]->plan.name);
        return;
    }
    Pb__Need *n = arena_alloc(p->c->arena, sizeof(*n));
    pb__need__init(n);
    n->job = index;
    n->artifacts = need->artifacts;
    job->plan.needs[job->plan.n_needs++] = n;
}

static void plan_needs(struct planner *p, struct job *job)
{
    struct arena *a = p->c->arena;
    size_t most = 0;
    struct job *first = NULL;
    for (size_t i = 0; i < job->needs.count; i++) {
        most += find_jobs(p, job->needs.items[i].job, &first);
    }
    job->plan.dag = job->needs.present;
    job->plan.outer_needs = job->needs.outer;
    job->plan.n_outer_needs = job->needs.outer_count;
    if (!compile_charge(p->c, most, job->at)) {
        return;
    }
    job->plan.needs = arena_array(a, most + 1, sizeof(Pb__Need *));
    for (size_t i = 0; i < job->needs.count; i++) {
        const struct need *need = &job->needs.items[i];
        size_t count = find_jobs(p, need->job, &first);
        for (size_t k = 0; k < count; k++) {
            if (!first[k].selected) {
                if (!need->optional) {
                    report_absent(p, need);
                }
                continue;
            }
            add_need(p, job, need, first[k].plan_index);
        }
    }
    if (job->plan.n_needs > LIMIT_JOB_NEEDS) {
        report(p->c, job->at, "limit", NULL, "it needs %zu jobs, more than %u", job->plan.n_needs,
               LIMIT_JOB_NEEDS);
    }
}

/* A job with needs can take artifacts from what it needs only. */
static void plan_dependencies(struct planner *p, struct job *job)
{
    struct job *first = NULL;
    size_t most = 0;
    for (size_t i = 0; i < job->dependency_count; i++) {
        most += find_jobs(p, job->dependencies[i].job, &first);
    }
    job->plan.has_dependencies = job->has_dependencies;
    if (!compile_charge(p->c, most, job->at)) {
        return;
    }
    job->plan.dependencies = arena_array(p->c->arena, most + 1, sizeof(uint32_t));
    for (size_t i = 0; i < job->dependency_count; i++) {
        size_t count = find_jobs(p, job->dependencies[i].job, &first);
        for (size_t k = 0; k < count; k++) {
            if (first[k].selected && (!job->plan.dag || is_needed(job, first[k].plan_index))) {
                job->plan.dependencies[job->plan.n_dependencies++] = first[k].plan_index;
            }
        }
    }
}

/* Walks from a job of which it is known that it waits for itself to a job that it meets twice. */
static void report_cycle(struct planner *p, const uint32_t *open, uint32_t at)
{
    bool *seen = arena_array(p->c->arena, p->count, sizeof(*seen));
    struct buf path = BUF_INIT;
    uint32_t start;
    for (int round = 0; round < 2; round++) { /* first find a job of the cycle, then write it */
        memset(seen, 0, p->count * sizeof(*seen));
        buf_clear(&path);
        for (start = at; !seen[at];) {
            seen[at] = true;
            buf_addf(&path, "`%s` needs ", p->order[at]->plan.name);
            const Pb__PlanJob *job = &p->order[at]->plan;
            for (size_t i = 0; i < job->n_needs; i++) {
                if (open[job->needs[i]->job] > 0) {
                    at = job->needs[i]->job;
                    break;
                }
            }
        }
    }
    buf_addf(&path, "`%s`", p->order[start]->plan.name);
    report(p->c, p->order[start]->at, "needs-cycle", NULL, "%s: %.400s",
           is_needed(p->order[start], start) ? "a job waits for itself"
                                             : "jobs wait for each other",
           buf_cstr(&path));
    buf_release(&path);
}

/* Kahn's algorithm: takes away jobs whose needs are all gone; what stays waits for itself. */
static void check_cycles(struct planner *p)
{
    uint32_t *open = arena_array(p->c->arena, p->count, sizeof(*open)); /* needs left, plus 1 */
    uint32_t *heads = arena_array(p->c->arena, p->count, sizeof(*heads));
    uint32_t *ready = arena_array(p->c->arena, p->count, sizeof(*ready));
    struct edge {
        uint32_t job;
        uint32_t next;
    } * edges;
    size_t edge_count = 0;
    size_t ready_count = 0;
    for (size_t i = 0; i < p->count; i++) {
        edge_count += p->order[i]->plan.n_needs;
    }
    edges = arena_array(p->c->arena, edge_count + 1, sizeof(*edges));
    edge_count = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        const Pb__PlanJob *job = &p->order[i]->plan;
        open[i] = (uint32_t)job->n_needs + 1;
        for (size_t k = 0; k < job->n_needs; k++) {
            edges[++edge_count] = (struct edge){.job = i, .next = heads[job->needs[k]->job]};
            heads[job->needs[k]->job] = (uint32_t)edge_count;
        }
        if (job->n_needs == 0) {
            ready[ready_count++] = i;
        }
    }
    for (size_t i = 0; i < ready_count; i++) {
        open[ready[i]] = 0;
        for (uint32_t e = heads[ready[i]]; e != 0; e = edges[e].next) {
            if (--open[edges[e].job] == 1) {
                ready[ready_count++] = edges[e].job;
            }
        }
    }
    for (uint32_t i = 0; i < p->count; i++) {
        if (open[i] > 0) {
            report_cycle(p, open, i);
            return;
        }
    }
}

static void plan_stages(struct planner *p)
{
    struct compile *c = p->c;
    char **names = arena_array(c->arena, c->stages.count, sizeof(*names));
    size_t count = 0;
    for (size_t i = 0; i < p->count; i++) {
        struct job *job = p->order[i];
        if (i == 0 || job->stage != p->order[i - 1]->stage) {
            names[count++] = arena_strdup(c->arena, c->stages.items[job->stage]);
        }
        job->plan.stage = (uint32_t)count - 1;
    }
    p->plan->stages = names;
    p->plan->n_stages = count;
}

/* The job that stops the environment, where it is in this pipeline; of a `parallel` the part with
 * the same environment. */
static void plan_on_stop(struct planner *p, struct job *job)
{
    struct job *first = NULL;
    size_t count = find_jobs(p, job->environment.on_stop, &first);
    for (size_t i = 0; i < count; i++) {
        Pb__EnvironmentSpec *e = job->plan.environment;
        if (first[i].selected && strcmp(first[i].plan.environment->name, e->name) == 0) {
            e->has_on_stop = true;
            e->on_stop = first[i].plan_index;
            return;
        }
    }
}

static void plan_script(struct compile *c, struct job *job)
{
    size_t count = job->before_script.count + job->script.count;
    if (!compile_charge(c, count, job->at)) {
        return;
    }
    job->plan.script = arena_array(c->arena, count + 1, sizeof(*job->plan.script));
    for (size_t i = 0; i < count; i++) {
        struct str line = i < job->before_script.count
                              ? job->before_script.items[i]
                              : job->script.items[i - job->before_script.count];
        job->plan.script[i] = pb_bytes_ref(line);
    }
    job->plan.n_script = count;
}

static void plan_jobs(struct planner *p)
{
    struct compile *c = p->c;
    size_t total = 0;
    p->plan->jobs = arena_array(c->arena, p->count, sizeof(Pb__PlanJob *));
    for (size_t i = 0; i < p->count; i++) {
        struct job *job = p->order[i];
        c->job_at = job->at;
        plan_needs(p, job);
        plan_dependencies(p, job);
        if (job->environment.on_stop_at) {
            plan_on_stop(p, job);
        }
        plan_script(c, job);
        p->plan->jobs[p->plan->n_jobs++] = &job->plan;
        size_t size = pb__plan_job__get_packed_size(&job->plan);
        total += size;
        if (size > LIMIT_JOB_SPEC) {
            report(c, job->at, "limit", NULL, "the job takes %zu bytes, more than %u", size,
                   LIMIT_JOB_SPEC);
        }
        if (total > LIMIT_PLAN) {
            report(c, job->at, "limit", NULL, "the pipeline takes more than %u bytes", LIMIT_PLAN);
            break;
        }
    }
    c->job_at = NULL;
}

/* The name of a pipeline may come from a commit's message: as one line, of whole characters. */
static char *name_line(struct arena *a, struct str name)
{
    size_t n = MIN(name.n, (size_t)LIMIT_NAME);
    while (n < name.n && n > 0 && ((uint8_t)name.p[n] & 0xc0) == 0x80) {
        n--; /* not in the middle of a character */
    }
    char *line = arena_strdup(a, str_sub(name, 0, n));
    for (char *at = line; *at != '\0'; at++) {
        *at = (uint8_t)*at < ' ' || *at == 0x7f ? ' ' : *at;
    }
    return line;
}

Pb__Plan *plan_build(struct compile *c)
{
    struct planner p = {.c = c};
    index_names(&p);
    check_names(&p);
    if (compile_failed(c) || !select_workflow(c)) {
        return NULL;
    }
    select_jobs(c);
    if (compile_failed(c) || !order_jobs(&p)) {
        return NULL;
    }
    p.plan = arena_alloc(c->arena, sizeof(*p.plan));
    pb__plan__init(p.plan);
    plan_stages(&p);
    plan_jobs(&p);
    if (compile_failed(c)) {
        return NULL;
    }
    check_cycles(&p);
    p.plan->name = name_line(c->arena, c->name);
    p.plan->on_job_failure = c->on_job_failure;
    p.plan->on_new_commit = c->on_new_commit;
    return compile_failed(c) ? NULL : p.plan;
}
