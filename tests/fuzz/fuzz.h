/* What every fuzz target defines, under libFuzzer's name for it: takes any bytes, returns 0, and
 * ends the process (check, sanitizer) when they break something. Keeps nothing from call to call.
 */
#ifndef DAVIT_FUZZ_H
#define DAVIT_FUZZ_H

#include "common/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#endif
