/* A pattern in the first line, paths in the others. */
#include "common/base.h"

#include "common/glob.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(const uint8_t *p, size_t n)
{
    struct str rest = str_of(p, n);
    struct str pattern = STR("");
    struct str path;
    str_split(&rest, '\n', &pattern);
    for (int i = 0; i < 8 && str_split(&rest, '\n', &path); i++) {
        glob_match(GLOB_RUBY, pattern, path);
        glob_match(GLOB_STAR, pattern, path);
    }
}
