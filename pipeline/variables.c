#include "common/base.h"

#include "pipeline/compile.h"

/* Variables with a list of options must have one of them as their value. */
static void check_options(struct compile *c, const struct node *n, struct str value)
{
    struct texts options = {0};
    if (!read_texts(c, n, (struct read_texts){.what = "options"}, &options)) {
        return;
    }
    for (size_t i = 0; i < options.count; i++) {
        if (str_eq(options.items[i], value)) {
            return;
        }
    }
    report(c, n, "bad-value", NULL, "the value `" STR_FMT "` is none of the `options`",
           STR_ARG(value));
}

static void read_long_form(struct compile *c, const struct node *n, enum scope scope,
                           struct var *var)
{
    if (!read_keys(c, n, scope, "variables")) {
        return;
    }
    const struct node *value = node_get(n, "value");
    const struct node *description = node_get(n, "description");
    const struct node *expand = node_get(n, "expand");
    const struct node *options = node_get(n, "options");
    struct str text;
    bool b = true;
    if (!node_is_null(value)) {
        read_text(c, value, "value", &var->value);
    }
    if (!node_is_null(description)) {
        read_text(c, description, "description", &text);
    }
    if (!node_is_null(expand) && read_bool(c, expand, "expand", &b)) {
        var->raw = !b;
    }
    if (!node_is_null(options) && scope == SCOPE_VARIABLE) {
        if (node_is_null(value)) {
            report(c, n, "missing-key", NULL, "a variable with `options` needs a `value` of them");
        } else {
            check_options(c, options, var->value);
        }
    }
}

bool read_variables(struct compile *c, const struct node *n, enum scope scope,
                    struct variables *ret)
{
    size_t errors = c->diags->errors;
    if (n->kind != NODE_MAPPING) {
        report(c, n, "wrong-type", "variables: { NAME: value }",
               "`variables` must be a mapping of names to values, found %s", node_what(n));
        return false;
    }
    if (n->count > LIMIT_VARIABLES) {
        report(c, n, "limit", NULL, "more than %u variables", LIMIT_VARIABLES);
        return false;
    }
    struct variables v = {.at = n, .items = arena_array(c->arena, n->count + 1, sizeof(*v.items))};
    for (uint32_t i = 0; i < n->count && compile_charge(c, 1, n); i++) {
        const struct pair *p = &n->pairs[i];
        struct var *var = &v.items[v.count++];
        *var = (struct var){.name = p->key->text, .value = STR("")};
        if (!var_name_valid(var->name)) {
            report(c, p->key, "bad-variable-name", NULL,
                   "`" STR_FMT "` is no name for a variable: letters, digits and _, no digit first",
                   STR_ARG(var->name));
        } else if (p->value->kind == NODE_MAPPING) {
            read_long_form(c, p->value, scope, var);
        } else if (!node_is_null(p->value)) {
            read_text(c, p->value, "variables", &var->value);
        }
        if (var->value.n > LIMIT_VARIABLE_VALUE) {
            report(c, p->key, "limit", NULL, "the value has more than %u bytes",
                   LIMIT_VARIABLE_VALUE);
        }
    }
    *ret = v;
    return c->diags->errors == errors;
}

void set_all(struct vars *env, const struct var *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        vars_set(env, items[i]);
    }
}

void expand_all(struct compile *c, struct vars *env, const struct node *at)
{
    if (vars_expand_all(env) < 0) {
        report(c, at, "limit", NULL, "a variable has more than %u bytes once it is expanded",
               LIMIT_EXPANDED_VALUE);
    }
}

struct str expand_text(struct compile *c, const struct vars *env, struct str text, unsigned flags)
{
    struct buf out;
    if (str_chr(text, '$') < 0) {
        return text;
    }
    buf_init(&out, LIMIT_EXPANDED_VALUE);
    bool ok = vars_expand_with(env, text, flags, &out) == 0;
    if (!ok) {
        report(c, NULL, "limit", NULL, "`" STR_FMT "` has more than %u bytes once it is expanded",
               STR_ARG(text), LIMIT_EXPANDED_VALUE);
    }
    struct str result = ok ? arena_str(c->arena, buf_str(&out)) : text;
    buf_release(&out);
    return result;
}
