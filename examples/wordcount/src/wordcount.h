/* Counts lines, words and bytes as wc does in the C locale. */
#ifndef WORDCOUNT_H
#define WORDCOUNT_H

#include <stddef.h>

struct counts {
    unsigned long lines;
    unsigned long words;
    unsigned long bytes;
    int in_word; /* the last byte seen belonged to a word */
};

/* May be called again and again with the pieces of one text. */
void wordcount_add(struct counts *c, const void *text, size_t n);

#endif
