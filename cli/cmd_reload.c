/* davit reload: the broker reads its configuration anew. */
#include "common/base.h"

#include <stdio.h>

#include "cli/client.h"

static void print_lines(const json_t *answer, const char *field, const char *before)
{
    size_t i;
    json_t *line;
    json_array_foreach(json_object_get(answer, field), i, line)
    {
        printf("%s%s\n", before, json_string_value(line));
    }
}

int cmd_reload(struct cli *c, int argc, char **argv)
{
    const struct opt opts[] = {{NULL, 0, OPT_FLAG, NULL, NULL, NULL}};
    struct client cl;
    json_t *answer = NULL;
    int r = cli_options(c, opts, argc, argv, 0, 0, NULL, NULL);
    r = r < 0 ? r : client_open(c, &cl);
    if (r < 0) {
        return r;
    }
    r = client_call(c, &cl, "POST", "/reload", NULL, NULL, &answer);
    client_release(&cl);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(answer);
        return 0;
    }
    if (json_array_size(json_object_get(answer, "changed")) == 0) {
        printf("nothing has changed\n");
    }
    print_lines(answer, "changed", "changed: ");
    print_lines(answer, "restart", "waits for a restart of davitd: ");
    json_decref(answer);
    return 0;
}
