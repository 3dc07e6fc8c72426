#include "common/base.h"

#include "cli/list.h"

#include <stdlib.h>

#include "cli/repo.h"

#define PAGE 200u

json_t *list_words(const char *text)
{
    json_t *list = json_array();
    struct str rest = str_from(text);
    struct str part;
    while (str_split(&rest, ',', &part)) {
        part = str_trim(part);
        if (part.n > 0) {
            json_array_append_new(list, json_stringn(part.p, part.n));
        }
    }
    return list;
}

void list_escape(struct buf *out, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c) != NULL;
        buf_addf(out, plain ? "%c" : "%%%02X", c);
    }
}

char *list_project(struct cli *c, const char *named)
{
    struct repo repo;
    if (named != NULL) {
        return xstrdup(named);
    }
    int r = repo_open(c, ".", &repo);
    char *project = r == 0 ? xstrdup(repo.project) : NULL;
    repo_release(&repo);
    return project;
}

/* What the next page comes after, escaped, heap; NULL: that was all. */
static char *next_of(const json_t *page)
{
    const json_t *next = json_object_get(page, "next");
    struct buf text = BUF_INIT;
    if (json_is_string(next)) {
        list_escape(&text, json_string_value(next));
    } else if (json_is_integer(next)) {
        buf_addf(&text, "%" PRIu64, (uint64_t)json_integer_value(next));
    } else {
        return NULL;
    }
    return buf_take(&text);
}

int list_fetch(struct cli *c, const struct client *cl, const char *what, const char *query,
               size_t max, json_t **ret)
{
    json_t *all = json_array();
    struct buf path = BUF_INIT;
    char *after = NULL;
    int r;
    do {
        json_t *page = NULL;
        buf_clear(&path);
        buf_addf(&path, "/%s?limit=%zu%s%s%s%s", what, MIN(max - json_array_size(all), PAGE),
                 query[0] != 0 ? "&" : "", query, after != NULL ? "&after=" : "",
                 after != NULL ? after : "");
        free(after);
        after = NULL;
        r = client_call(c, cl, "GET", buf_cstr(&path), NULL, NULL, &page);
        if (r == 0) {
            json_array_extend(all, json_object_get(page, "items"));
            after = next_of(page);
            json_decref(page);
        }
    } while (r == 0 && after != NULL && json_array_size(all) < max);
    free(after);
    buf_release(&path);
    if (r < 0) {
        json_decref(all);
        return r;
    }
    *ret = all;
    return 0;
}

int list_of_project(struct cli *c, const struct client *cl, const char *what, const char *project,
                    const char *filter, json_t **ret)
{
    struct buf query = BUF_INIT;
    buf_addz(&query, "project=");
    list_escape(&query, project);
    buf_addz(&query, filter);
    int r = list_fetch(c, cl, what, buf_cstr(&query), SIZE_MAX, ret);
    buf_release(&query);
    return r;
}
