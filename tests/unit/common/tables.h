/* The tables of other people's test cases, see /tests/README.md: where DAVIT_CORPORA says, else in
 * ../shared/corpora beside the repository. */
#ifndef DAVIT_TEST_TABLES_H
#define DAVIT_TEST_TABLES_H

#include <jansson.h>

/* The whole file, a new reference; skips the running test where there is none. */
json_t *table_load(const char *name);

#endif
