/* davit workers, and what is done to one: pause, resume, drain, revoke. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "cli/list.h"
#include "common/str.h"

#define LEAVE_HELP    "its process ends once it has no jobs, and is not started again"
#define DEADLINE_HELP "what runs then goes to other workers: 10m"

static const char *worker_state(const json_t *w)
{
    if (json_flag(w, "revoked")) {
        return "revoked";
    }
    if (!json_flag(w, "online")) {
        return json_flag(w, "leaves") ? "left" : "offline";
    }
    if (json_flag(w, "suspect")) {
        return "suspect";
    }
    if (json_flag(w, "draining")) {
        return json_flag(w, "leaves") ? "leaving" : "draining";
    }
    return json_flag(w, "paused") ? "paused" : "online";
}

static void print_workers(const struct cli *c, const json_t *list)
{
    size_t i;
    json_t *w;
    printf("%-6s %-20s %-16s %-12s %-7s %-24s %-11s %s\n", "ID", "NAME", "HOST", "POOL", "BUSY",
           "TAGS", "CERTIFIED", "STATE");
    json_array_foreach(list, i, w)
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
        const char *until = json_text(w, "certified_until"); /* the day of it */
        printf("%-6" PRIu64 " %-20s %-16s %-12s %-7s %-24s %-11.10s %s\n", json_number(w, "id"),
               json_text(w, "name"), json_text(w, "host"), json_text(w, "pool"), busy,
               buf_cstr(&tags), until[0] != '\0' ? until : "-", cli_status(c, worker_state(w)));
        buf_release(&tags);
        if (json_text(w, "refuses")[0] != '\0' && json_flag(w, "online")) {
            printf("%-6s takes no work: %s\n", "", json_text(w, "refuses"));
        }
    }
}

/* A worker by number or by name. */
static int find_worker(struct cli *c, const struct client *cl, const char *name, uint64_t *ret_id)
{
    json_t *list = NULL;
    struct buf query = BUF_INIT;
    if (str_to_u64(str_from(name), ret_id) == 0) {
        return 0;
    }
    buf_addz(&query, "name=");
    list_escape(&query, name);
    int r = list_fetch(c, cl, "workers", buf_cstr(&query), SIZE_MAX, &list);
    buf_release(&query);
    if (r < 0) {
        return r;
    }
    *ret_id = 0;
    if (json_array_size(list) > 1) {
        r = cli_fail(c, -E_CONFLICT, "%zu workers are called `%s`: give the ID of one",
                     json_array_size(list), name);
        json_decref(list);
        return r;
    }
    *ret_id = json_number(json_array_get(list, 0), "id");
    json_decref(list);
    return *ret_id != 0 ? 0 : cli_fail(c, -E_NOT_FOUND, "there is no worker `%s`", name);
}

struct drain_options {
    const char *deadline; /* NULL: none */
    bool leave;
};

static json_t *drain_body(const struct drain_options *o)
{
    if (o->deadline == NULL && !o->leave) {
        return NULL;
    }
    json_t *body = json_object();
    if (o->deadline != NULL) {
        json_object_set_new(body, "deadline", json_string(o->deadline));
    }
    if (o->leave) {
        json_object_set_new(body, "leave", json_true());
    }
    return body;
}

/* `drain`: what was said for a drain. */
static int act(struct cli *c, const struct client *cl, const char *worker, const char *what,
               const char *done, const struct drain_options *drain)
{
    json_t *w = NULL;
    char path[64];
    uint64_t id;
    int r = find_worker(c, cl, worker, &id);
    if (r == 0) {
        snprintf(path, sizeof(path), "/workers/%" PRIu64 "/%s", id, what);
        json_t *body = drain_body(drain);
        r = client_call(c, cl, "POST", path, body, NULL, &w);
        json_decref(body);
    }
    if (r == 0 && c->json) {
        cli_print_json(w);
    } else if (r == 0) {
        printf("worker %s %s%s%s%s\n", json_text(w, "name"), done,
               drain->leave ? ", then its process ends" : "",
               drain->deadline != NULL ? ", until " : "",
               drain->deadline != NULL ? json_text(w, "drain_until") : "");
        json_decref(w);
    }
    return r;
}

