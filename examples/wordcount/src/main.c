#include <stdio.h>

#include "wordcount.h"

int main(void)
{
    char buf[65536];
    struct counts c = {0};
    size_t n;
    while ((n = fread(buf, 1, sizeof(buf), stdin)) > 0) {
        wordcount_add(&c, buf, n);
    }
    if (ferror(stdin)) {
        perror("wordcount");
        return 1;
    }
    printf("%lu %lu %lu\n", c.lines, c.words, c.bytes);
    return 0;
}
