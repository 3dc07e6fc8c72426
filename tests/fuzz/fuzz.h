/* What every fuzz target defines: takes any bytes and ends the process (check, sanitizer) when they
 * break something. Keeps nothing from call to call. bounded.c hands it to libFuzzer, and sees to it
 * that no input takes a second of the processor. */
#ifndef DAVIT_FUZZ_H
#define DAVIT_FUZZ_H

#include "common/base.h"

void fuzz_one(const uint8_t *p, size_t n);

/* libFuzzer's name for it. */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#endif
