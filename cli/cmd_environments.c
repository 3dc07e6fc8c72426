/* davit environments, releases: what the pipelines of a project left behind. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/list.h"

static void print_environments(struct cli *c, const json_t *list)
{
    size_t i;
    json_t *e;
    json_array_foreach(list, i, e)
    {
        printf("%-8" PRIu64 " %-32s %-12s %s", json_number(e, "id"), json_text(e, "name"),
               json_text(e, "tier"), cli_status(c, json_text(e, "state")));
        if (json_text(e, "url")[0] != 0) {
            printf("  %s", json_text(e, "url"));
        }
        if (json_text(e, "auto_stop_at")[0] != 0) {
            printf("  stops %s", json_text(e, "auto_stop_at"));
        }
        printf("\n");
    }
    if (json_array_size(list) == 0) {
        printf("no environments\n");
    }
}

static int list_environments(struct cli *c, const struct client *cl, const char *project, bool all)
{
    json_t *list = NULL;
    json_t *shown = json_array();
    size_t i;
    json_t *e;
    int r = list_of_project(c, cl, "environments", project, "", &list);
    json_array_foreach(list, i, e)
    {
        if (all || strcmp(json_text(e, "state"), "stopped") != 0) {
            json_array_append(shown, e);
        }
    }
    json_decref(list);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:O}", "items", shown));
    } else if (r == 0) {
        print_environments(c, shown);
    }
    json_decref(shown);
    return r;
}

static int post_stop(struct cli *c, const struct client *cl, uint64_t id, bool force)
{
    char path[64];
    json_t *e = NULL;
    json_t *body = json_pack("{s:b}", "force", (int)force);
    snprintf(path, sizeof(path), "/environments/%" PRIu64 "/stop", id);
    int r = client_call(c, cl, "POST", path, body, NULL, &e);
    json_decref(body);
    if (r == 0 && c->json) {
        cli_print_json(e);
    } else if (r == 0) {
        printf("environment %s %s\n", json_text(e, "name"), cli_status(c, json_text(e, "state")));
        json_decref(e);
    }
    return r;
}

static int stop_environment(struct cli *c, const struct client *cl, const char *project,
                            const char *name, bool force)
{
    struct buf filter = BUF_INIT;
    json_t *list = NULL;
    buf_addz(&filter, "&name=");
    list_escape(&filter, name);
    int r = list_of_project(c, cl, "environments", project, buf_cstr(&filter), &list);
    if (r == 0 && json_array_size(list) == 0) {
        r = cli_fail(c, -E_NOT_FOUND, "project %s has no environment `%s`", project, name);
    }
    r = r < 0 ? r : post_stop(c, cl, json_number(json_array_get(list, 0), "id"), force);
    json_decref(list);
    buf_release(&filter);
    return r;
}

int cmd_environments(struct cli *c, int argc, char **argv)
{
    const char *named = NULL;
    bool all = false;
    bool force = false;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"project", 0, OPT_TEXT, &named, "NAME", "the project (that of this folder)"},
        {"all", 'a', OPT_FLAG, &all, NULL, "list stopped ones, too"},
        {"force", 0, OPT_FLAG, &force, NULL, "stop without running its on_stop job"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    if (count == 1 || (count == 2 && strcmp(args[0], "stop") != 0)) {
        free(args);
        return cli_fail(c, -E_USAGE, "davit environments, or davit environments stop NAME");
    }
    char *project = list_project(c, named);
    r = project == NULL ? -E_NOT_FOUND : client_open(c, &cl);
    if (r == 0) {
        r = count == 0 ? list_environments(c, &cl, project, all)
                       : stop_environment(c, &cl, project, args[1], force);
        client_release(&cl);
    }
    free(project);
    free(args);
    return r;
}

static void print_release(const json_t *release)
{
    size_t i;
    json_t *link;
    const char *name = json_text(release, "name");
    printf("%-20s %.8s  %s", json_text(release, "tag"), json_text(release, "sha"),
           json_text(release, "created_at"));
    printf(strcmp(name, json_text(release, "tag")) != 0 && name[0] != 0 ? "  %s\n" : "\n", name);
    json_array_foreach(json_object_get(release, "links"), i, link)
    {
        printf("  %s: %s\n", json_text(link, "name"), json_text(link, "url"));
    }
}

int cmd_releases(struct cli *c, int argc, char **argv)
{
    const char *named = NULL;
    const struct opt opts[] = {
        {"project", 0, OPT_TEXT, &named, "NAME", "the project (that of this folder)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    json_t *list = NULL;
    size_t i;
    json_t *release;
    int r = cli_options(c, opts, argc, argv, 0, 0, NULL, NULL);
    char *project = r < 0 ? NULL : list_project(c, named);
    r = r == 0 && project == NULL ? -E_NOT_FOUND : r;
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = list_of_project(c, &cl, "releases", project, "", &list);
        client_release(&cl);
    }
    free(project);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", list));
        return 0;
    }
    json_array_foreach(list, i, release)
    {
        print_release(release);
    }
    if (json_array_size(list) == 0) {
        printf("no releases\n");
    }
    json_decref(list);
    return 0;
}
