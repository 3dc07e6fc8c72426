/* Variables as GitLab and its runner expand them: $NAME and ${NAME}, $$ gives $; an unknown
 * variable gives nothing. GitLab itself also knows %NAME% and keeps what its runner resolves later:
 * flags. Values may hold variables of their own: nested expansion with cycle detection (a cycle
 * leaves the reference as it is written). Used by the compiler and by the worker. Threads: pure. */
#ifndef DAVIT_EXPAND_H
#define DAVIT_EXPAND_H

#include "common/arena.h"
#include "common/buf.h"

struct var {
    struct str name;
    struct str value;
    bool raw; /* the value is not expanded */
    bool file;
    bool masked;
};

/* A set by name; a later one of the same name wins and keeps the place of the first. */
struct vars {
    struct arena *arena; /* without a limit; names and values are copied into it */
    struct var *items;
    size_t count;
    size_t cap;
    uint32_t *slots;          /* hash index of items: position + 1, 0 is free; 2 * cap slots */
    uint64_t seed;            /* of the hash */
    const struct vars *below; /* see vars_layer */
    struct expansion *lazy;
};

void vars_init(struct vars *v, struct arena *arena);
void vars_set(struct vars *v, struct var var);
/* The same without copies: name and value must live as long as v. */
void vars_set_ref(struct vars *v, struct var var);
const struct var *vars_get(const struct vars *v, struct str name); /* NULL: none */

/* A set over another one, to which it costs nothing: what is not set in it is looked up below, and
 * vars_get gives values expanded (with flags of expand_flags, as vars_expand_all does), each when
 * it is first asked for. Set all before the first vars_get; what is below must not change. Its
 * items are its own alone. */
void vars_layer(struct vars *v, struct arena *arena, const struct vars *below, unsigned flags);
/* As it was set in v itself; NULL: it was not. */
const struct var *vars_get_own(const struct vars *v, struct str name);
/* One of the values asked for passed a limit; since then vars_get gives them as they were set. */
bool vars_failed(const struct vars *v);

enum expand_flags {
    EXPAND_PERCENT = 1,      /* %NAME% is a reference, too, and %% an escaped % */
    EXPAND_KEEP_UNKNOWN = 2, /* an unknown variable's reference stays as it is written */
    EXPAND_KEEP_FILE = 4,    /* so does one of a file variable */
    EXPAND_KEEP_ESCAPES = 8, /* $$ stays, for a later expansion */
};

/* Replaces every value that is not raw by its expansion, in dependency order. -E_LIMIT when a value
 * would pass LIMIT_EXPANDED_VALUE, or all together LIMIT_EXPANDED_TOTAL; some are replaced then. */
int vars_expand_all(struct vars *v);
int vars_expand_all_with(struct vars *v, unsigned flags);

/* Expands one text with v's values as they are. -E_LIMIT when out would pass its limit. */
int vars_expand(const struct vars *v, struct str text, struct buf *out);
int vars_expand_with(const struct vars *v, struct str text, unsigned flags, struct buf *out);

bool var_name_valid(struct str name); /* [A-Za-z_][A-Za-z0-9_]* */

#endif
