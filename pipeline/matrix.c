/* parallel:matrix: a job for every combination of the values of some variables, in the order in
 * which the last variable changes fastest; "test: [linux, amd64]" is the name of one. And the same
 * in needs:parallel:matrix, where `$[[ matrix.NAME ]]` is the value that the needing job has. */
#include "common/base.h"

#include "pipeline/compile.h"

#define VALUES_NESTING 10
/* A label goes into the name of a job; where it still holds `$[[ matrix.NAME ]]` it may be longer.
 */
#define LABEL_BYTES (4 * LIMIT_NAME)

/* One entry while its product is made. */
struct axis {
    struct str name;
    struct texts values;
};

static bool push_values(struct compile *c, const struct node *n, unsigned depth, struct texts *ret)
{
    bool ok = true;
    for (uint32_t i = 0; i < n->count && compile_charge(c, 1, n); i++) {
        const struct node *item = n->items[i];
        if (item->reference) {
            continue; /* it led nowhere, which was reported */
        }
        if (item->kind == NODE_LIST && depth < VALUES_NESTING) {
            ok &= push_values(c, item, depth + 1, ret);
        } else if (ret->count == LIMIT_PARALLEL) {
            report(c, item, "limit", NULL, "`matrix` makes more than %u jobs", LIMIT_PARALLEL);
            return false;
        } else {
            ok &= read_text(c, item, "matrix", &ret->items[ret->count]);
            ret->count++;
        }
    }
    return ok;
}

static bool read_axis(struct compile *c, const struct pair *p, struct axis *ret)
{
    const struct node *n = p->value;
    ret->name = p->key->text;
    if (!var_name_valid(ret->name)) {
        report(c, p->key, "bad-variable-name", NULL,
               "`" STR_FMT "` is no name for a variable: letters, digits and _ only",
               STR_ARG(ret->name));
        return false;
    }
    ret->values.items = arena_array(c->arena, LIMIT_PARALLEL, sizeof(*ret->values.items));
    if (n->kind != NODE_LIST) {
        ret->values.count = 1;
        return read_text(c, n, "matrix", &ret->values.items[0]);
    }
    bool ok = push_values(c, n, 1, &ret->values);
    if (ok && ret->values.count == 0) {
        report(c, n, "bad-value", NULL, "`" STR_FMT "` has no values", STR_ARG(ret->name));
        ok = false;
    }
    return ok;
}

static struct str label(struct compile *c, const struct variables *v)
{
    struct buf b = BUF_INIT;
    for (size_t i = 0; i < v->count && b.n <= LABEL_BYTES; i++) {
        buf_addf(&b, "%s" STR_FMT, i == 0 ? "[" : ", ", STR_ARG(v->items[i].value));
    }
    buf_add_char(&b, ']');
    struct str s = arena_str(c->arena, buf_str(&b));
    buf_release(&b);
    return s;
}

/* Two combinations of one label would be two jobs of one name: the later one counts, as in
 * GitLab. */
static bool add_combination(struct compile *c, const struct node *at, struct matrix *m,
                            struct variables v)
{
    struct combination new = {.variables = v, .label = label(c, &v)};
    if (new.label.n > LABEL_BYTES) {
        report(c, at, "limit", NULL, "`matrix`: a combination has more than %u bytes", LABEL_BYTES);
        return false;
    }
    for (size_t i = 0; i < m->count; i++) {
        if (str_eq(m->items[i].label, new.label)) {
            report_warning(c, at, "duplicate-combination", NULL,
                           "the combination " STR_FMT " comes twice: the last one counts",
                           STR_ARG(new.label));
            m->items[i] = new;
            return true;
        }
    }
    m->items[m->count++] = new;
    return true;
}

static void add_product(struct compile *c, const struct node *at, const struct axis *axes,
                        size_t count, struct matrix *m)
{
    size_t total = 1;
    for (size_t i = 0; i < count && total <= LIMIT_PARALLEL; i++) {
        total *= axes[i].values.count;
    }
    if (m->count + total > LIMIT_PARALLEL) {
        report(c, at, "limit", NULL, "`matrix` makes more than %u jobs", LIMIT_PARALLEL);
        return;
    }
    for (size_t k = 0; k < total && compile_charge(c, count, at); k++) {
        struct variables v = {.items = arena_array(c->arena, count, sizeof(*v.items))};
        size_t rest = k;
        v.count = count;
        for (size_t i = count; i-- > 0;) {
            v.items[i] = (struct var){.name = axes[i].name,
                                      .value = axes[i].values.items[rest % axes[i].values.count]};
            rest /= axes[i].values.count;
        }
        if (!add_combination(c, at, m, v)) {
            return;
        }
    }
}

