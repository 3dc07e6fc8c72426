#include "common/base.h"

#include "pipeline/node.h"

#define INDEX_FROM 17u /* pairs; below that a walk is as fast */

struct node *node_new(struct arena *a, enum node_kind kind, const struct node *at)
{
    struct node *n = arena_alloc(a, sizeof(*n));
    n->kind = kind;
    n->file = at ? at->file : "";
    n->line = at ? at->line : 0;
    n->column = at ? at->column : 0;
    n->length = at ? at->length : 0;
    n->end_line = at ? at->end_line : 0;
    n->end_column = at ? at->end_column : 0;
    n->weight = 1;
    return n;
}

struct node *node_text(struct arena *a, struct str text, const struct node *at)
{
    struct node *n = node_new(a, NODE_SCALAR, at);
    n->type = SCALAR_STRING;
    n->text = text;
    return n;
}

/* Seeded with the address of the mapping, so that no file can be made of keys that collide. */
static uint32_t hash_text(const struct node *m, struct str s)
{
    return str_hash(s, (uintptr_t)m);
}

static void index_put(struct node *m, uint32_t place)
{
    uint32_t i = hash_text(m, m->pairs[place].key->text) & (m->slot_count - 1);
    while (m->slots[i] != 0) {
        i = (i + 1) & (m->slot_count - 1);
    }
    m->slots[i] = place + 1;
}

static void index_grow(struct arena *a, struct node *m)
{
    m->slot_count = 4;
    while (m->slot_count < 2 * m->cap) {
        m->slot_count *= 2;
    }
    m->slots = arena_array(a, m->slot_count, sizeof(*m->slots));
    for (uint32_t i = 0; i < m->count; i++) {
        index_put(m, i);
    }
}

void node_append(struct arena *a, struct node *list, const struct node *item)
{
    check(list->kind == NODE_LIST);
    if (list->count == list->cap) {
        list->cap = list->cap == 0 ? 4 : 2 * list->cap;
        const struct node **items = arena_array(a, list->cap, sizeof(*items));
        if (list->count > 0) {
            memcpy(items, list->items, list->count * sizeof(*items));
        }
        list->items = items;
    }
    list->items[list->count++] = item;
    list->weight += item->weight;
    list->has_reference |= item->has_reference;
    list->has_block |= item->has_block;
}

static void mapping_grow(struct arena *a, struct node *m, uint32_t cap)
{
    m->cap = cap;
    struct pair *pairs = arena_array(a, m->cap, sizeof(*pairs));
    if (m->count > 0) {
        memcpy(pairs, m->pairs, m->count * sizeof(*pairs));
    }
    m->pairs = pairs;
    if (m->cap >= INDEX_FROM) {
        index_grow(a, m);
    }
}

void node_reserve(struct arena *a, struct node *mapping, uint32_t count)
{
    check(mapping->kind == NODE_MAPPING);
    if (count > mapping->cap) {
        mapping_grow(a, mapping, count);
    }
}

/* A key that the mapping does not have. */
static void add_pair(struct arena *a, struct node *mapping, const struct node *key,
                     const struct node *value)
{
    if (mapping->count == mapping->cap) {
        mapping_grow(a, mapping, mapping->cap == 0 ? 4 : 2 * mapping->cap);
    }
    mapping->pairs[mapping->count++] = (struct pair){.key = key, .value = value};
    mapping->weight += key->weight + value->weight;
    mapping->has_reference |= value->has_reference;
    mapping->has_block |= key->has_block || value->has_block;
    if (mapping->slots) {
        index_put(mapping, mapping->count - 1);
    }
}

void node_set(struct arena *a, struct node *mapping, const struct node *key,
              const struct node *value)
{
    check(mapping->kind == NODE_MAPPING);
    check(key->kind == NODE_SCALAR);
    struct pair *old = node_find(mapping, key->text);
    if (old) {
        mapping->weight = mapping->weight - old->value->weight + value->weight;
        mapping->has_reference |= value->has_reference;
        mapping->has_block |= key->has_block || value->has_block;
        *old = (struct pair){.key = key, .value = value};
        return;
    }
    add_pair(a, mapping, key, value);
}

