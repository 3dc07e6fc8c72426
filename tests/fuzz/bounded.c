#include "common/base.h"

#include <time.h>

#include "tests/fuzz/fuzz.h"

/* Of the processor, under sanitizers: what takes longer is not bounded as it should be. */
#define PATIENCE_MS 1000

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    clock_t before = clock();
    fuzz_one(p, n);
    check((clock() - before) * 1000 / CLOCKS_PER_SEC < PATIENCE_MS);
    return 0;
}
