/* The front of the compiler: from the text of the root file to one merged mapping. Each file is
 * read (yaml.h), its `spec:` header gives names to values (inputs.c), the values go where
 * `$[[ inputs.NAME ]]` stands (interpolate.c), and what the file includes is merged below it
 * (include.c). Inside of the compiler: only pipeline.h is for others. */
#ifndef DAVIT_PIPELINE_FRONT_H
#define DAVIT_PIPELINE_FRONT_H

#include "pipeline/compile.h"

/* A file that is being read, and the ones that led to it: how a circle shows, and whose files its
 * own local includes are. */
struct source {
    const char *file; /* its canonical name */
    const struct source *outer;
    enum include_kind home;      /* LOCAL: the pipeline's repository; PROJECT; REMOTE: none */
    struct str project;          /* home PROJECT */
    struct str ref;              /* home PROJECT; as it was written */
    bool component;              /* the file is one: */
    struct str name;             /* NAME of its address */
    struct str version;          /* of its address, as it was written */
    const struct included *text; /* what the provider gave; NULL: the root file */
};

/* HOST/GROUP/PROJECT/NAME@VERSION, with the own server's host left out: /GROUP/PROJECT/... */
struct component {
    struct str address;
    struct str project; /* with the host, where it is another server's */
    struct str name;
    struct str version;
};

/* Reading one entry of `include` (include_entry.c). */
struct entry {
    struct include_ref *refs; /* several files of one project */
    const struct node **at;   /* where each is named */
    size_t count;
    struct component component;
    struct str integrity; /* "sha256-..." or empty */
    const struct node *inputs;
};
/* False: its rules say no, or it is wrong, which was reported. */
bool entry_read(struct compile *c, const struct node *n, const struct source *source,
                struct entry *ret);
/* The text of one of its files, named `file` in messages; false: reported. */
bool include_provide(struct compile *c, const struct entry *e, const struct include_ref *ref,
                     const struct node *at, const char *file, struct included *ret);
/* Without the file, what refers to it is no mistake. */
void include_refuse(struct compile *c, const struct node *at, const char *code, const char *hint,
                    struct str what, const char *problem);

/* What `$[[ ... ]]` can name in one file. */
struct names {
    const struct node *inputs;    /* a mapping of values; NULL: the file has no header */
    const struct node *component; /* of what spec:component lists; NULL: nothing */
};

/* The values of a header's inputs: given ones, else defaults. `given` is a mapping or NULL; `at` is
 * where the file is included, for what is missing. Loose: a text is read as the input's type asks,
 * for values of the command line. */
struct given {
    const struct node *values;
    const struct node *at;
    bool loose;
};
const struct node *inputs_read(struct compile *c, const struct node *spec,
                               const struct given *given);
/* What a header declares, itself and by spec:include; may be NULL. */
const struct node *spec_inputs(struct compile *c, const struct node *spec,
                               const struct source *source);
/* The first rule of an input that fits the values so far; NULL: none. */
const struct node *input_rule(struct compile *c, const struct node *rules,
                              const struct node *values);
/* An expression with variables in place of `$[[ inputs.NAME ]]`; their values go into env. */
struct str input_expression(struct compile *c, struct str text, const struct node *values,
                            struct vars *env, const struct node *at);
/* The values that the caller of the compiler gave, as a mapping. */
const struct node *inputs_submitted(struct compile *c);
/* The whole header of a file; false: it is wrong, which was reported. */
bool header_read(struct compile *c, const struct node *header, const struct source *source,
                 const struct given *given, struct names *ret);

/* The tree with all blocks replaced by values. `$[[ matrix.* ]]` and `$[[ job.* ]]` stay. */
const struct node *interpolate(struct compile *c, const struct node *n, const struct names *names);
/* Where a file without a header speaks of inputs all the same, nothing is replaced: a warning. */
void interpolate_warn(struct compile *c, const struct node *n);

/* One function of a block, "truncate(0, 8)", on a value. NULL: reported. */
const struct node *interpolate_call(struct compile *c, struct str call, const struct node *value,
                                    const struct node *at);
bool interpolate_call_valid(struct str call);
/* The value as text: a list or a mapping as JSON. */
void value_text(struct buf *out, const struct node *value);

#endif
