/* Every case is fed whole, and byte by byte: the events must be the same. Writes JUnit to the file
 * that is named, if one is. */
#include "csv.h"

#include <stdio.h>
#include <string.h>

struct seen {
    char text[512];
    size_t size;
};

static void put(struct seen *s, const char *text, size_t size)
{
    for (size_t i = 0; i < size && s->size + 1 < sizeof(s->text); i++) {
        s->text[s->size++] = text[i];
    }
    s->text[s->size] = '\0';
}

static int on_field(void *ctx, const char *text, size_t size)
{
    put(ctx, "[", 1);
    put(ctx, text, size);
    put(ctx, "]", 1);
    return size == 4 && memcmp(text, "stop", 4) == 0;
}

static int on_record(void *ctx, size_t fields)
{
    char end[32];
    int n = snprintf(end, sizeof(end), "=%zu;", fields);
    put(ctx, end, (size_t)n);
    return 0;
}

static const struct {
    const char *name;
    const char *input;
    const char *events;
    enum csv_result result;
    size_t line;
} cases[] = {
    {"nothing", "", "", CSV_OK, 1},
    {"one record", "a,b,c\n", "[a][b][c]=3;", CSV_OK, 2},
    {"no line end at the end", "a,b", "[a][b]=2;", CSV_OK, 2},
    {"empty fields", ",,\n,\n", "[][][]=3;[][]=2;", CSV_OK, 3},
    {"an empty line is one empty field", "\n", "[]=1;", CSV_OK, 2},
    {"CRLF", "a,b\r\nc,d\r\n", "[a][b]=2;[c][d]=2;", CSV_OK, 3},
    {"a lone CR is text", "a\rb,c\r", "[a\rb][c\r]=2;", CSV_OK, 2},
    {"quotes", "\"a,b\",\"c\"\"d\"\n", "[a,b][c\"d]=2;", CSV_OK, 2},
    {"a line end in quotes", "\"a\nb\",c\n", "[a\nb][c]=2;", CSV_OK, 3},
    {"a quote in the middle is text", "a\"b\n", "[a\"b]=1;", CSV_OK, 2},
    {"an empty quoted field", "\"\",x\n", "[][x]=2;", CSV_OK, 2},
    {"quotes, then CRLF", "\"a\"\r\n", "[a]=1;", CSV_OK, 2},
    {"text after a quote", "\"a\"b\n", "", CSV_ERROR_QUOTE, 1},
    {"a quote that never ends", "\"a\n", "", CSV_ERROR_QUOTE, 2},
    {"a long field", "0123456789abcdefX\n", "", CSV_ERROR_LENGTH, 1},
    {"a field as long as allowed", "0123456789abcdef\n", "[0123456789abcdef]=1;", CSV_OK, 2},
    {"the reader stops", "a,stop,b\n", "[a][stop]", CSV_STOPPED, 1},
};

static int run(size_t i, size_t piece)
{
    struct seen seen = {0};
    struct csv_events events = {on_field, on_record, &seen};
    struct csv *parser = csv_new(',', 16, &events);
    size_t size = strlen(cases[i].input);
    for (size_t at = 0; at < size; at += piece) {
        (void)csv_feed(parser, cases[i].input + at, size - at < piece ? size - at : piece);
    }
    enum csv_result r = csv_finish(parser);
    int good = r == cases[i].result && strcmp(seen.text, cases[i].events) == 0 &&
               csv_line(parser) == cases[i].line;
    if (!good) {
        printf("FAIL %s: %s, line %zu, %s\n", cases[i].name, csv_text(r), csv_line(parser),
               seen.text);
    }
    csv_free(parser);
    return good;
}

int main(int argc, char **argv)
{
    const size_t count = sizeof(cases) / sizeof(cases[0]);
    size_t failed = 0;
    FILE *junit = argc > 1 ? fopen(argv[1], "w") : NULL;
    if (junit) {
        fprintf(junit, "<testsuite name=\"csv\" tests=\"%zu\">\n", count);
    }
    for (size_t i = 0; i < count; i++) {
        int good = run(i, 1000) && run(i, 1);
        failed += !good;
        if (junit) {
            fprintf(junit, "  <testcase classname=\"csv\" name=\"%s\">%s</testcase>\n",
                    cases[i].name, good ? "" : "<failure/>");
        }
    }
    if (junit) {
        fprintf(junit, "</testsuite>\n");
        fclose(junit);
    }
    csv_free(NULL);
    printf("%zu of %zu passed\n", count - failed, count);
    return failed > 0;
}
