#include "common/base.h"

#include "common/mask.h"

#include <stdlib.h>

#include "common/limits.h"

#define ROOT      0u
#define SKIPS_MAX 3u /* "\r\n " */

/* A prefix of some pattern. */
struct node {
    uint32_t child;   /* the first one; 0: none */
    uint32_t sibling; /* 0: the last */
    uint32_t fail;    /* the longest suffix that is a prefix, too */
    uint32_t depth;
    uint32_t hit; /* bytes of the longest pattern that ends here; 0: none */
    uint8_t byte; /* from the parent to here */
};

struct machine {
    struct node *nodes; /* [0] is the root */
    size_t count;
    size_t cap;
    uint32_t first[256]; /* the root's children */
    uint32_t state;
    size_t longest;
    /* MASK_WRAPPED: where the last bytes stood that were not skipped. */
    uint64_t *places; /* [seen % longest] */
    uint64_t seen;
    unsigned skips; /* in a row */
};

/* Bytes from..to of the stream are of secrets. */
struct run {
    uint64_t from;
    uint64_t to;
    bool said; /* MASK_TEXT was written for it */
};

struct mask {
    struct machine machines[MASK_KINDS];
    size_t node_count;
    bool ready;
    struct buf held;    /* what was not written yet */
    uint64_t held_from; /* the stream's position of its first byte */
    struct run *runs;   /* in order, apart */
    size_t run_count;
    size_t run_cap;
};

struct mask *mask_new(void)
{
    struct mask *m = xcalloc(1, sizeof(*m));

    for (size_t i = 0; i < MASK_KINDS; i++) {
        m->machines[i].nodes = xcalloc(1, sizeof(struct node));
        m->machines[i].count = m->machines[i].cap = 1;
    }
    return m;
}

/* Not OPENSSL_cleanse, which the shim does not have: the compiler cannot see through the pointer.
 */
static void wipe(void *p, size_t n)
{
    void *(*const volatile set)(void *, int, size_t) = memset;

    if (n > 0) {
        set(p, 0, n);
    }
}

void mask_free(struct mask *m)
{
    if (m == NULL) {
        return;
    }
    for (size_t i = 0; i < MASK_KINDS; i++) {
        struct machine *a = &m->machines[i];
        wipe(a->nodes, a->cap * sizeof(*a->nodes));
        free(a->nodes);
        free(a->places);
    }
    wipe(m->held.p, m->held.cap);
    buf_release(&m->held);
    free(m->runs);
    free(m);
}

/* --- the patterns --- */

static uint32_t child_of(const struct machine *a, uint32_t at, uint8_t byte)
{
    uint32_t n = at == ROOT ? a->first[byte] : a->nodes[at].child;

    while (at != ROOT && n != 0 && a->nodes[n].byte != byte) {
        n = a->nodes[n].sibling;
    }
    return n;
}

static uint32_t add_child(struct machine *a, uint32_t at, uint8_t byte)
{
    const uint32_t new = (uint32_t)a->count;

    if (a->count == a->cap) {
        struct node *grown = xcalloc(2 * a->cap, sizeof(*grown));
        memcpy(grown, a->nodes, a->count * sizeof(*grown));
        wipe(a->nodes, a->count * sizeof(*grown));
        free(a->nodes);
        a->nodes = grown;
        a->cap *= 2;
    }
    a->nodes[new] = (struct node){
        .sibling = a->nodes[at].child, .depth = a->nodes[at].depth + 1, .byte = byte};
    a->nodes[at].child = new;
    if (at == ROOT) {
        a->first[byte] = new;
    }
    a->count++;
    return new;
}

int mask_add(struct mask *m, enum mask_kind kind, struct str pattern)
{
    struct machine *a = &m->machines[kind];
    uint32_t at = ROOT;

    check(!m->ready && kind < MASK_KINDS);
    if (pattern.n > LIMIT_MASK_BYTES - m->node_count) {
        return -E_LIMIT;
    }
    if (pattern.n == 0) {
        return 0;
    }
    for (size_t i = 0; i < pattern.n; i++) {
        const uint8_t byte = (uint8_t)pattern.p[i];
        const uint32_t next = child_of(a, at, byte);
        m->node_count += next == 0;
        at = next != 0 ? next : add_child(a, at, byte);
    }
    a->nodes[at].hit = a->nodes[at].depth;
    a->longest = MAX(a->longest, pattern.n);
    return 0;
}

bool mask_is_empty(const struct mask *m)
{
    return m->node_count == 0;
}

static uint32_t next_of(const struct machine *a, uint32_t at, uint8_t byte)
{
    for (;;) {
        const uint32_t next = child_of(a, at, byte);
        if (next != 0 || at == ROOT) {
            return next;
        }
        at = a->nodes[at].fail;
    }
}

