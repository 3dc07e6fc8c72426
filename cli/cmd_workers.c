/* davit workers and davit drain. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "common/str.h"

static const char *worker_state(const json_t *w)
{
    if (!json_flag(w, "online")) {
        return "offline";
    }
    if (json_flag(w, "suspect")) {
        return "suspect";
    }
    if (json_flag(w, "draining")) {
        return "draining";
    }
    return json_flag(w, "paused") ? "paused" : "online";
}

static void print_workers(const struct cli *c, const json_t *list)
{
    size_t i;
    json_t *w;
    printf("%-6s %-20s %-16s %-12s %-7s %-24s %s\n", "ID", "NAME", "HOST", "POOL", "BUSY", "TAGS",
           "STATE");
    json_array_foreach(json_object_get(list, "items"), i, w)
    {
        struct buf tags = BUF_INIT;
        char busy[32];
        size_t k;
        json_t *tag;
        json_array_foreach(json_object_get(w, "tags"), k, tag)
        {
            buf_addf(&tags, "%s%s", k > 0 ? "," : "", json_string_value(tag));
        }
        snprintf(busy, sizeof(busy), "%" PRIu64 "/%" PRIu64, json_number(w, "busy"),
                 json_number(w, "slots"));
        printf("%-6" PRIu64 " %-20s %-16s %-12s %-7s %-24s %s\n", json_number(w, "id"),
               json_text(w, "name"), json_text(w, "host"), json_text(w, "pool"), busy,
               buf_cstr(&tags), cli_status(c, worker_state(w)));
        buf_release(&tags);
    }
}

int cmd_workers(struct cli *c, int argc, char **argv)
{
    const struct opt opts[] = {{NULL, 0, OPT_FLAG, NULL, NULL, NULL}};
    struct client cl;
    json_t *list = NULL;
    int r = cli_options(c, opts, argc, argv, 0, 0, NULL, NULL);
    r = r < 0 ? r : client_open(c, &cl);
    if (r < 0) {
        return r;
    }
    r = client_call(c, &cl, "GET", "/workers?limit=200", NULL, NULL, &list);
    client_release(&cl);
    if (r == 0 && c->json) {
        cli_print_json(list);
    } else if (r == 0) {
        print_workers(c, list);
        json_decref(list);
    }
    return r;
}

/* A worker by number or by name. */
static int find_worker(struct cli *c, const struct client *cl, const char *name, uint64_t *ret_id)
{
    json_t *list = NULL;
    size_t i;
    json_t *w;
    if (str_to_u64(str_from(name), ret_id) == 0) {
        return 0;
    }
    int r = client_call(c, cl, "GET", "/workers?limit=200", NULL, NULL, &list);
    if (r < 0) {
        return r;
    }
    *ret_id = 0;
    json_array_foreach(json_object_get(list, "items"), i, w)
    {
        if (strcmp(json_text(w, "name"), name) == 0) {
            *ret_id = json_number(w, "id");
        }
    }
    json_decref(list);
    return *ret_id != 0 ? 0 : cli_fail(c, -E_NOT_FOUND, "there is no worker `%s`", name);
}

int cmd_drain(struct cli *c, int argc, char **argv)
{
    bool undo = false;
    uint64_t id;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"undo", 0, OPT_FLAG, &undo, NULL, "take work again"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    json_t *w = NULL;
    char path[64];
    int r = cli_options(c, opts, argc, argv, 1, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    r = client_open(c, &cl);
    if (r == 0) {
        r = find_worker(c, &cl, args[0], &id);
        if (r == 0) {
            snprintf(path, sizeof(path), "/workers/%" PRIu64 "/%s", id, undo ? "undrain" : "drain");
            r = client_call(c, &cl, "POST", path, NULL, NULL, &w);
        }
        client_release(&cl);
    }
    if (r == 0 && c->json) {
        cli_print_json(w);
    } else if (r == 0) {
        printf("worker %s %s\n", json_text(w, "name"), undo ? "takes work again" : "drains");
        json_decref(w);
    }
    free(args);
    return r;
}
