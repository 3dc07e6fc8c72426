/* changes and exists: paths of the repository that match globs. */
#include "common/base.h"

#include "pipeline/compile.h"

/* So many steps of comparing paths with globs count as one. */
#define GLOB_STEPS_PER_WORK 256
/* What asking somebody outside counts for. */
#define QUESTION_WORK 1000

/* The place of the first path that matches; -1: none. */
static ptrdiff_t find_path(struct compile *c, struct str glob, const struct str *paths,
                           size_t path_count)
{
    size_t used = 0;
    for (size_t i = 0; i < path_count; i++) {
        size_t left = LIMIT_GLOB_STEPS;
        bool matches = glob_match_within(GLOB_RUBY, glob, paths[i], &left);
        used += LIMIT_GLOB_STEPS - left;
        if (matches) {
            return (ptrdiff_t)i;
        }
        if (!compile_charge(c, used / GLOB_STEPS_PER_WORK, NULL)) {
            return -1;
        }
        used %= GLOB_STEPS_PER_WORK;
    }
    return -1;
}

/* Many jobs ask for the same globs: each is looked for once among the paths of the repository and
 * among what changed. */
static ptrdiff_t find_path_once(struct compile *c, enum globs what, struct str glob,
                                const struct str *paths, size_t path_count)
{
    if (what == GLOBS_COMPARED) {
        return find_path(c, glob, paths, path_count);
    }
    struct node **known = &c->globs[what == GLOBS_CHANGES];
    const struct pair *found = node_find(*known, glob);
    if (found) {
        return (ptrdiff_t)found->value->integer;
    }
    if (!*known) {
        *known = node_new(c->arena, NODE_MAPPING, NULL);
    }
    struct node *place = node_new(c->arena, NODE_SCALAR, NULL);
    place->integer = find_path(c, glob, paths, path_count);
    node_set(c->arena, *known, node_text(c->arena, arena_str(c->arena, glob), NULL), place);
    return (ptrdiff_t)place->integer;
}

/* Does any path match any glob, once its variables are replaced. */
static bool any_match(struct compile *c, enum globs what, const struct texts *globs,
                      const struct str *paths, size_t path_count, const struct vars *env)
{
    for (size_t i = 0; i < globs->count && path_count > 0; i++) {
        struct str glob = expand_text(c, env, globs->items[i], EXPAND_KEEP_UNKNOWN);
        if (!compile_charge(c, 1, NULL)) {
            return false;
        }
        ptrdiff_t place = find_path_once(c, what, glob, paths, path_count);
        if (place >= 0) {
            explain_globs(c, what, globs, &paths[place]);
            return true;
        }
    }
    explain_globs(c, what, globs, NULL);
    return false;
}

bool changes_hold(struct compile *c, const struct texts *globs, const struct vars *env)
{
    if (!c->in->changes_known) {
        explain_globs(c, GLOBS_CHANGES, globs, NULL);
        return true;
    }
    return any_match(c, GLOBS_CHANGES, globs, c->in->changes, c->in->change_count, env);
}

/* What differs from a ref, asked for once. NULL: there is no such ref, which was reported. */
static const struct compared *compare(struct compile *c, const struct node *at, struct str ref)
{
    struct compared *new = &c->compared[c->compared_count];
    for (size_t i = 0; i < c->compared_count; i++) {
        if (str_eq(c->compared[i].ref, ref)) {
            return &c->compared[i];
        }
    }
    if (c->compared_count == LIMIT_COMPARED_REFS) {
        report(c, at, "limit", NULL, "`compare_to` names more than %u refs", LIMIT_COMPARED_REFS);
        return NULL;
    }
    *new = (struct compared){.ref = arena_str(c->arena, ref)};
    if (!compile_charge(c, QUESTION_WORK, at)) {
        return NULL;
    }
    if (ref.n == 0 || ref.n > LIMIT_NAME ||
        !c->in->compare(c->in->compare_ctx, new->ref, &new->paths, &new->count)) {
        report(c, at, "unknown-ref", "a branch, a tag or a commit of this repository",
               "`compare_to`: there is no ref `" STR_FMT "`", STR_ARG(ref));
        return NULL;
    }
    c->compared_count++;
    return new;
}

bool compared_hold(struct compile *c, const struct rule *rule, const struct vars *env)
{
    if (!c->in->compare) {
        explain_globs(c, GLOBS_COMPARED, &rule->changes, NULL);
        return true;
    }
    struct str ref = expand_text(c, env, rule->compare_to->text, 0);
    const struct compared *found = compare(c, rule->compare_to, ref);
    return found && any_match(c, GLOBS_COMPARED, &rule->changes, found->paths, found->count, env);
}

/* In another project: its files can be asked for by name only. */
static bool outer_file_exists(struct compile *c, const struct node *at,
                              const struct include_ref *ref)
{
    struct included file = {0};
    const char *why = NULL;
    int r = -E_UNSUPPORTED;
    if (c->includes == LIMIT_INCLUDES || !compile_charge(c, QUESTION_WORK, at)) {
        report(c, at, "limit", NULL, "more than %u included files", LIMIT_INCLUDES);
        return false;
    }
    c->includes++;
    if (c->in->include) {
        r = c->in->include(c->in->include_ctx, ref, &file, &why);
    }
    if (r < 0 && r != -E_NOT_FOUND) {
        report(c, at, r == -E_UNSUPPORTED ? "include-offline" : "include-failed", NULL,
               "`exists`: %s: %s", pipeline_include_name(c->arena, ref), why ? why : err_text(r));
    }
    return r == 0;
}

static bool outer_exist(struct compile *c, const struct rule *rule, const struct vars *env)
{
    struct include_ref ref = {.kind = INCLUDE_PROJECT, .ref = STR("")};
    ref.project = expand_text(c, env, rule->exists_project->text, 0);
    if (rule->exists_ref) {
        ref.ref = expand_text(c, env, rule->exists_ref->text, 0);
    }
    for (size_t i = 0; i < rule->exists.count; i++) {
        ref.name = expand_text(c, env, rule->exists.items[i], EXPAND_KEEP_UNKNOWN);
        while (str_starts(ref.name, STR("/"))) {
            ref.name = str_sub(ref.name, 1, ref.name.n);
        }
        bool pattern = false;
        for (size_t k = 0; k < ref.name.n; k++) {
            pattern |= memchr("*?[{", ref.name.p[k], 4) != NULL;
        }
        if (pattern) {
            report(c, rule->exists_project, "not-supported", "name the files one by one",
                   "`exists:project` knows whole paths only, found `" STR_FMT "`",
                   STR_ARG(ref.name));
            return false;
        }
        if (outer_file_exists(c, rule->exists_project, &ref)) {
            explain_globs(c, GLOBS_EXISTS, &rule->exists, &rule->exists.items[i]);
            return true;
        }
    }
    explain_globs(c, GLOBS_EXISTS, &rule->exists, NULL);
    return false;
}

bool exists_hold(struct compile *c, const struct rule *rule, const struct vars *env)
{
    return rule->exists_project
               ? outer_exist(c, rule, env)
               : any_match(c, GLOBS_EXISTS, &rule->exists, c->in->paths, c->in->path_count, env);
}
