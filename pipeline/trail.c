/* The trail of a diagnostic: how the text that is wrong came to where it is used. Every node knows
 * where it is written; what brought it here is found by walking from the job, as it was written, to
 * the place that is named. Only what is reported pays for that. */
#include "common/base.h"

#include "pipeline/compile.h"

#define STEPS_MAX 20000 /* nodes visited for one diagnostic; without a trail it is still right */

struct step {
    const struct node *at;
    const char *text;
};

struct trail {
    struct compile *c;
    struct diag *d;
    unsigned steps_left;
    struct step steps[LIMIT_DIAG_NOTES]; /* from the place outwards */
    size_t count;
};

static bool is_before(uint32_t line, uint32_t column, uint32_t other_line, uint32_t other_column)
{
    return line < other_line || (line == other_line && column < other_column);
}

/* Is the place written inside of the node? */
static bool covers(const struct node *n, const struct diag *d)
{
    uint32_t end_line = MAX(n->line, n->end_line);
    uint32_t end_column = n->end_line > 0 ? n->end_column : n->column + MAX(n->length, 1u);
    return strcmp(n->file, d->file) == 0 && !is_before(d->line, d->column, n->line, n->column) &&
           !is_before(end_line, end_column, d->line, d->column);
}

/* An alias repeats what stands above it. */
static bool is_alias(const struct node *value, const struct node *at)
{
    return strcmp(value->file, at->file) == 0 &&
           is_before(value->line, value->column, at->line, at->column);
}

static bool add_step(struct trail *t, const struct node *at, const char *text)
{
    if (t->count < LIMIT_DIAG_NOTES) {
        t->steps[t->count++] = (struct step){.at = at, .text = text};
    }
    return true;
}

static bool find(struct trail *t, const struct node *n, unsigned depth);

static bool find_reference(struct trail *t, const struct node *n, unsigned depth)
{
    struct buf names = BUF_INIT;
    const struct node *target = t->c->written;
    bool found = covers(n, t->d);
    if (found) {
        return true;
    }
    for (uint32_t i = 0; target && i < n->count; i++) {
        const struct pair *p = node_find(target, n->items[i]->text);
        target = p ? p->value : NULL;
        buf_addf(&names, "%s" STR_FMT, i > 0 ? ", " : "", STR_ARG(n->items[i]->text));
    }
    if (target && find(t, target, depth)) {
        found = add_step(t, n,
                         arena_printf(t->c->arena, "brought in by `!reference [%.200s]` here",
                                      buf_cstr(&names)));
    }
    buf_release(&names);
    return found;
}

/* Looks into a value that stands at `at`: its key, or the list that holds it. */
static bool find_value(struct trail *t, const struct node *value, const struct node *at,
                       unsigned depth)
{
    if (!find(t, value, depth)) {
        return false;
    }
    return !is_alias(value, at) || add_step(t, at, "brought in by an alias here");
}

/* Recurses as deep as the file and its references are nested; bounded by depth. */
static bool find(struct trail *t, const struct node *n, unsigned depth)
{
    if (t->steps_left == 0 || depth == LIMIT_YAML_DEPTH) {
        return false;
    }
    t->steps_left--;
    if (n->reference) {
        return find_reference(t, n, depth + 1);
    }
    if (covers(n, t->d)) {
        return true;
    }
    for (uint32_t i = 0; n->kind != NODE_SCALAR && i < n->count; i++) {
        if (n->kind == NODE_LIST) {
            if (find_value(t, n->items[i], n, depth + 1)) {
                return true;
            }
            continue;
        }
        const struct pair *p = &n->pairs[i];
        if (covers(p->key, t->d) || find_value(t, p->value, p->key, depth + 1)) {
            return !p->merge || add_step(t, p->merge, "brought in by `<<` here");
        }
    }
    return false;
}

static bool find_in_job(struct trail *t, const struct pair *job, unsigned depth);

