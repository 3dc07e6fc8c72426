/* An expression of rules:if in the first line; NAME=VALUE in the others. */
#include "common/base.h"

#include "pipeline/expr.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(const uint8_t *p, size_t n)
{
    struct arena arena;
    struct vars vars;
    struct str rest = str_of(p, n);
    struct str text = STR("");
    struct str line;
    struct expr *e = NULL;
    struct expr_error error = {0};
    struct expr_value v = {0};
    arena_init(&arena, 0);
    vars_init(&vars, &arena);
    str_split(&rest, '\n', &text);
    while (str_split(&rest, '\n', &line)) {
        struct str name;
        if (str_split(&line, '=', &name)) {
            vars_set(&vars, (struct var){.name = name, .value = line});
        }
    }
    if (expr_parse(&arena, text, &e, &error) < 0) {
        check(error.message && error.at <= text.n);
    } else if (expr_evaluate(e, &vars, &v) == 0) {
        check(v.kind == EXPR_TEXT || v.text.n == 0);
        expr_holds(v);
    }
    arena_release(&arena);
}
