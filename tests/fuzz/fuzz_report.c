/* What a job writes into its dotenv reports and its log. */
#include "common/base.h"

#include "common/limits.h"
#include "tests/fuzz/fuzz.h"
#include "worker/step/coverage.h"
#include "worker/step/dotenv.h"

static void read_dotenv(struct arena *arena, struct str text)
{
    struct vars vars;
    struct dotenv_mistake mistake = {0};
    vars_init(&vars, arena);
    if (dotenv_parse(text, &vars, &mistake) < 0) {
        check(mistake.line > 0 && mistake.reason != NULL);
    }
    check(vars.count <= LIMIT_DOTENV_VARIABLES);
    for (size_t i = 0; i < vars.count; i++) {
        check(var_name_valid(vars.items[i].name) && str_is_utf8(vars.items[i].value, NULL));
    }
}

static void read_log(struct arena *arena, struct str text)
{
    struct regex *re;
    struct coverage c;
    const char *reason;
    size_t at;
    check(regex_compile(arena, STR("\\d+%?"), STR_NULL, &re, &reason, &at) == 0);
    coverage_init(&c, re);
    coverage_add(&c, str_sub(text, 0, text.n / 2));
    coverage_add(&c, str_sub(text, text.n / 2, text.n));
    coverage_end(&c);
    check(c.line.n == 0);
    coverage_release(&c);
}

void fuzz_one(const uint8_t *p, size_t n)
{
    struct arena arena;
    arena_init(&arena, 0);
    read_dotenv(&arena, str_of(p, n));
    read_log(&arena, str_of(p, n));
    arena_release(&arena);
}
