#include "common/base.h"

#include <stdio.h>

#include "common/http.h"
#include "worker/agent.h"
#include "worker/join.h"

static int run(int argc, char **argv)
{
    struct worker_config config;
    struct agent agent;
    struct buf why = BUF_INIT;
    int code = 0;
    int r = worker_config_parse(&config, argc, argv, &why);
    if (r < 0) {
        fprintf(stderr, "davit-worker: %s\n", buf_cstr(&why));
        code = err_exit_code(r);
    } else if (config.help) {
        fputs(worker_usage, stdout);
    } else {
        log_init("davit-worker", config.log_level);
        http_global_init();
        r = agent_init(&agent, &config, &why);
        if (r < 0) {
            log_error("%s", buf_cstr(&why));
        }
        code = r < 0 ? err_exit_code(r) : agent_run(&agent);
        agent_release(&agent);
    }
    worker_config_release(&config);
    buf_release(&why);
    return code;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "--help";
    if (strcmp(command, "step") == 0 && argc == 4) {
        http_global_init();
        return step_main(argv[2], argv[3]);
    }
    if (strcmp(command, "join") == 0) {
        return join_main(argc - 2, argv + 2);
    }
    if (strcmp(command, "sweep") == 0 && argc == 3) {
        return sweep_main(argv[2]);
    }
    if (strcmp(command, "version") == 0 || strcmp(command, "--version") == 0) {
        puts("davit-worker " DAVIT_VERSION);
        return 0;
    }
    return run(argc - 1, argv + 1);
}
