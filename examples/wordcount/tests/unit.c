#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/wordcount.h"

static void expect(const char *text, unsigned long lines, unsigned long words)
{
    struct counts whole = {0};
    struct counts pieces = {0};
    size_t n = strlen(text);
    wordcount_add(&whole, text, n);
    for (size_t i = 0; i < n; i++) {
        wordcount_add(&pieces, text + i, 1);
    }
    if (whole.lines != lines || whole.words != words || whole.bytes != n ||
        memcmp(&whole, &pieces, sizeof(whole)) != 0) {
        fprintf(stderr, "\"%s\": %lu lines, %lu words\n", text, whole.lines, whole.words);
        exit(1);
    }
}

int main(void)
{
    expect("", 0, 0);
    expect("one", 0, 1);
    expect("one two\n", 1, 2);
    expect("\n\n\n", 3, 0);
    expect("  a\tb\vc\r\n d", 1, 4);
    puts("unit tests passed");
    return 0;
}
