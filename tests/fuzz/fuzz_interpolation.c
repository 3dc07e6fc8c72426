/* A file with blocks ($[[ inputs.NAME | function ]]) over inputs of every type: it must become a
 * tree without blocks of inputs, or an error. */
#include "common/base.h"

#include "common/limits.h"
#include "pipeline/front.h"
#include "pipeline/yaml.h"
#include "tests/fuzz/fuzz.h"

static const char inputs_text[] = "text: \"a b $VAR ${OTHER} '\\\" c\"\n"
                                  "number: 12\n"
                                  "flag: true\n"
                                  "list: [one, {two: 3}, [4]]\n"
                                  "block: \"$[[ inputs.text ]]\"\n"
                                  "empty: \"\"\n";

static const struct node *read(struct compile *c, const char *file, struct str text)
{
    struct yaml_file yaml = {0};
    return yaml_read(c->arena, file, text, c->diags, &yaml) == 0 ? yaml.body : NULL;
}

void fuzz_one(const uint8_t *p, size_t n)
{
    struct arena arena;
    struct diags diags;
    struct pipeline_input in = {.file = "fuzz.yml", .text = str_of(p, n)};
    struct compile c = {.arena = &arena, .in = &in, .diags = &diags};
    struct vars env;
    arena_init(&arena, 0);
    diags_init(&diags);
    vars_init(&env, &arena);
    vars_set(&env, (struct var){.name = STR("VAR"), .value = STR("value")});
    c.outer = env;
    struct names names = {.inputs = read(&c, "inputs.yml", STR(inputs_text))};
    check(names.inputs);
    const struct node *body = read(&c, in.file, in.text);
    if (body) {
        const struct node *made = interpolate(&c, body, &names);
        check(made || diags.errors > 0);
        struct buf out;
        buf_init(&out, LIMIT_YAML_BYTES);
        if (made) {
            value_text(&out, made);
        }
        buf_release(&out);
    }
    interpolate_call_valid(str_of(p, n));
    diags_release(&diags);
    arena_release(&arena);
}
