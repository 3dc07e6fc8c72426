#include "common/base.h"

#include <stdio.h>

#include "cli/cli.h"

int cmd_version(struct cli *c, int argc, char **argv)
{
    const struct opt opts[] = {{NULL, 0, OPT_FLAG, NULL, NULL, NULL}};
    int r = cli_options(c, opts, argc, argv, 0, 0, NULL, NULL);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:s}", "version", DAVIT_VERSION));
    } else if (r == 0) {
        printf("davit %s\n", DAVIT_VERSION);
    }
    return r;
}
