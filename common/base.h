/* First include of every .c file: feature macros, the standard headers that all code uses, checks.
 *
 * check(x) is an assertion that stays on in release builds: a mistake of ours ends the process with
 * file and line, and the crash-only design recovers. Mistakes of others are errors (err.h).
 *
 * May be included by everything; includes nothing of ours. Threads: all safe. */
#ifndef DAVIT_BASE_H
#define DAVIT_BASE_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_LEN(a)            (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)               ((a) < (b) ? (a) : (b))
#define MAX(a, b)               ((a) > (b) ? (a) : (b))

#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define MUST_USE                __attribute__((warn_unused_result))
#define NORETURN                __attribute__((noreturn))
#define UNUSED                  __attribute__((unused))

#define check(x)                ((x) ? (void)0 : check_failed(#x, __FILE__, __LINE__))

/* Writes "check failed: WHAT at FILE:LINE" to stderr and aborts. */
NORETURN void check_failed(const char *what, const char *file, int line);

/* malloc and friends that end the process when memory is out: every size that somebody outside
 * controls is bounded by limits.h, so running out is our mistake or the machine's end. */
void *xmalloc(size_t n) MUST_USE;
void *xcalloc(size_t count, size_t size) MUST_USE; /* zeroed */
void *xrealloc(void *p, size_t n) MUST_USE;
char *xstrdup(const char *s) MUST_USE;
void *xmemdup(const void *p, size_t n) MUST_USE;

#endif