/* By its name: it may have joined without ever having been here. */
static int revoke(struct cli *c, const struct client *cl, const char *name)
{
    struct buf path = BUF_INIT;
    json_t *member = NULL;
    buf_addz(&path, "/members/");
    list_escape(&path, name);
    int r = client_call(c, cl, "DELETE", buf_cstr(&path), NULL, NULL, &member);
    buf_release(&path);
    if (r == 0 && c->json) {
        cli_print_json(member);
    } else if (r == 0) {
        printf("worker %s is revoked: its certificate is void, its jobs go to others\n",
               json_text(member, "name"));
        json_decref(member);
    }
    return r;
}

static int list_workers(struct cli *c, const struct client *cl)
{
    json_t *list = NULL;
    int r = list_fetch(c, cl, "workers", "", SIZE_MAX, &list);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:o}", "items", list));
    } else if (r == 0) {
        print_workers(c, list);
        json_decref(list);
    }
    return r;
}

static int run(struct cli *c, const struct client *cl, const char *const *args, size_t count,
               const struct drain_options *drain)
{
    static const struct {
        const char *word;
        const char *route;
        const char *done;
    } actions[] = {{"pause", "pause", "takes no new work"},
                   {"resume", "resume", "takes work again"},
                   {"drain", "drain", "drains"},
                   {"undrain", "undrain", "takes work again"}};
    if ((drain->deadline != NULL || drain->leave) &&
        (count != 2 || strcmp(args[0], "drain") != 0)) {
        return cli_fail(c, -E_USAGE, "--deadline and --leave are for drain");
    }
    if (count == 0) {
        return list_workers(c, cl);
    }
    if (count == 2 && strcmp(args[0], "revoke") == 0) {
        return revoke(c, cl, args[1]);
    }
    for (size_t i = 0; i < ARRAY_LEN(actions) && count == 2; i++) {
        if (strcmp(args[0], actions[i].word) == 0) {
            return act(c, cl, args[1], actions[i].route, actions[i].done, drain);
        }
    }
    return cli_fail(c, -E_USAGE,
                    "davit workers, or davit workers pause|resume|drain|undrain|revoke WORKER");
}

int cmd_workers(struct cli *c, int argc, char **argv)
{
    struct drain_options drain = {.leave = false};
    const struct opt opts[] = {
        {"deadline", 0, OPT_TEXT, &drain.deadline, "TIME", DEADLINE_HELP},
        {"leave", 0, OPT_FLAG, &drain.leave, NULL, LEAVE_HELP},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    const char **args;
    size_t count;
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    r = client_open(c, &cl);
    if (r == 0) {
        r = run(c, &cl, args, count, &drain);
        client_release(&cl);
    }
    free(args);
    return r;
}

int cmd_drain(struct cli *c, int argc, char **argv)
{
    bool undo = false;
    struct drain_options drain = {.leave = false};
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"undo", 0, OPT_FLAG, &undo, NULL, "take work again"},
        {"deadline", 0, OPT_TEXT, &drain.deadline, "TIME", DEADLINE_HELP},
        {"leave", 0, OPT_FLAG, &drain.leave, NULL, LEAVE_HELP},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 1, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    if (undo && (drain.deadline != NULL || drain.leave)) {
        free(args);
        return cli_fail(c, -E_USAGE, "--undo has neither --deadline nor --leave");
    }
    r = client_open(c, &cl);
    if (r == 0) {
        r = act(c, &cl, args[0], undo ? "undrain" : "drain", undo ? "takes work again" : "drains",
                &drain);
        client_release(&cl);
    }
    free(args);
    return r;
}
