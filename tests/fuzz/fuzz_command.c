/* Commands, as a replicated or replayed log would bring them. */
#include "common/base.h"

#include "common/limits.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/roundtrip.h"

void fuzz_one(const uint8_t *p, size_t n)
{
    check_roundtrip(&pb__command__descriptor, p, n, LIMIT_COMMAND);
}
