#include "common/base.h"

#include "broker/trigger/forward.h"

#include "broker/core/core.h"
#include "broker/core/query.h"

#define SOURCE "CI_PIPELINE_SOURCE"
#define CHILD  "parent_pipeline"

static struct var as_var(const Pb__Variable *v)
{
    return (struct var){.name = str_from(v->name),
                        .value = pb_str(v->value),
                        .raw = v->raw,
                        .file = v->file,
                        .masked = v->masked};
}

static Pb__Variable *copy(struct arena *a, const Pb__Variable *v)
{
    return (Pb__Variable *)pb_copy(a, &v->base);
}

static Pb__Variable *raw_variable(struct arena *a, const Pb__Variable *like, struct str value)
{
    Pb__Variable *v = arena_alloc(a, sizeof(*v));
    pb__variable__init(v);
    v->name = arena_strdup(a, str_from(like->name));
    v->value = pb_bytes(a, value);
    v->raw = true;
    v->masked = like->masked;
    return v;
}

static void add_predefined(struct forward *f, struct arena *a,
                           const Pb__PipelineVariablesRecord *of)
{
    f->predefined = arena_array(a, of->n_predefined + 1, sizeof(*f->predefined));
    for (size_t i = 0; i < of->n_predefined; i++) {
        const Pb__Variable *v = of->predefined[i];
        bool source = str_eqz(STR(SOURCE), v->name);
        f->predefined[f->predefined_count++] = source ? raw_variable(a, v, STR(CHILD)) : copy(a, v);
    }
}

/* All that the trigger job would see if it ran, with its values. */
static int read_environment(struct tx *tx, uint64_t job_id, struct vars *ret)
{
    Pb__Variable **list;
    size_t n;
    int r = core_job_variables(tx, job_id, &list, &n);
    if (r < 0) {
        return r;
    }
    vars_init(ret, tx_arena(tx));
    for (size_t i = 0; i < n; i++) {
        if (list[i]->sealed.len == 0) { /* the child gets stored ones by itself */
            vars_set(ret, as_var(list[i]));
        }
    }
    return vars_expand_all(ret);
}

/* The value of one from the file. Where a stronger variable hides it, its own text counts. */
static int add_own(struct forward *f, struct arena *a, const struct vars *env,
                   const Pb__Variable *v, bool hidden)
{
    struct buf text = BUF_INIT;
    const struct var *seen = vars_get(env, str_from(v->name));
    int r = 0;
    if (v->raw) {
        buf_add_str(&text, pb_str(v->value));
    } else if (seen != NULL && !hidden) {
        buf_add_str(&text, seen->value);
    } else {
        r = vars_expand(env, pb_str(v->value), &text);
    }
    if (r == 0) {
        f->submitted[f->submitted_count++] = raw_variable(a, v, buf_str(&text));
    }
    buf_release(&text);
    return r;
}

static bool has(Pb__Variable *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i]->name, name) == 0) {
            return true;
        }
    }
    return false;
}

int forward_read(struct forward *f, struct tx *tx, struct arena *arena, uint64_t job_id,
                 const Pb__PlanJob *plan)
{
    const Pb__JobRecord *job = job_get(tx, job_id);
    const struct key of_pipeline = key_u64(job != NULL ? job->pipeline_id : 0);
    const struct key of_job = key_u64(job_id);
    const Pb__PipelineVariablesRecord *all = (const Pb__PipelineVariablesRecord *)tx_get_msg(
        tx, T_PIPELINE_VARS, &of_pipeline, &pb__pipeline_variables_record__descriptor);
    const Pb__JobVariablesRecord *played = (const Pb__JobVariablesRecord *)tx_get_msg(
        tx, T_JOB_VARS, &of_job, &pb__job_variables_record__descriptor);
    size_t n_played = played != NULL ? played->n_variables : 0;
    struct vars env;
    if (all == NULL) {
        return tx_ok(tx) ? -E_CORRUPT : tx_error(tx);
    }
    int r = read_environment(tx, job_id, &env);
    add_predefined(f, arena, all);
    f->submitted = arena_array(arena, plan->n_variables + all->n_submitted + n_played + 1,
                               sizeof(*f->submitted));
    for (size_t i = 0; i < plan->n_variables && plan->trigger->forward_yaml_variables; i++) {
        const Pb__Variable *v = plan->variables[i];
        bool hidden = has(all->submitted, all->n_submitted, v->name) ||
                      (played != NULL && has(played->variables, n_played, v->name));
        r = r < 0 ? r : add_own(f, arena, &env, v, hidden);
    }
    for (size_t i = 0; i < all->n_submitted && plan->trigger->forward_pipeline_variables; i++) {
        f->submitted[f->submitted_count++] = copy(arena, all->submitted[i]);
    }
    for (size_t i = 0; i < n_played; i++) {
        f->submitted[f->submitted_count++] = copy(arena, played->variables[i]);
    }
    return r;
}

static const struct var *as_list(struct arena *arena, Pb__Variable *const *items, size_t n)
{
    struct var *list = arena_array(arena, MAX(n, 1u), sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        list[i] = as_var(items[i]);
    }
    return list;
}

void forward_as_vars(const struct forward *f, struct arena *arena, struct pipeline_input *in)
{
    in->predefined = as_list(arena, f->predefined, f->predefined_count);
    in->predefined_count = f->predefined_count;
    in->submitted = as_list(arena, f->submitted, f->submitted_count);
    in->submitted_count = f->submitted_count;
}
