#include "common/base.h"

#include "broker/store/memtable.h"

#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <utlist.h>

#define SPARE_STEP 64u

/* A key to be looked for: most keys differ in their first bytes already. */
struct probe {
    uint64_t head;
    struct str key;
};

static struct probe probe_of(struct str key)
{
    struct probe p = {.key = key};
    uint64_t head = 0;

    memcpy(&head, key.p, MIN(key.n, sizeof(head)));
    p.head = __builtin_bswap64(head);
    return p;
}

static uint64_t word(const char *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return __builtin_bswap64(w);
}

/* As LMDB orders them. Word by word: this is what a look-up consists of. */
static inline int compare(const struct mem_row *row, const struct probe *p)
{
    const char *a = mem_key(row).p;
    const char *b = p->key.p;
    const size_t n = MIN(row->key_n, p->key.n);
    size_t i = sizeof(uint64_t);
    int order = 0;

    if (row->head != p->head) {
        return row->head < p->head ? -1 : 1;
    }
    for (; i + sizeof(uint64_t) <= n; i += sizeof(uint64_t)) {
        const uint64_t x = word(a + i), y = word(b + i);
        if (x != y) {
            return x < y ? -1 : 1;
        }
    }
    if (i < n) {
        order = memcmp(a + i, b + i, n - i);
    }
    return order != 0 ? order : (row->key_n > p->key.n) - (row->key_n < p->key.n);
}

/* Memory that was given back, of one size: rows come and go by the million. */
struct mem_spare {
    struct mem_spare *next;
};

static size_t spare_class(size_t n)
{
    return (n + SPARE_STEP - 1) / SPARE_STEP;
}

static void *get(struct memtable *m, size_t n)
{
    const size_t class = spare_class(n);
    struct mem_spare *spare = class < MEM_SPARES ? m->spares[class] : NULL;

    if (spare == NULL) {
        return xmalloc(class * SPARE_STEP);
    }
    ASAN_UNPOISON_MEMORY_REGION(spare, class * SPARE_STEP);
    m->spares[class] = spare->next;
    return spare;
}

static void give_back(struct memtable *m, void *p, size_t n)
{
    const size_t class = spare_class(n);
    struct mem_spare *spare = p;

    if (p == NULL || class >= MEM_SPARES) {
        free(p);
        return;
    }
    spare->next = m->spares[class];
    m->spares[class] = spare;
    ASAN_POISON_MEMORY_REGION(spare, class * SPARE_STEP);
}

static void spares_free(struct memtable *m)
{
    for (size_t class = 0; class < MEM_SPARES; class ++) {
        while (m->spares[class] != NULL) {
            free(get(m, class * SPARE_STEP));
        }
    }
}

struct memtable *mem_new(void)
{
    struct memtable *m = xcalloc(1, sizeof(*m));

    m->random = 88172645463325252ull;
    return m;
}

static size_t row_bytes(uint8_t levels, size_t key_n)
{
    return sizeof(struct mem_row) + 2 * levels * sizeof(struct mem_row *) + key_n;
}

/* Where the place stands that points to the row, level by level. */
static struct mem_row ***links_of(struct mem_row *row)
{
    return (struct mem_row ***)&row->next[row->levels];
}

static void row_free(struct memtable *m, struct mem_row *row)
{
    give_back(m, row->value, row->cap);
    give_back(m, row, row_bytes(row->levels, row->key_n));
}

void mem_free(struct memtable *m)
{
    struct mem_row *row, *next;

    if (m == NULL) {
        return;
    }
    DL_FOREACH_SAFE2(m->oldest, row, next, newer)
    {
        row_free(m, row);
    }
    spares_free(m);
    free(m);
}

/* The first row that is not before the key, and where the levels point to what comes from there on.
 */
static struct mem_row *seek(struct mem_list *list, const struct probe *p,
                            struct mem_row **ret_links[MEM_LEVELS])
{
    struct mem_row **slots = list->first;
    struct mem_row *row = NULL;

    for (unsigned l = list->height; l-- > 0;) {
        while ((row = slots[l]) != NULL && compare(row, p) < 0) {
            slots = row->next;
        }
        ret_links[l] = &slots[l];
    }
    return row;
}

static struct mem_row *row_of_slots(struct mem_list *list, struct mem_row **slots)
{
    return slots == list->first
               ? NULL
               : (struct mem_row *)((char *)slots - offsetof(struct mem_row, next));
}

struct mem_row *mem_at_or_after(struct memtable *m, enum table t, struct str key)
{
    const struct probe p = probe_of(key);
    struct mem_row **links[MEM_LEVELS];

    return seek(&m->lists[t], &p, links);
}

struct mem_row *mem_find(struct memtable *m, enum table t, struct str key)
{
    struct mem_list *list = &m->lists[t];
    const struct probe p = probe_of(key);
    struct mem_row **slots = list->first;

    for (unsigned l = list->height; l-- > 0;) {
        for (struct mem_row *row = slots[l]; row != NULL; row = slots[l]) {
            const int order = compare(row, &p);
            if (order == 0) {
                return row;
            }
            if (order > 0) {
                break;
            }
            slots = row->next;
        }
    }
    return NULL;
}

struct mem_row *mem_before(struct memtable *m, enum table t, struct str key)
{
    struct mem_list *list = &m->lists[t];
    const struct probe p = probe_of(key);
    struct mem_row **links[MEM_LEVELS];