struct pair *node_find(const struct node *mapping, struct str key)
{
    if (!mapping || mapping->kind != NODE_MAPPING) {
        return NULL;
    }
    if (!mapping->slots) {
        for (uint32_t i = 0; i < mapping->count; i++) {
            if (str_eq(mapping->pairs[i].key->text, key)) {
                return &mapping->pairs[i];
            }
        }
        return NULL;
    }
    uint32_t i = hash_text(mapping, key) & (mapping->slot_count - 1);
    for (; mapping->slots[i] != 0; i = (i + 1) & (mapping->slot_count - 1)) {
        struct pair *pair = &mapping->pairs[mapping->slots[i] - 1];
        if (str_eq(pair->key->text, key)) {
            return pair;
        }
    }
    return NULL;
}

const struct node *node_get(const struct node *mapping, const char *key)
{
    struct pair *pair = node_find(mapping, str_from(key));
    return pair ? pair->value : NULL;
}

bool node_is_null(const struct node *n)
{
    return !n || n->reference || (n->kind == NODE_SCALAR && n->type == SCALAR_NULL);
}

bool node_is_string(const struct node *n)
{
    return n && n->kind == NODE_SCALAR && n->type == SCALAR_STRING;
}

struct diag_at node_at(const struct node *n)
{
    if (!n) {
        return (struct diag_at){.file = ""};
    }
    return (struct diag_at){.file = n->file,
                            .line = n->line,
                            .column = n->column,
                            .length = n->length,
                            .end_line = n->end_line,
                            .end_column = n->end_column};
}

const char *node_what(const struct node *n)
{
    static const char *const scalars[] = {
        [SCALAR_NULL] = "nothing",   [SCALAR_BOOL] = "a boolean", [SCALAR_INT] = "a number",
        [SCALAR_FLOAT] = "a number", [SCALAR_STRING] = "a text",
    };
    if (!n) {
        return "nothing";
    }
    if (n->reference) {
        return "a !reference";
    }
    if (n->kind == NODE_SCALAR) {
        return scalars[n->type];
    }
    return n->kind == NODE_LIST ? "a list" : "a mapping";
}

/* Recurses as deep as the two files are nested, which the reader bounds. */
void node_merge_into(struct arena *a, struct node *into, const struct node *over, size_t *work)
{
    check(into->kind == NODE_MAPPING && over->kind == NODE_MAPPING);
    for (uint32_t i = 0; i < over->count; i++) {
        const struct pair *p = &over->pairs[i];
        *work += p->key->weight;
        struct pair *old = node_find(into, p->key->text);
        if (old) {
            node_set(a, into, p->key, node_merge(a, old->value, p->value, work));
        } else {
            add_pair(a, into, p->key, p->value);
        }
    }
}

struct node *node_copy(struct arena *a, const struct node *mapping, uint32_t more, size_t *work)
{
    struct node *copy = node_new(a, NODE_MAPPING, mapping);
    check(mapping->kind == NODE_MAPPING);
    node_reserve(a, copy, mapping->count + more);
    for (uint32_t i = 0; i < mapping->count; i++) {
        *work += mapping->pairs[i].key->weight;
        add_pair(a, copy, mapping->pairs[i].key, mapping->pairs[i].value);
    }
    return copy;
}

const struct node *node_merge(struct arena *a, const struct node *base, const struct node *over,
                              size_t *work)
{
    if (!base || base->kind != NODE_MAPPING || over->kind != NODE_MAPPING) {
        return over;
    }
    struct node *m = node_copy(a, base, over->count, work);
    m->file = over->file;
    m->line = over->line;
    m->column = over->column;
    m->length = over->length;
    node_merge_into(a, m, over, work);
    return m;
}

static struct memo_entry *memo_slot(const struct memo *m, const struct node *n)
{
    uint32_t i = (uint32_t)((uintptr_t)n >> 4) * 2654435761u & (m->cap - 1);
    while (m->entries[i].node && m->entries[i].node != n) {
        i = (i + 1) & (m->cap - 1);
    }
    return &m->entries[i];
}

void *memo_get(const struct memo *m, const struct node *n)
{
    return m->cap > 0 ? memo_slot(m, n)->made : NULL;
}

void memo_set(struct arena *a, struct memo *m, const struct node *n, void *made)
{
    if (2 * m->count >= m->cap) {
        struct memo old = *m;
        m->cap = MAX(2 * old.cap, 64u);
        m->entries = arena_array(a, m->cap, sizeof(*m->entries));
        for (uint32_t i = 0; i < old.cap; i++) {
            if (old.entries[i].node) {
                *memo_slot(m, old.entries[i].node) = old.entries[i];
            }
        }
    }
    m->count++;
    *memo_slot(m, n) = (struct memo_entry){.node = n, .made = made};
}
