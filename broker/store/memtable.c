#include "common/base.h"

#include "broker/store/memtable.h"

#include <stdlib.h>
#include <utlist.h>

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

/* As LMDB orders them. */
static int compare(const struct mem_row *row, const struct probe *p)
{
    if (row->head != p->head) {
        return row->head < p->head ? -1 : 1;
    }
    return str_cmp(mem_key(row), p->key);
}

struct memtable *mem_new(void)
{
    struct memtable *m = xcalloc(1, sizeof(*m));

    m->random = 88172645463325252ull;
    return m;
}

static void row_free(struct mem_row *row)
{
    free(row->value);
    free(row);
}

void mem_free(struct memtable *m)
{
    struct mem_row *row, *next;

    if (m == NULL) {
        return;
    }
    DL_FOREACH_SAFE2(m->oldest, row, next, newer)
    {
        row_free(row);
    }
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
    struct mem_row *row = xmalloc(sizeof(*row) + levels * sizeof(row->next[0]) + p->key.n);

    *row = (struct mem_row){.head = p->head,
                            .table = t,
                            .state = MEM_CLEAN,
                            .below = BELOW_YES,
                            .levels = levels,
                            .key_n = (uint16_t)p->key.n};
    memcpy(&row->next[levels], p->key.p, p->key.n);
    return row;
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
    for (unsigned l = 0; l < row->levels; l++) {
        row->next[l] = *links[l];
        *links[l] = row;
        list->ends[l] = row->next[l] == NULL ? &row->next[l] : list->ends[l];
    }
    list->last = row->next[0] == NULL ? row : list->last;
    DL_APPEND2(m->oldest, row, older, newer);
    m->count++;
    return row;
}

void mem_drop(struct memtable *m, struct mem_row *row)
{
    struct mem_list *list = &m->lists[row->table];
    const struct probe p = {.head = row->head, .key = mem_key(row)};
    struct mem_row **links[MEM_LEVELS];

    check(seek(list, &p, links) == row);
    mem_set_state(m, row, MEM_CLEAN, BELOW_YES); /* which counts for nothing */
    for (unsigned l = 0; l < row->levels; l++) {
        *links[l] = row->next[l];
        list->ends[l] = row->next[l] == NULL ? links[l] : list->ends[l];
    }
    if (list->last == row) {
        list->last = row_of_slots(list, links[0]);
    }
    while (list->height > 0 && list->first[list->height - 1] == NULL) {
        list->height--;
    }
    DL_DELETE2(m->oldest, row, older, newer);
    m->count--;
    row_free(row);
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

/* Room for n bytes; what was there is lost. The old room is returned if it is another. */
static void *make_room(struct mem_row *row, size_t n)
{
    void *old = NULL;

    if (n > row->cap) {
        old = row->value;
        row->value = xmalloc(n);
        row->cap = n;
    }
    row->n = n;
    return old;
}

void mem_set_bytes(struct mem_row *row, struct str bytes)
{
    void *old = make_room(row, bytes.n);

    if (bytes.n > 0) {
        memmove(row->value, bytes.p, bytes.n);
    }
    row->is_message = false;
    free(old);
}

void mem_set_message(struct mem_row *row, const ProtobufCMessage *m, size_t n)
{
    free(make_room(row, n));
    pb_block_make(m, row->value);
    row->is_message = true;
}

void mem_clear_value(struct mem_row *row)
{
    free(row->value);
    row->value = NULL;
    row->n = row->cap = 0;
    row->is_message = false;
}
