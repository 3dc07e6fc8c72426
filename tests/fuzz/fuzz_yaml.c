/* A YAML file of a stranger: the reader alone. */
#include "common/base.h"

#include "common/limits.h"
#include "pipeline/yaml.h"
#include "tests/fuzz/fuzz.h"

/* Recurses as deep as the reader lets files be. */
static void check_node(const struct node *n, unsigned depth)
{
    check(depth <= LIMIT_YAML_DEPTH);
    check(n->weight > 0 && !n->open);
    for (uint32_t i = 0; i < n->count; i++) {
        if (n->kind == NODE_LIST) {
            check_node(n->items[i], depth + 1);
        } else {
            const struct pair *p = &n->pairs[i];
            check(p->key->kind == NODE_SCALAR);
            check(node_find(n, p->key->text) == p);
            check_node(p->value, depth + 1);
        }
    }
}

void fuzz_one(const uint8_t *p, size_t n)
{
    struct arena arena;
    struct diags diags;
    struct yaml_file file = {0};
    arena_init(&arena, 0);
    diags_init(&diags);
    int r = yaml_read(&arena, "fuzz.yml", str_of(p, n), &diags, &file);
    check(r == 0 ? diags.errors == 0 : diags.errors > 0);
    if (file.body) {
        check_node(file.body, 0);
    }
    if (file.header) {
        check_node(file.header, 0);
    }
    diags_release(&diags);
    arena_release(&arena);
}
