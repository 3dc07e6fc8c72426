/* davit caches: what the jobs of a project keep for the next ones; list them, or let them go. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/list.h"

static int list_caches(struct cli *c, const struct client *cl, const char *project)
{
    char size[32];
    json_t *list = NULL;
    json_t *o;
    size_t i;
    int r = list_of_project(c, cl, "caches", project, "", &list);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", list));
        return 0;
    }
    json_array_foreach(list, i, o)
    {
        printf("%-40s %10s  %s  job %" PRIu64 "\n", json_text(o, "key"),
               cli_bytes(json_number(o, "size"), size, sizeof(size)), json_text(o, "created_at"),
               json_number(o, "job_id"));
    }
    if (json_array_size(list) == 0) {
        printf("no caches\n");
    }
    json_decref(list);
    return 0;
}

/* `key` NULL: all. */
static int delete_caches(struct cli *c, const struct client *cl, const char *project,
                         const char *key)
{
    struct buf path = BUF_INIT;
    json_t *answer = NULL;
    buf_addz(&path, "/caches?project=");
    list_escape(&path, project);
    if (key != NULL) {
        buf_addz(&path, "&key=");
        list_escape(&path, key);
    }
    int r = client_call(c, cl, "DELETE", buf_cstr(&path), NULL, NULL, &answer);
    buf_release(&path);
    if (r == 0 && c->json) {
        cli_print_json(answer);
    } else if (r == 0) {
        printf("%" PRIu64 " deleted\n", json_number(answer, "deleted"));
        json_decref(answer);
    }
    return r;
}

int cmd_caches(struct cli *c, int argc, char **argv)
{
    const char *named = NULL;
    bool all = false;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"project", 0, OPT_TEXT, &named, "NAME", "the project (that of this folder)"},
        {"all", 'a', OPT_FLAG, &all, NULL, "with delete: all caches of the project"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    const bool delete = count > 0 && strcmp(args[0], "delete") == 0;
    const char *key = delete &&count == 2 ? args[1] : NULL;
    if (delete != (count > 0) || delete != (key != NULL || all) || (key != NULL && all)) {
        free(args);
        return cli_fail(c, -E_USAGE, "davit caches, davit caches delete KEY or delete --all");
    }
    char *project = list_project(c, named);
    r = project == NULL ? -E_NOT_FOUND : client_open(c, &cl);
    if (r == 0) {
        r = delete ? delete_caches(c, &cl, project, key) : list_caches(c, &cl, project);
        client_release(&cl);
    }
    free(project);
    free(args);
    return r;
}