    if (list->height == 0) {
        return NULL;
    }
    seek(list, &p, links);
    return row_of_slots(list, links[0]);
}

struct mem_row *mem_previous(struct memtable *m, const struct mem_row *row)
{
    return row_of_slots(&m->lists[row->table], links_of((struct mem_row *)row)[0]);
}

static uint8_t random_levels(struct memtable *m)
{
    const unsigned most = MEM_LEVELS - 1;

    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (uint8_t)(1 + MIN((unsigned)__builtin_ctzll(m->random) / 2, most));
}

static struct mem_row *row_new(struct memtable *m, enum table t, const struct probe *p)
{
    const uint8_t levels = random_levels(m);
    struct mem_row *row = get(m, row_bytes(levels, p->key.n));

    *row = (struct mem_row){.head = p->head,
                            .table = t,
                            .state = MEM_CLEAN,
                            .below = BELOW_YES,
                            .levels = levels,
                            .key_n = (uint16_t)p->key.n};
    memcpy(&row->next[2 * levels], p->key.p, p->key.n);
    return row;
}

static void link_row(struct mem_list *list, struct mem_row *row, struct mem_row ***links)
{
    for (unsigned l = 0; l < row->levels; l++) {
        row->next[l] = *links[l];
        links_of(row)[l] = links[l];
        *links[l] = row;
        if (row->next[l] != NULL) {
            links_of(row->next[l])[l] = &row->next[l];
        } else {
            list->ends[l] = &row->next[l];
        }
    }
    list->last = row->next[0] == NULL ? row : list->last;
}

static void unlink_row(struct mem_list *list, struct mem_row *row)
{
    for (unsigned l = 0; l < row->levels; l++) {
        struct mem_row **link = links_of(row)[l];
        *link = row->next[l];
        if (row->next[l] != NULL) {
            links_of(row->next[l])[l] = link;
        } else {
            list->ends[l] = link;
        }
    }
    if (list->last == row) {
        list->last = row_of_slots(list, links_of(row)[0]);
    }
    while (list->height > 0 && list->first[list->height - 1] == NULL) {
        list->height--;
    }
}

struct mem_row *mem_open(struct memtable *m, enum table t, struct str key)
{
    struct mem_list *list = &m->lists[t];
    const struct probe p = probe_of(key);
    struct mem_row **links[MEM_LEVELS];
    struct mem_row *row;

    if (list->last != NULL && compare(list->last, &p) < 0) { /* most keys grow */
        memcpy(links, list->ends, sizeof(links));
        row = NULL;
    } else {
        row = seek(list, &p, links);
    }
    if (row != NULL && compare(row, &p) == 0) {
        return row;
    }
    row = row_new(m, t, &p);
    for (; list->height < row->levels; list->height++) {
        links[list->height] = &list->first[list->height];
    }
    link_row(list, row, links);
    DL_APPEND2(m->oldest, row, older, newer);
    m->count++;
    return row;
}

void mem_drop(struct memtable *m, struct mem_row *row)
{
    mem_set_state(m, row, MEM_CLEAN, BELOW_YES); /* which counts for nothing */
    unlink_row(&m->lists[row->table], row);
    DL_DELETE2(m->oldest, row, older, newer);
    m->count--;
    row_free(m, row);
}

static int more(const struct mem_row *row)
{
    return (row->state == MEM_PUT && row->below == BELOW_NO) -
           (row->state == MEM_GONE && row->below == BELOW_YES);
}

static unsigned unknown(const struct mem_row *row)
{
    return row->state == MEM_PUT && row->below == BELOW_UNKNOWN;
}

void mem_set_state(struct memtable *m, struct mem_row *row, enum mem_state state,
                   enum mem_below below)
{
    struct mem_list *list = &m->lists[row->table];

    list->more -= more(row);
    list->unknown -= unknown(row);
    row->state = (uint8_t)state;
    row->below = (uint8_t)below;
    list->more += more(row);
    list->unknown += unknown(row);
}

void mem_touch(struct memtable *m, struct mem_row *row)
{
    DL_DELETE2(m->oldest, row, older, newer);
    DL_APPEND2(m->oldest, row, older, newer);
}

void mem_set_bytes(struct memtable *m, struct mem_row *row, struct str bytes)
{
    void *old = NULL;
    const size_t old_cap = row->cap;

    if (bytes.n > row->cap) {
        old = row->value;
        row->value = get(m, bytes.n);
        row->cap = spare_class(bytes.n) * SPARE_STEP;
    }
    if (bytes.n > 0) {
        memmove(row->value, bytes.p, bytes.n);
    }
    row->n = bytes.n;
    row->is_message = false;
    give_back(m, old, old_cap);
}

void mem_set_message(struct memtable *m, struct mem_row *row, const ProtobufCMessage *message,
                     size_t n)
{
    if (n > row->cap) {
        give_back(m, row->value, row->cap);
        row->value = get(m, n);
        row->cap = spare_class(n) * SPARE_STEP;
    }
    pb_block_make(message, row->value);
    row->n = n;
    row->is_message = true;
}

void mem_clear_value(struct memtable *m, struct mem_row *row)
{
    give_back(m, row->value, row->cap);
    row->value = NULL;
    row->n = row->cap = 0;
    row->is_message = false;
}
