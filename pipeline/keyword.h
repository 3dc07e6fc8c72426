/* The keywords of pipeline files by the place where they stand, from keywords.def.
 * Threads: pure. */
#ifndef DAVIT_PIPELINE_KEYWORD_H
#define DAVIT_PIPELINE_KEYWORD_H

#include "common/str.h"

enum scope {
#define SCOPE(name, text) SCOPE_##name,
#define KEYWORD(scope, name, support)
#include "pipeline/keywords.def"
#undef SCOPE
#undef KEYWORD
    SCOPE_COUNT
};

enum support { ACTED, CHECKED };

struct keyword {
    enum scope scope;
    struct str name; /* NUL-terminated, too */
    enum support support;
};

#define KEYWORDS_MAX 512
extern const struct keyword keywords[];
extern const size_t keyword_count;

const struct keyword *keyword_find(enum scope scope, struct str name); /* NULL: unknown */
/* Another scope where the word is known, the usual ones first; SCOPE_COUNT: none. */
enum scope keyword_elsewhere(struct str word);
const char *scope_text(enum scope scope); /* "in a job" */

#endif
