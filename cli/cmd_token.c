/* davit token: lets workers join. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "cli/list.h"

struct token_options {
    bool worker;
    const char *pool;
    const char *tags;
    const char *ttl;
};

static int create(struct cli *c, const struct client *cl, const struct token_options *o)
{
    json_t *body = json_object();
    json_t *answer = NULL;
    json_object_set_new(body, "pool", json_string(o->pool != NULL ? o->pool : ""));
    json_object_set_new(body, "tags", list_words(o->tags));
    if (o->ttl != NULL) {
        json_object_set_new(body, "ttl", json_string(o->ttl));
    }
    int r = client_call(c, cl, "POST", "/join-tokens", body, NULL, &answer);
    json_decref(body);
    if (r == 0 && c->json) {
        cli_print_json(answer);
    } else if (r == 0) {
        printf("%s\n", json_text(answer, "token"));
        fprintf(stderr,
                "for one worker, until %s: davit-worker join %s --token TOKEN --state DIR\n",
                json_text(answer, "expires_at"), cl->url);
        json_decref(answer);
    }
    return r;
}

int cmd_token(struct cli *c, int argc, char **argv)
{
    struct token_options o = {0};
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"worker", 0, OPT_FLAG, &o.worker, NULL, "with which one worker may join, once"},
        {"pool", 0, OPT_TEXT, &o.pool, "NAME", "the pool that the worker is of"},
        {"tags", 0, OPT_TEXT, &o.tags, "TAG,...", "the tags that it may offer (any)"},
        {"ttl", 0, OPT_TEXT, &o.ttl, "TIME", "how long the token is good (1h; at most 30d)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 1, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    if (strcmp(args[0], "create") != 0 || !o.worker) {
        r = cli_fail(c, -E_USAGE, "davit token create --worker");
    }
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = create(c, &cl, &o);
        client_release(&cl);
    }
    free(args);
    return r;
}
