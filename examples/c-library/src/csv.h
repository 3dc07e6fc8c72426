/* csv: reads comma-separated values (RFC 4180) piece by piece, with no memory of its own but the
 * field under way. Quoted fields may hold commas, line ends and doubled quotes; a lone CR counts as
 * text. Bounded: a field longer than `max_field` is an error, so input nobody knows can be read. */
#ifndef CSV_H
#define CSV_H

#include <stddef.h>

#define CSV_VERSION "1.3.0"

enum csv_result {
    CSV_OK = 0,
    CSV_ERROR_QUOTE,  /* text after the closing quote of a field, or none at the end of input */
    CSV_ERROR_LENGTH, /* a field is longer than allowed */
    CSV_ERROR_MEMORY,
    CSV_STOPPED,      /* a callback returned something else than 0 */
};

/* What was read. The text is the callback's only while it runs; it is not terminated. */
struct csv_events {
    int (*field)(void *ctx, const char *text, size_t size);
    int (*record)(void *ctx, size_t fields);
    void *ctx;
};

struct csv;

/* A parser; NULL: no memory. Fields are divided by `separator`. */
struct csv *csv_new(char separator, size_t max_field, const struct csv_events *events);

/* Reads a piece of input, of any size. After an error every call returns that error. */
enum csv_result csv_feed(struct csv *parser, const char *text, size_t size);

/* Ends the last record, if no line end did. */
enum csv_result csv_finish(struct csv *parser);

/* The line on which the parser is, from 1. */
size_t csv_line(const struct csv *parser);

/* What a result means, in a few words. */
const char *csv_text(enum csv_result result);

/* Accepts NULL. */
void csv_free(struct csv *parser);

#endif
