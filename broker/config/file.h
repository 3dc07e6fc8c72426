/* What the files of this folder share while they read one configuration file. */
#ifndef DAVIT_CONFIG_FILE_H
#define DAVIT_CONFIG_FILE_H

#include "broker/config/options.h"
#include "pipeline/node.h"

struct file {
    struct options *o;
    struct diags *diags;
    const char *names[OPTION_COUNT + 3]; /* the keys: options, pools, projects, targets */
};

void file_wrong(struct file *f, const struct node *at, const char *code, const char *hint,
                const char *fmt, ...) PRINTF_LIKE(5, 6);
/* `where` ends the sentence: "in pool `fast`". */
void file_unknown(struct file *f, const struct node *key, const char *where,
                  const char *const *names, size_t count);
/* True: it is one. False: there is nothing, or it was reported. */
bool file_mapping(struct file *f, const struct node *n, const char *what);

/* declare.c */
void file_pools(struct file *f, const struct node *n);
void file_projects(struct file *f, const struct node *n);
/* targets.c */
void file_targets(struct file *f, const struct node *n);

#endif
