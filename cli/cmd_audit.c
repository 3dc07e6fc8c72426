/* davit audit: who changed what, from where and when. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/list.h"

#define USUAL 100u

static void print_row(const json_t *t)
{
    printf("%-21s %-16s %-16s %-20s", json_text(t, "time"), json_text(t, "actor"),
           json_text(t, "from"), json_text(t, "action"));
    if (json_text(t, "project")[0] != '\0') {
        printf(" %s", json_text(t, "project"));
    }
    if (json_text(t, "target")[0] != '\0') {
        printf(" %s", json_text(t, "target"));
    }
    if (json_number(t, "target_id") > 0) {
        printf(" %" PRIu64, json_number(t, "target_id"));
    }
    printf("\n");
}

int cmd_audit(struct cli *c, int argc, char **argv)
{
    uint64_t most = USUAL;
    json_t *items = NULL;
    json_t *t;
    size_t i;
    const struct opt opts[] = {
        {"limit", 'n', OPT_NUMBER, &most, "N", "the newest N (100)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 0, NULL, NULL);
    if (r == 0 && most == 0) {
        r = cli_fail(c, -E_USAGE, "--limit is 1 at least");
    }
    r = r < 0 ? r : client_open(c, &cl);
    if (r < 0) {
        return r;
    }
    r = list_fetch(c, &cl, "audit", "", most, &items);
    client_release(&cl);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", items));
        return 0;
    }
    json_array_foreach(items, i, t)
    {
        print_row(t);
    }
    json_decref(items);
    return 0;
}
