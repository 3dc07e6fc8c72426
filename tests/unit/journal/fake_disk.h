/* A disk in memory with every function of broker/journal/disk.h: it counts what is asked of it,
 * fails when it is told to, and loses, keeps or tears what was not flushed when the machine dies.
 * Threads: one. */
#ifndef DAVIT_TESTS_FAKE_DISK_H
#define DAVIT_TESTS_FAKE_DISK_H

#include "broker/journal/disk.h"

void fake_disk_reset(void); /* no folder; no faults */

/* Calls that change something, since the reset. */
uint64_t fake_disk_calls(void);
/* The n-th of them (1: the first) fails; with `dead` all after it, too, with -E_IO. */
void fake_disk_fail(uint64_t n, int error, bool dead);

/* The machine dies and comes back: names and bytes that were not made durable are there or not, by
 * the seed. No file may be open. */
void fake_disk_crash(uint64_t seed);

/* The bytes of a file as they are; NULL: there is none. */
uint8_t *fake_disk_bytes(const char *name, uint64_t *ret_size);
/* The file that sorts last among those whose name ends so; NULL: there is none. */
const char *fake_disk_last(const char *suffix);

#endif
