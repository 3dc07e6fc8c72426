/* NAME=VALUE lines (!NAME=VALUE is raw): all expanded at once, and one by one when they are asked
 * for, must be the same. */
#include "common/base.h"

#include "common/err.h"
#include "common/expand.h"
#include "common/limits.h"
#include "tests/fuzz/fuzz.h"

static void set_lines(struct vars *vars, struct str text)
{
    struct str line;
    while (vars->count < LIMIT_VARIABLES && str_split(&text, '\n', &line)) {
        struct str name;
        bool raw = str_starts(line, STR("!"));
        line = str_sub(line, raw, line.n);
        if (str_split(&line, '=', &name)) {
            vars_set(vars, (struct var){.name = name, .value = line, .raw = raw});
        }
    }
}

void fuzz_one(const uint8_t *p, size_t n)
{
    struct arena arena;
    struct vars raw;
    struct vars all;
    struct vars layer;
    unsigned flags = n > 0 ? p[0] & 15u : 0;
    arena_init(&arena, 0);
    vars_init(&raw, &arena);
    vars_init(&all, &arena);
    set_lines(&raw, str_of(p, n));
    set_lines(&all, str_of(p, n));
    vars_layer(&layer, &arena, &raw, flags);
    int r = vars_expand_all_with(&all, flags);
    check(r == 0 || r == -E_LIMIT);
    for (size_t i = raw.count; i > 0; i--) { /* in another order */
        const struct var *one = vars_get(&layer, raw.items[i - 1].name);
        check(one);
        check(r < 0 || vars_failed(&layer) || str_eq(one->value, all.items[i - 1].value));
    }
    check(r < 0 || !vars_failed(&layer));
    arena_release(&arena);
}
