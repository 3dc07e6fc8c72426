/* Lists of the API, page after page as one. Threads: one client a thread. */
#ifndef DAVIT_CLI_LIST_H
#define DAVIT_CLI_LIST_H

#include "cli/client.h"

/* A text as a value in a query. */
void list_escape(struct buf *out, const char *text);

/* "a, b" as a list of words; NULL: an empty one. */
json_t *list_words(const char *text);

/* The project that was named, or that of the folder. Heap, or NULL: said why. */
char *list_project(struct cli *c, const char *named);

/* The items of GET /WHAT?QUERY, at most max of them; `query` is "" or "NAME=VALUE&...". */
int list_fetch(struct cli *c, const struct client *cl, const char *what, const char *query,
               size_t max, json_t **ret);
/* All items of a list that is asked for by project; `filter` is "" or "&NAME=VALUE". */
int list_of_project(struct cli *c, const struct client *cl, const char *what, const char *project,
                    const char *filter, json_t **ret);

#endif