static bool find_in_base(struct trail *t, const struct pair *job, const struct node *name,
                         unsigned depth)
{
    const struct pair *base = node_is_string(name) ? node_find(t->c->written, name->text) : NULL;
    if (!base || !find_in_job(t, base, depth)) {
        return false;
    }
    struct str self = str_sub(job->key->text, 0, LIMIT_NAME);
    return add_step(t, name,
                    arena_printf(t->c->arena,
                                 "in job `" STR_FMT "`, which extends `" STR_FMT "` here",
                                 STR_ARG(self), STR_ARG(name->text)));
}

static bool find_in_job(struct trail *t, const struct pair *job, unsigned depth)
{
    if (covers(job->key, t->d) || find(t, job->value, 0)) {
        return true;
    }
    const struct node *names = node_get(job->value, "extends");
    if (node_is_null(names) || depth > LIMIT_EXTENDS_DEPTH) {
        return false;
    }
    if (names->kind != NODE_LIST) {
        return find_in_base(t, job, names, depth + 1);
    }
    for (uint32_t i = names->count; i > 0; i--) { /* the last one wins */
        if (find_in_base(t, job, names->items[i - 1], depth + 1)) {
            return true;
        }
    }
    return false;
}

/* In what stands at the top of the file, which jobs inherit. */
static bool find_at_top(struct trail *t)
{
    const struct node *root = t->c->written;
    for (uint32_t i = 0; i < root->count; i++) {
        const struct pair *p = &root->pairs[i];
        if (keyword_find(SCOPE_TOP, p->key->text) &&
            (covers(p->key, t->d) || find_value(t, p->value, p->key, 0))) {
            return true;
        }
    }
    return false;
}

static void find_way(struct trail *t)
{
    const struct node *job_at = t->c->job_at;
    const struct pair *job = job_at ? node_find(t->c->written, job_at->text) : NULL;
    if (job && find_in_job(t, job, 0)) {
        return;
    }
    if (find_at_top(t) && job_at) {
        struct str name = str_sub(job_at->text, 0, LIMIT_NAME);
        add_step(t, job_at,
                 arena_printf(t->c->arena, "inherited by job `" STR_FMT "` here", STR_ARG(name)));
    }
}

static const struct node *inclusion_find(const struct compile *c, const char *file)
{
    for (size_t i = 0; i < c->inclusion_count; i++) {
        if (strcmp(c->inclusions[i].file, file) == 0) {
            return c->inclusions[i].at;
        }
    }
    return NULL;
}

void trail_add(struct compile *c, struct diag *d)
{
    struct trail t = {.c = c, .d = d, .steps_left = STEPS_MAX};
    if (d->line == 0) {
        return;
    }
    if (c->written) {
        find_way(&t);
    }
    for (size_t i = 0; i < t.count; i++) {
        diag_note(c->diags, d, node_at(t.steps[i].at), "%s", t.steps[i].text);
    }
    const struct node *at = inclusion_find(c, d->file);
    for (unsigned i = 0; at && i < LIMIT_DIAG_NOTES; i++) {
        struct str file = str_sub(str_from(i == 0 ? d->file : ""), 0, LIMIT_NAME);
        diag_note(c->diags, d, node_at(at), "%s" STR_FMT "%s", i == 0 ? "`" : "", STR_ARG(file),
                  i == 0 ? "` is included from" : "which is included from");
        at = inclusion_find(c, at->file);
    }
}

void trail_included(struct compile *c, const char *file, const struct node *at)
{
    if (!c->inclusions) {
        c->inclusions = arena_array(c->arena, LIMIT_INCLUDES, sizeof(*c->inclusions));
    }
    if (c->inclusion_count < LIMIT_INCLUDES && strcmp(file, c->in->file) != 0 &&
        !inclusion_find(c, file)) {
        c->inclusions[c->inclusion_count++] = (struct inclusion){.file = file, .at = at};
    }
}
