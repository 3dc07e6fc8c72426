/* Changes of weight by the driver haproxy, each read back:
 * `bench_router FOLDER SOCKET MAP N PAUSE_MS` makes N, up and down, and prints how long each took:
 * one JSON object, in microseconds. The map's key is `web`, the backends are web_a and web_b;
 * servers stay as they are. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/http.h"
#include "common/os.h"
#include "proto/rollout.h"
#include "worker/action/state.h"

struct bench {
    struct loop *loop;
    struct actions *actions;
    struct loop_timer timer;
    Pb__JobSpec spec;
    Pb__ActionSpec what;
    Pb__DriverAction action;
    Pb__ActionFence fence;
    Pb__RouterArgs args;
    struct buf packed;
    uint64_t begun_us, count, left, pause_ms;
};

static void ignore_signal(void *ctx, int number)
{
    (void)ctx;
    (void)number;
}

static void begin(void *ctx);

static void on_end(void *ctx, Pb__ActionResult *result, Pb__Reason reason)
{
    struct bench *b = ctx;

    (void)reason;
    if (!result->ok) {
        fprintf(stderr, "bench_router: %s: %s\n", result->code, result->text);
        exit(1);
    }
    printf("%s%" PRIu64, b->count++ > 0 ? ", " : "", os_monotonic_us() - b->begun_us);
    if (--b->left == 0) {
        loop_stop(b->loop);
    } else {
        loop_timer_set(b->loop, &b->timer, os_monotonic_ms() + b->pause_ms, begin, b);
    }
}

/* 0 %, 10 %, ... 100 %, 90 %, ... */
static uint32_t weight_of(uint64_t n)
{
    const uint64_t phase = n % 20;

    return (uint32_t)(phase <= 10 ? phase : 20 - phase) * 1000;
}

static void begin(void *ctx)
{
    struct bench *b = ctx;

    b->args.weight_b_bp = weight_of(b->count);
    buf_clear(&b->packed);
    PB_PACK(&b->args, &b->packed);
    b->action.args = pb_bytes_ref(buf_str(&b->packed));
    b->begun_us = os_monotonic_us();
    action_begin(b->actions, &b->spec, on_end, b);
}

static Pb__DriverSetting setting(const char *name, const char *value)
{
    Pb__DriverSetting s = PB__DRIVER_SETTING__INIT;

    s.name = (char *)(uintptr_t)name;
    s.value = pb_bytes_ref(str_from(value));
    return s;
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct reach reach = {0};
    uint64_t count;
    Pb__DriverConfig config = PB__DRIVER_CONFIG__INIT;

    if (argc != 6 || str_to_u64(str_from(argv[4]), &count) < 0 || count == 0 ||
        str_to_u64(str_from(argv[5]), &b.pause_ms) < 0) {
        fprintf(stderr, "bench_router FOLDER SOCKET MAP N PAUSE_MS\n");
        return 2;
    }
    Pb__DriverSetting rows[] = {setting("socket", argv[2]), setting("map", argv[3]),
                                setting("key", "web"), setting("backend_a", "web_a"),
                                setting("backend_b", "web_b")};
    Pb__DriverSetting *settings[ARRAY_LEN(rows)];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        settings[i] = &rows[i];
    }
    config.driver = (char *)"haproxy";
    config.settings = settings;
    config.n_settings = ARRAY_LEN(rows);
    pb__job_spec__init(&b.spec);
    pb__action_spec__init(&b.what);
    pb__driver_action__init(&b.action);
    pb__action_fence__init(&b.fence);
    pb__router_args__init(&b.args);
    b.args.service = (char *)"bench/production/web";
    b.args.driver = &config;
    b.spec.timeout_ms = 60000;
    b.spec.action = &b.what;
    b.what.what_case = PB__ACTION_SPEC__WHAT_DRIVER;
    b.what.driver = &b.action;
    b.action.driver = (char *)"haproxy";
    b.action.verb = (char *)"set";
    b.action.target = (char *)"web";
    b.action.fence = &b.fence;
    b.fence.generation = b.fence.epoch = 1;
    b.left = count;
    http_global_init();
    check(loop_new(ignore_signal, &b, &b.loop) == 0);
    b.actions = actions_new(b.loop, &reach, argv[1]);
    printf("{\"us\": [");
    begin(&b);
    loop_run(b.loop);
    printf("]}\n");
    actions_free(b.actions);
    loop_free(b.loop);
    buf_release(&b.packed);
    return 0;
}
