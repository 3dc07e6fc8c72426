/* The input of the compiler for tests, with usual facts: branch main of group/demo, pushed.
 *
 * A text of several files is split at lines "#--- PATH"; what stands before the first is the root
 * file; a PATH with a colon is the canonical name of an included file from elsewhere. Lines that
 * begin with "#! " set facts:
 *   #! ref NAME | tag NAME | origin WORD | var NAME=VALUE | path PATH | change PATH | changes none
 * | compare REF [PATH]: it differs from the ref in the path
 *   #! only JOB
 *   #! input NAME=TEXT | json NAME=JSON | offline (what is not there needs a network)
 */
#ifndef DAVIT_TESTS_CASE_INPUT_H
#define DAVIT_TESTS_CASE_INPUT_H

#include "pipeline/pipeline.h"

struct case_file {
    const char *path;
    struct str text;
};

struct case_input {
    struct arena arena;
    struct pipeline_input in;
    struct vars predefined;
    struct pipeline_facts facts;
    struct vars submitted;
    struct case_file files[64];
    size_t file_count;
    struct str paths[256];
    struct str changes[64];
    struct case_compared {
        struct str ref;
        struct str paths[16];
        size_t count;
    } compared[8];
    size_t compared_count;
    struct str only[16];
    struct pipeline_value inputs[16];
    bool offline;
};

/* False: too many files or facts, or unknown ones; release it all the same. */
bool case_input_try(struct case_input *c, const char *file, struct str text);
void case_input_init(struct case_input *c, const char *file, struct str text); /* a check */
void case_input_prepare(struct case_input *c); /* after facts were changed: predefined variables */
void case_input_release(struct case_input *c);
/* For diag_render. */
struct str case_text_of(void *ctx, const char *file);

#endif
