/* davit up: a broker and workers on loopback, in the foreground, until Ctrl-C. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/stack.h"
#include "common/os.h"

#define TICK_MS 50u

static void print_ready(const struct cli *c, const struct stack *s, const struct stack_options *o)
{
    if (c->json) {
        json_t *workers = json_array();
        for (size_t i = 0; i < o->workers; i++) {
            json_array_append_new(workers, json_integer(stack_worker_pid(s, i)));
        }
        cli_print_json(json_pack("{s:s, s:s, s:i, s:o}", "url", stack_client(s)->url, "data",
                                 o->data, "broker_pid", (int)stack_broker_pid(s), "worker_pids",
                                 workers));
    } else {
        printf("broker   %s  (pid %d)\n", stack_client(s)->url, (int)stack_broker_pid(s));
        for (size_t i = 0; i < o->workers; i++) {
            printf("worker   local-%zu, %" PRIu64 " slots  (pid %d)\n", i + 1, o->slots,
                   (int)stack_worker_pid(s, i));
        }
        printf("data     %s\n\nTry: davit submit --follow    Stop: Ctrl-C\n", o->data);
    }
    fflush(stdout);
}

int cmd_up(struct cli *c, int argc, char **argv)
{
    struct stack_options o = {
        .listen = "tcp://127.0.0.1:7070",
        .http = "127.0.0.1:7080",
        .workers = 2,
        .executors = "shell,action",
        .slots = (uint64_t)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1),
        .logs_to_files = true,
    };
    bool no_restart = false;
    struct stack *stack = NULL;
    const struct opt opts[] = {
        {"workers", 'w', OPT_NUMBER, &o.workers, "N", "how many workers (2)"},
        {"slots", 'j', OPT_NUMBER, &o.slots, "N", "jobs at a time of each (processors)"},
        {"tags", 0, OPT_TEXT, &o.tags, "A,B", "tags of the workers"},
        {"executors", 0, OPT_TEXT, &o.executors, "A,B",
         "of the workers: shell, docker, action (shell,action)"},
        {"listen", 0, OPT_TEXT, &o.listen, "URL", "address for workers (tcp://127.0.0.1:7070)"},
        {"http", 0, OPT_TEXT, &o.http, "HOST:PORT", "address of the API (127.0.0.1:7080)"},
        {"no-restart", 0, OPT_FLAG, &no_restart, NULL, "do not start again what dies"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    int r = cli_options(c, opts, argc, argv, 0, 0, NULL, NULL);
    if (r < 0) {
        return r;
    }
    if (o.workers > STACK_WORKERS_MAX || o.slots < 1 || o.slots > 1024) {
        return cli_fail(c, -E_USAGE, "at most %u workers of 1 to 1024 slots", STACK_WORKERS_MAX);
    }
    char *data = client_data_dir(c);
    o.data = data;
    o.restart = !no_restart;
    interrupt_catch();
    r = stack_start(c, &o, &stack);
    if (r == 0) {
        print_ready(c, stack, &o);
        bool said = false;
        while (interrupt_count() == 0) {
            if (!stack_tick(stack) && !said) {
                fprintf(stderr, "davit: a program ended; its log is in %s\n", data);
                said = true;
            }
            os_sleep_ms(TICK_MS);
        }
        fprintf(stderr, "davit: stopping; running jobs may end (at most 30 s)\n");
        stack_stop(stack, false);
    }
    free(data);
    return r;
}