static bool read_entry(struct compile *c, const struct node *n, struct matrix *m)
{
    if (n->kind != NODE_MAPPING || n->count == 0) {
        report(c, n, "wrong-type", "matrix: [{ OS: [linux, macos], ARCH: [amd64] }]",
               "an entry of `matrix` must be a mapping of variables to values, found %s",
               n->kind == NODE_MAPPING ? "an empty one" : node_what(n));
        return false;
    }
    if (n->count > LIMIT_PARALLEL) {
        report(c, n, "limit", NULL, "`matrix`: more than %u variables", LIMIT_PARALLEL);
        return false;
    }
    struct axis *axes = arena_array(c->arena, n->count, sizeof(*axes));
    bool ok = true;
    for (uint32_t i = 0; i < n->count; i++) {
        ok &= read_axis(c, &n->pairs[i], &axes[i]);
    }
    if (ok) {
        add_product(c, n, axes, n->count, m);
    }
    return ok;
}

/* Lists in lists come from !reference; they are as deep as references are nested. */
static bool read_entries(struct compile *c, const struct node *n, struct matrix *m)
{
    bool ok = true;
    for (uint32_t i = 0; i < n->count && compile_charge(c, 1, n); i++) {
        const struct node *item = n->items[i];
        if (!item->reference) {
            ok &= item->kind == NODE_LIST ? read_entries(c, item, m) : read_entry(c, item, m);
        }
    }
    return ok;
}

bool matrix_read(struct compile *c, const struct node *n, struct matrix *ret)
{
    struct matrix m = {.items = arena_array(c->arena, LIMIT_PARALLEL, sizeof(*m.items))};
    if (n->kind != NODE_LIST) {
        report(c, n, "wrong-type", "matrix: [{ OS: [linux, macos], ARCH: [amd64] }]",
               "`matrix` must be a list of mappings, found %s", node_what(n));
        return false;
    }
    size_t errors = c->diags->errors;
    bool ok = read_entries(c, n, &m) && c->diags->errors == errors;
    if (ok && m.count == 0) {
        report(c, n, "bad-value", NULL, "`matrix` is empty");
        return false;
    }
    *ret = m;
    return ok;
}

static const struct var *find_variable(const struct variables *v, struct str name)
{
    for (size_t i = 0; i < v->count; i++) {
        if (str_eq(v->items[i].name, name)) {
            return &v->items[i];
        }
    }
    return NULL;
}

/* $[[ matrix.NAME ]] in one text. */
static bool interpolate(struct compile *c, const struct job *job, const struct node *at,
                        struct str text, struct buf *out)
{
    for (;;) {
        ptrdiff_t begin = str_find(text, STR("$[["));
        struct str rest = str_sub(text, begin < 0 ? text.n : (size_t)begin + 3, text.n);
        ptrdiff_t end = str_find(rest, STR("]]"));
        if (begin < 0 || end < 0) {
            buf_add(out, text.p, text.n);
            return true;
        }
        struct str name = str_trim(str_sub(rest, 0, (size_t)end));
        bool matrix = str_starts(name, STR("matrix."));
        const struct var *var = NULL;
        if (matrix) {
            var = find_variable(&job->matrix_variables, str_sub(name, 7, name.n));
        }
        if (!var) {
            report(c, at, "unknown-matrix-variable", matrix ? NULL : "$[[ matrix.NAME ]]",
                   "`$[[ " STR_FMT " ]]`: the `matrix` of this job has no such variable",
                   STR_ARG(name));
            return false;
        }
        buf_add(out, text.p, (size_t)begin);
        buf_add(out, var->value.p, var->value.n);
        text = str_sub(rest, (size_t)end + 2, rest.n);
    }
}

struct str matrix_name(struct compile *c, struct str job, const struct combination *combination)
{
    return str_from(
        arena_printf(c->arena, STR_FMT ": " STR_FMT, STR_ARG(job), STR_ARG(combination->label)));
}

bool matrix_interpolate(struct compile *c, const struct job *job, const struct node *at,
                        struct str text, struct str *ret)
{
    struct buf b = BUF_INIT;
    bool ok = interpolate(c, job, at, text, &b);
    if (ok) {
        *ret = arena_str(c->arena, buf_str(&b));
    }
    buf_release(&b);
    return ok;
}

/* A variable of the matrix takes the place of one that the job has written. */
struct variables matrix_merge(struct compile *c, const struct variables *own,
                              const struct variables *matrix)
{
    struct variables v = {
        .items = arena_array(c->arena, own->count + matrix->count + 1, sizeof(*v.items))};
    for (size_t i = 0; i < own->count; i++) {
        if (!find_variable(matrix, own->items[i].name)) {
            v.items[v.count++] = own->items[i];
        }
    }
    for (size_t i = 0; i < matrix->count; i++) {
        v.items[v.count++] = matrix->items[i];
    }
    return v;
}
