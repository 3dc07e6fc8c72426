/* The tree that a YAML file becomes: scalars with their text as written and the type that GitLab's
 * loader sees in it, lists, and mappings in the order of the file. Every node knows where it
 * stands.
 *
 * Invariant: a node that was handed on is never changed again, so nodes are shared freely (aliases,
 * extends, !reference); what differs is built anew around the shared parts.
 * weight counts the nodes of a subtree as if all sharing were written out.
 * Ownership: all in one arena. Threads: pure. */
#ifndef DAVIT_PIPELINE_NODE_H
#define DAVIT_PIPELINE_NODE_H

#include "common/diag.h"

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAPPING };
enum scalar_type { SCALAR_NULL, SCALAR_BOOL, SCALAR_INT, SCALAR_FLOAT, SCALAR_STRING };

struct node;
struct pair {
    const struct node *key; /* a scalar */
    const struct node *value;
    const struct node *merge; /* the `<<` by which it came; NULL: it is written here */
};

/* There are many of them: kept small. */
struct node {
    enum node_kind kind : 8;
    enum scalar_type type : 8; /* of a scalar */
    bool truth : 1;            /* SCALAR_BOOL */
    bool surprising : 1;    /* YAML 1.1 reads something else than the text says: yes, 010, 1:30 */
    bool open : 1;          /* still being read */
    bool reference : 1;     /* a list tagged !reference */
    bool has_reference : 1; /* this or a node below is one */
    bool plain : 1;         /* a scalar without quotes */
    bool has_block : 1;     /* `$[[ ... ]]` stands in it or below */
    int64_t integer;        /* SCALAR_INT */
    struct str text;        /* of a scalar: its content without quotes */
    const char *file;
    uint32_t line;
    uint32_t column;
    uint32_t length;   /* 0 where it takes several lines; then: */
    uint32_t end_line; /* the last one; 0: the same */
    uint32_t end_column;
    uint32_t count; /* of items or pairs */
    uint32_t cap;
    uint32_t slot_count;
    union {
        const struct node **items; /* of a list */
        struct pair *pairs;        /* of a mapping */
    };
    uint32_t *slots; /* hash index of a larger mapping: place + 1, 0 is free */
    uint64_t weight;
};

/* Empty nodes that stand where `at` stands (may be NULL). */
struct node *node_new(struct arena *a, enum node_kind kind, const struct node *at);
struct node *node_text(struct arena *a, struct str text, const struct node *at);

void node_append(struct arena *a, struct node *list, const struct node *item);
/* The last one of a key wins and keeps the place of the first, as in Ruby's hashes. */
void node_set(struct arena *a, struct node *mapping, const struct node *key,
              const struct node *value);

/* Room for that many pairs at once. */
void node_reserve(struct arena *a, struct node *mapping, uint32_t count);

/* NULL: no such key, or `mapping` is no mapping. */
struct pair *node_find(const struct node *mapping, struct str key);
const struct node *node_get(const struct node *mapping, const char *key);

/* NULL, a null scalar, a !reference that leads nowhere (reported then): as good as not written. */
bool node_is_null(const struct node *n);
bool node_is_string(const struct node *n);
struct diag_at node_at(const struct node *n);
const char *node_what(const struct node *n); /* "a list", for messages */

/* Mappings merge key by key, all else is replaced by `over`. Adds the pairs it made to *work. */
const struct node *node_merge(struct arena *a, const struct node *base, const struct node *over,
                              size_t *work);
/* The same into a mapping of the caller's that nobody else has: costs nothing for what is there. */
void node_merge_into(struct arena *a, struct node *into, const struct node *over, size_t *work);
/* A mapping of the caller's own with the pairs of another, and room for `more`. */
struct node *node_copy(struct arena *a, const struct node *mapping, uint32_t more, size_t *work);

/* Remembers what was made of a node, by the node itself: shared nodes are read once. */
struct memo_entry {
    const struct node *node;
    void *made;
};
struct memo {
    struct memo_entry *entries; /* open addressing; half of them at most are used */
    uint32_t count;
    uint32_t cap;
};
void *memo_get(const struct memo *m, const struct node *n); /* NULL: not remembered */
void memo_set(struct arena *a, struct memo *m, const struct node *n, void *made);

#endif
