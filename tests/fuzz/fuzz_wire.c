/* What a stranger may send to the broker's or a worker's port. */
#include "common/base.h"

#include "common/limits.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/roundtrip.h"

void fuzz_one(const uint8_t *p, size_t n)
{
    check_roundtrip(&pb__envelope__descriptor, p, n, LIMIT_WIRE_MESSAGE);
}
