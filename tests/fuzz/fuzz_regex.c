/* A regular expression as a literal in the first line, a text in the rest. */
#include "common/base.h"

#include "common/regex.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(const uint8_t *p, size_t n)
{
    struct arena arena;
    struct str rest = str_of(p, n);
    struct str literal = STR("");
    struct str pattern;
    struct str flags;
    struct regex *re = NULL;
    const char *reason = NULL;
    size_t at = 0;
    arena_init(&arena, 0);
    str_split(&rest, '\n', &literal);
    if (regex_split_literal(literal, &pattern, &flags)) {
        if (regex_compile(&arena, pattern, flags, &re, &reason, &at) == 0) {
            bool found = false;
            regex_search(re, rest, &found);
        } else {
            check(reason && at <= pattern.n);
        }
    }
    arena_release(&arena);
}