/* By depth, so that what a node falls back to is ready before it. */
static void link_nodes(struct machine *a)
{
    uint32_t *queue = xcalloc(a->count, sizeof(*queue));
    size_t end = 1;

    for (size_t i = 0; i < end; i++) {
        const uint32_t at = queue[i];
        for (uint32_t n = a->nodes[at].child; n != 0; n = a->nodes[n].sibling) {
            struct node *node = &a->nodes[n];
            node->fail = at == ROOT ? ROOT : next_of(a, a->nodes[at].fail, node->byte);
            node->hit = node->hit != 0 ? node->hit : a->nodes[node->fail].hit;
            queue[end++] = n;
        }
    }
    check(end == a->count);
    free(queue);
    a->places = xcalloc(MAX(a->longest, 1), sizeof(*a->places));
}

/* --- the stream --- */

static void add_run(struct mask *m, uint64_t from, uint64_t to)
{
    bool said = false;

    while (m->run_count > 0 && m->runs[m->run_count - 1].to > from) {
        const struct run *last = &m->runs[--m->run_count];
        from = MIN(from, last->from);
        said = said || last->said;
    }
    if (m->run_count == m->run_cap) {
        m->run_cap = MAX(2 * m->run_cap, 16);
        m->runs = xrealloc(m->runs, m->run_cap * sizeof(*m->runs));
    }
    m->runs[m->run_count++] = (struct run){.from = from, .to = to, .said = said};
}

static void step_plain(struct mask *m, uint8_t byte, uint64_t at)
{
    struct machine *a = &m->machines[MASK_PLAIN];

    a->state = next_of(a, a->state, byte);
    if (a->nodes[a->state].hit != 0) {
        add_run(m, at + 1 - a->nodes[a->state].hit, at + 1);
    }
}

static void step_wrapped(struct mask *m, uint8_t byte, uint64_t at)
{
    struct machine *a = &m->machines[MASK_WRAPPED];

    if (a->longest == 0) {
        return;
    }
    if ((byte == '\n' || byte == '\r' || byte == ' ') && a->state != ROOT && a->skips < SKIPS_MAX) {
        a->skips++;
        return;
    }
    a->skips = 0;
    a->state = next_of(a, a->state, byte);
    a->places[a->seen++ % a->longest] = at;
    if (a->nodes[a->state].hit != 0) {
        add_run(m, a->places[(a->seen - a->nodes[a->state].hit) % a->longest], at + 1);
    }
}

/* What stands before can be no part of an occurrence to come. */
static uint64_t undecided_from(const struct mask *m, uint64_t end)
{
    const struct machine *plain = &m->machines[MASK_PLAIN];
    const struct machine *wrapped = &m->machines[MASK_WRAPPED];
    uint64_t from = end - plain->nodes[plain->state].depth;

    if (wrapped->state != ROOT) {
        const uint32_t depth = wrapped->nodes[wrapped->state].depth;
        from = MIN(from, wrapped->places[(wrapped->seen - depth) % wrapped->longest]);
    }
    return from;
}

static void write_plain(struct mask *m, uint64_t from, uint64_t to, struct buf *out)
{
    if (from < to) {
        buf_add(out, m->held.p + (from - m->held_from), (size_t)(to - from));
    }
}

/* Writes all before `end`. */
static void let_go(struct mask *m, uint64_t end, struct buf *out)
{
    uint64_t at = m->held_from;
    size_t done = 0;

    for (; done < m->run_count && m->runs[done].from < end; done++) {
        struct run *r = &m->runs[done];
        write_plain(m, at, r->from, out);
        if (!r->said) {
            buf_addz(out, MASK_TEXT);
            r->said = true;
        }
        at = MAX(at, MIN(r->to, end));
        if (r->to > end) {
            break; /* it may still grow */
        }
    }
    write_plain(m, at, end, out);
    m->run_count -= done;
    if (done > 0 && m->run_count > 0) {
        memmove(m->runs, m->runs + done, m->run_count * sizeof(*m->runs));
    }
    buf_drop_front(&m->held, (size_t)(end - m->held_from));
    m->held_from = end;
}

void mask_feed(struct mask *m, struct str bytes, struct buf *out)
{
    uint64_t at = m->held_from + m->held.n;

    if (mask_is_empty(m)) {
        buf_add_str(out, bytes);
        return;
    }
    for (size_t i = 0; !m->ready && i < MASK_KINDS; i++) {
        link_nodes(&m->machines[i]);
    }
    m->ready = true;
    buf_add_str(&m->held, bytes);
    for (size_t i = 0; i < bytes.n; i++, at++) {
        step_plain(m, (uint8_t)bytes.p[i], at);
        step_wrapped(m, (uint8_t)bytes.p[i], at);
    }
    let_go(m, undecided_from(m, at), out);
}

void mask_end(struct mask *m, struct buf *out)
{
    let_go(m, m->held_from + m->held.n, out);
    for (size_t i = 0; i < MASK_KINDS; i++) {
        m->machines[i].state = ROOT;
        m->machines[i].skips = 0;
    }
}
