/* What the runners of other people's files share (corpus.c is the program): which case passed, and
 * which misses are known differences, each with its reason in a file.
 *
 * A case's name is CORPUS/CASE, without blanks. A runner is a function that is given the folder of
 * its corpus; details of a miss go to standard error. */
#ifndef DAVIT_TESTS_CORPUS_H
#define DAVIT_TESTS_CORPUS_H

#include "common/diag.h"
#include "common/expand.h"
#include "tests/golden/corpora.h"

enum outcome { CASE_PASSED, CASE_NOT_YET, CASE_DIFFERS };

struct corpus_count {
    const char *name; /* "tables/extends"; its cases are counted for "tables" as well */
    unsigned passed;
    unsigned total;
};

struct corpus {
    const char *root;
    struct arena arena;
    struct vars known; /* name of a case to the reason why it differs */
    struct corpus_count counts[32];
    size_t count;
    json_t *misses; /* {"case", "known": the reason or null} */
    bool failed;    /* a miss that is not known, or a known one that is none any more */
};

/* Cases that follow count for this one. */
void corpus_begin(struct corpus *k, const char *name);
/* `name` without its corpus; NULL: the number of the case, from 0. */
void corpus_case(struct corpus *k, const char *name, enum outcome outcome);
void corpus_print_errors(const struct diags *d);
/* Only for what is not supported yet. */
bool corpus_only_not_yet(const struct diags *d);

/* The runners: false where their folder is not there. */
bool processing_run(struct corpus *k);
bool tables_run(struct corpus *k);
bool schema_run(struct corpus *k);
bool local_run(struct corpus *k);
bool projects_run(struct corpus *k);
bool templates_run(struct corpus *k);
bool cron_run(struct corpus *k);

/* Parts of others. */
bool processing_compiles(const json_t *c);
enum outcome cron_run_case(const json_t *c);

#endif
