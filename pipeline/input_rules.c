/* spec:inputs:NAME:rules: options and a default that depend on the values of other inputs. */
#include "common/base.h"

#include "pipeline/block.h"
#include "pipeline/front.h"

/* No variable of a user has this name: expressions see nothing else here. */
#define VARIABLE "davit_input_%zu"

struct str input_expression(struct compile *c, struct str text, const struct node *values,
                            struct vars *env, const struct node *at)
{
    struct buf out = BUF_INIT;
    struct str rest = text;
    struct str before;
    struct str inside;
    while (block_next(&rest, &before, &inside)) {
        struct str path = str_trim(inside);
        struct str name = str_starts(path, STR("inputs.")) ? str_sub(path, 7, path.n) : STR_NULL;
        const struct pair *p = node_find(values, name);
        const char *variable = arena_printf(c->arena, VARIABLE, env->count);
        struct buf value = BUF_INIT;
        if (name.n == 0) {
            report(c, at, "interpolation", "$[[ inputs.name ]]", "`" STR_FMT "` names no input",
                   STR_ARG(path));
        } else if (p && !node_is_null(p->value)) { /* else it is null, as an unknown variable is */
            value_text(&value, p->value);
            vars_set(env, (struct var){
                              .name = str_from(variable), .value = buf_str(&value), .raw = true});
        }
        buf_add_str(&out, before);
        buf_addf(&out, "$%s", variable);
        buf_release(&value);
    }
    buf_add_str(&out, rest);
    struct str made = arena_str(c->arena, buf_str(&out));
    buf_release(&out);
    return made;
}

static bool holds(struct compile *c, const struct node *n, const struct node *values)
{
    struct vars env;
    struct str text;
    struct expr *e = NULL;
    struct expr_error error;
    struct expr_value value;
    if (!read_text(c, n, "if", &text) || !compile_charge(c, 1 + text.n / 16, n)) {
        return false;
    }
    vars_init(&env, c->arena);
    text = input_expression(c, text, values, &env, n);
    if (text.n > LIMIT_EXPRESSION || expr_parse(c->arena, text, &e, &error) < 0) {
        report(c, n, "bad-expression", NULL, "%s",
               text.n > LIMIT_EXPRESSION ? "the expression is too long" : error.message);
        return false;
    }
    if (expr_evaluate(e, &env, &value) < 0) {
        report(c, n, "regex-limit", NULL, "a regular expression takes too long");
        return false;
    }
    return expr_holds(value);
}

const struct node *input_rule(struct compile *c, const struct node *rules,
                              const struct node *values)
{
    const struct node *found = NULL;
    if (rules->kind != NODE_LIST) {
        report(c, rules, "wrong-type", NULL, "`rules` must be a list, found %s", node_what(rules));
        return NULL;
    }
    for (uint32_t i = 0; i < rules->count && compile_charge(c, 1, rules); i++) {
        const struct node *rule = rules->items[i];
        const struct node *condition = node_get(rule, "if");
        /* All are read, so that all mistakes show. */
        bool fits = read_keys(c, rule, SCOPE_INPUT_RULE, "rules") &&
                    (node_is_null(condition) || holds(c, condition, values));
        found = found ? found : fits ? rule : NULL;
    }
    return found;
}
