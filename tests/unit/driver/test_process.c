/* The driver `process` with real davit-keeps (beside the worker: DAVIT_BIN_DIR) and real services.
 */
#include "common/base.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"
#include "proto/rollout.h"
#include "worker/action/state.h"
#include "worker/keep/keep.h"
#include "worker/shim/shim.h"

#define PATIENCE_MS 60000u
#define SERVE       "exec /usr/bin/python3 -m http.server --bind 127.0.0.1 $PORT"

struct world {
    char *dir;
    struct loop *loop;
    struct reach reach;
    struct actions *actions;
    struct arena arena;
    const char *ports;
    const char *command;
    const char *health;
    const char *only;  /* a setting that goes before its like */
    const char *value; /* its value */
    uint64_t drain_ms;
    Pb__RolloutSlot slot;
    bool ok;
    char code[32];
    char text[LIMIT_ACTION_TEXT + 1];
    Pb__InstanceAnswer *answer;
};

static void ignore_signal(void *ctx, int number)
{
    (void)ctx;
    (void)number;
}

/* Ports that nobody has, by the process: tests run beside each other. */
static const char *some_ports(struct world *w, unsigned count)
{
    static unsigned next;
    const unsigned first = 20000 + (unsigned)(getpid() % 1000) * 10 + (next++ % 3) * 4;

    return arena_printf(&w->arena, "%u-%u", first, first + count - 1);
}

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    w->dir = os_make_temp_dir("davit-process");
    arena_init(&w->arena, SIZE_MAX);
    assert_int_equal(loop_new(ignore_signal, w, &w->loop), 0);
    w->actions = actions_new(w->loop, &w->reach, w->dir);
    w->ports = some_ports(w, 4);
    w->command = SERVE;
    w->health = "/";
    *state = w;
    return 0;
}

static void on_end(void *ctx, Pb__ActionResult *result, Pb__Reason reason)
{
    struct world *w = ctx;
    const struct str data = pb_str(result->data);

    (void)reason;
    w->ok = result->ok;
    snprintf(w->code, sizeof(w->code), "%s", result->code);
    snprintf(w->text, sizeof(w->text), "%s", result->text);
    w->answer = NULL;
    if (w->ok) {
        assert_int_equal(
            PB_UNPACK(&w->arena, instance_answer, data.p, data.n, LIMIT_ACTION_DATA, &w->answer),
            0);
    }
    loop_stop(w->loop);
}

static Pb__DriverSetting *setting(struct world *w, const char *name, const char *value)
{
    Pb__DriverSetting *s = arena_alloc(&w->arena, sizeof(*s));

    pb__driver_setting__init(s);
    s->name = (char *)name;
    s->value = pb_bytes_ref(str_from(value));
    return s;
}

static ProtobufCBinaryData args_of(struct world *w, uint32_t instances, const char *snapshot)
{
    Pb__InstanceArgs args = PB__INSTANCE_ARGS__INIT;
    Pb__DriverConfig config = PB__DRIVER_CONFIG__INIT;
    Pb__DriverSetting *settings[] = {
        setting(w, "ports", w->ports),   setting(w, "command", w->command),
        setting(w, "health", w->health), setting(w, "cwd", w->dir),
        setting(w, "grace", "1s"),       NULL};
    struct buf packed = BUF_INIT;

    config.settings = settings;
    config.n_settings = 5;
    if (w->only != NULL) { /* the first of a name is what counts */
        settings[config.n_settings++] = settings[0];
        settings[0] = setting(w, w->only, w->value);
    }
    args.service = (char *)"shop/production/web";
    args.slot = w->slot;
    args.instances = instances;
    args.snapshot = pb_bytes_ref(str_from(snapshot));
    args.version = (char *)"v1";
    args.drain_ms = w->drain_ms;
    args.driver = &config;
    pb_pack(&args.base, &packed);
    const ProtobufCBinaryData data = pb_bytes(&w->arena, buf_str(&packed));
    buf_release(&packed);
    return data;
}

static struct action *begin(struct world *w, Pb__JobSpec *spec, const char *verb,
                            uint32_t instances, const char *snapshot)
{
    Pb__ActionSpec *what = arena_alloc(&w->arena, sizeof(*what));
    Pb__DriverAction *action = arena_alloc(&w->arena, sizeof(*action));
    Pb__ActionFence *fence = arena_alloc(&w->arena, sizeof(*fence));

    pb__action_spec__init(what);
    pb__driver_action__init(action);
    pb__action_fence__init(fence);
    spec->timeout_ms = 60000;
    spec->action = what;
    what->what_case = PB__ACTION_SPEC__WHAT_DRIVER;
    what->driver = action;
    action->driver = (char *)"process";
    action->target = (char *)"web";
    action->fence = fence;
    fence->generation = fence->epoch = 1;
    action->verb = (char *)verb;
    action->args = args_of(w, instances, snapshot);
    return action_begin(w->actions, spec, on_end, w);
}

static void drive(struct world *w, const char *verb, uint32_t instances, const char *snapshot)
{
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    Pb__Variable secret = PB__VARIABLE__INIT, port = PB__VARIABLE__INIT, file = PB__VARIABLE__INIT;
    Pb__Variable *variables[] = {&secret, &port, &file};

    secret.name = (char *)"SECRET";
    secret.value = pb_bytes_ref(STR("hunter2hunter2"));
    secret.masked = true;
    port.name = (char *)"PORT"; /* that of the instance is what counts */
    port.value = pb_bytes_ref(STR("1"));
    file.name = (char *)"CONF";
    file.value = pb_bytes_ref(STR("key = value"));
    file.file = true;
    spec.variables = variables;
    spec.n_variables = ARRAY_LEN(variables);
    begin(w, &spec, verb, instances, snapshot);
    loop_run(w->loop);
}

static Pb__InstanceAnswer *good(struct world *w, const char *verb, uint32_t instances,
                                const char *snapshot)
{
    drive(w, verb, instances, snapshot);
    if (!w->ok) {
        print_error("%s: %s: %s\n", verb, w->code, w->text);
    }
    assert_true(w->ok);
    return w->answer;
}

static Pb__InstanceAnswer *wait_ready(struct world *w, uint32_t instances, const char *snapshot)
{
    const uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;

    for (;;) {
        Pb__InstanceAnswer *a = good(w, "status", instances, snapshot);
        size_t ready = 0;
        for (size_t i = 0; i < a->n_instances; i++) {
            ready += a->instances[i]->ready;
        }
        if (ready == instances && a->n_instances == instances) {
            return a;
        }
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(20);
    }
}

/* The instance's folder, by its address. */
static const char *folder_of(struct world *w, const Pb__InstanceState *s)
{
    struct buf out = BUF_INIT;
    const char *argv[] = {"/bin/sh", "-c",
                          arena_printf(&w->arena, "printf %%s %s/drivers/process/*/%c-%s", w->dir,
                                       w->slot == ROLLOUT_SLOT_B ? 'b' : 'a',
                                       strrchr(s->address, ':') + 1),
                          NULL};
    const struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    int status;

    assert_int_equal(os_run(&spawn, 4096, &out, &status), 0);
    const char *folder = arena_strdup(&w->arena, buf_str(&out));
    buf_release(&out);
    assert_true(os_exists(folder));
    return folder;
}

static struct keep_state state_of(struct world *w, const Pb__InstanceState *s)
{
    struct keep_state state;

    assert_int_equal(keep_state_read(folder_of(w, s), &state), 0);
    return state;
}

static struct str file_of(struct world *w, const char *path)
{
    struct buf text = BUF_INIT;

    if (os_read_file(path, 1u << 20, &text) < 0) {
        buf_clear(&text);
    }
    const struct str copy = arena_str(&w->arena, buf_str(&text));
    buf_release(&text);
    return copy;
}

static bool is_gone(pid_t pid)
{
    for (unsigned i = 0; i < 300 && kill(pid, 0) == 0; i++) {
        os_sleep_ms(10);
    }
    return kill(pid, 0) != 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;

    w->only = NULL;
    w->slot = ROLLOUT_SLOT_A;
    (void)good(w, "remove", 0, "s1");
    w->slot = ROLLOUT_SLOT_B;
    (void)good(w, "remove", 0, "s1");
    actions_free(w->actions);
    loop_free(w->loop);
    assert_int_equal(os_remove_tree(w->dir), 0);
    arena_release(&w->arena);
    free(w->dir);
    free(w);
    return 0;
}

/* ---- tests ---- */

static void what_is_asked_for_runs_and_is_asked_for_again(void **state)
{
    struct world *w = *state;
    Pb__InstanceAnswer *a;

    w->command = "env >env.$PORT; cat $CONF >conf.$PORT; echo with $SECRET; " SERVE;
    a = good(w, "ensure", 2, "s1");
    assert_int_equal(a->n_instances, 2);
    a = wait_ready(w, 2, "s1");
    assert_int_equal(a->instances[1]->index, 1);
    assert_int_equal(a->instances[1]->restarts, 0);
    assert_string_equal(a->instances[1]->detail, "");
    assert_true(str_eqz(pb_str(a->instances[1]->snapshot), "s1"));
    const pid_t first = state_of(w, a->instances[0]).child;
    const char *port = strrchr(a->instances[1]->address, ':') + 1;
    const struct str env = file_of(w, arena_printf(&w->arena, "%s/env.%s", w->dir, port));
    const char *const lines[] = {"DAVIT_SERVICE=shop/production/web\n",
                                 "DAVIT_SLOT=a\n",
                                 "DAVIT_INDEX=1\n",
                                 "DAVIT_VERSION=v1\n",
                                 "SECRET=hunter2hunter2\n",
                                 "DAVIT_SNAPSHOT=7331\n"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        assert_true(str_find(env, str_from(lines[i])) >= 0);
    }
    assert_true(
        str_eqz(file_of(w, arena_printf(&w->arena, "%s/conf.%s", w->dir, port)), "key = value"));
    const char *log = arena_printf(&w->arena, "%s/log", folder_of(w, a->instances[1]));
    assert_true(str_find(file_of(w, log), STR("with [MASKED]\n")) >= 0);

    a = good(w, "ensure", 2, "s1");
    assert_int_equal(state_of(w, a->instances[0]).child, first);
    assert_true(a->instances[0]->ready && a->instances[0]->ready_for_ms < 60000);
    os_sleep_ms(20);
    a = good(w, "status", 0, "s1");
    assert_true(a->instances[0]->ready_for_ms >= 20);
}

static void fewer_is_the_last_ones_after_their_drain(void **state)
{
    struct world *w = *state;
    Pb__InstanceAnswer *a;

    w->health = "tcp";
    good(w, "ensure", 2, "s1");
    a = wait_ready(w, 2, "s1");
    const pid_t last = state_of(w, a->instances[1]).child;
    const uint64_t began_ms = os_monotonic_ms();
    w->drain_ms = 300;
    a = good(w, "ensure", 1, "s1");
    assert_true(os_monotonic_ms() - began_ms >= 300);
    assert_int_equal(a->n_instances, 1);
    assert_int_equal(a->instances[0]->index, 0);
    assert_true(a->instances[0]->ready);
    assert_true(is_gone(last));
}

static void another_snapshot_replaces_and_waits_for_nobody_twice(void **state)
{
    struct world *w = *state;
    Pb__InstanceAnswer *a;

    good(w, "ensure", 1, "s1");
    a = wait_ready(w, 1, "s1");
    const pid_t old = state_of(w, a->instances[0]).child;
    a = good(w, "ensure", 1, "s2"); /* there is a port left: the new one is ready first */
    assert_int_equal(a->n_instances, 1);
    assert_int_equal(a->instances[0]->index, 1);
    assert_true(a->instances[0]->ready);
    assert_true(str_eqz(pb_str(a->instances[0]->snapshot), "s2"));
    assert_true(is_gone(old));
    good(w, "ensure", 2, "s2");
    wait_ready(w, 2, "s2");
    a = good(w, "ensure", 2, "s3"); /* there is none */
    assert_int_equal(a->n_instances, 2);
    assert_true(str_eqz(pb_str(a->instances[0]->snapshot), "s3"));
    assert_true(str_eqz(pb_str(a->instances[1]->snapshot), "s3"));
}

static void slots_have_ports_of_their_own(void **state)
{
    struct world *w = *state;
    Pb__InstanceAnswer *a;

    a = good(w, "ensure", 2, "s1");
    const char *last = a->instances[1]->address;
    w->slot = ROLLOUT_SLOT_B;
    a = good(w, "ensure", 1, "s1");
    assert_int_equal(a->n_instances, 1);
    assert_int_equal(atol(strrchr(a->instances[0]->address, ':') + 1),
                     atol(strrchr(last, ':') + 1) + 1);
    assert_int_equal(good(w, "remove", 0, "s1")->n_instances, 0);
    w->slot = ROLLOUT_SLOT_A;
    assert_int_equal(good(w, "status", 0, "s1")->n_instances, 2);
}

static void what_crashes_shows(void **state)
{
    struct world *w = *state;
    const uint64_t deadline_ms = os_monotonic_ms() + PATIENCE_MS;
    Pb__InstanceAnswer *a;

    w->command = "echo cannot find its database; exit 3";
    a = good(w, "ensure", 1, "s1");
    while (a->instances[0]->restarts < 2 || a->instances[0]->running) {
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(10);
        a = good(w, "status", 1, "s1");
    }
    assert_false(a->instances[0]->ready);
    assert_non_null(strstr(a->instances[0]->detail, "ended with 3, "));
    assert_non_null(strstr(a->instances[0]->detail, "it said: cannot find its database"));
    w->command = "exec sleep 1000";
    a = good(w, "ensure", 1, "s2");
    assert_false(a->instances[a->n_instances - 1]->ready);
}

static void who_loses_its_davit_keep_is_started_anew_alone(void **state)
{
    struct world *w = *state;
    Pb__InstanceAnswer *a;

    w->command = "setsid /usr/bin/python3 -m http.server --bind 127.0.0.1 $PORT & wait";
    good(w, "ensure", 1, "s1");
    a = wait_ready(w, 1, "s1");
    const char *folder = folder_of(w, a->instances[0]);
    assert_true(shim_signal(folder, SIGKILL));
    while (shim_alive(folder)) {
        os_sleep_ms(5);
    }
    a = good(w, "status", 1, "s1");
    assert_false(a->instances[0]->running);
    assert_non_null(strstr(a->instances[0]->detail, "its davit-keep is gone"));
    a = good(w, "ensure", 1, "s1");
    assert_int_equal(a->n_instances, 1);
    assert_true(a->instances[0]->running);
    assert_int_equal(a->instances[0]->restarts, 1);
    a = wait_ready(w, 1, "s1"); /* so the port was free */
    assert_int_equal(a->instances[0]->restarts, 1);
}

static void a_worker_that_starts_brings_them_back(void **state)
{
    struct world *w = *state;
    Pb__InstanceAnswer *a;

    good(w, "ensure", 1, "s1");
    a = wait_ready(w, 1, "s1");
    const char *folder = folder_of(w, a->instances[0]);
    assert_true(shim_signal(folder, SIGKILL));
    while (shim_alive(folder)) {
        os_sleep_ms(5);
    }
    actions_free(w->actions);
    w->actions = actions_new(w->loop, &w->reach, w->dir);
    assert_true(shim_alive(folder));
    wait_ready(w, 1, "s1");
}

static void damaged_files_are_no_reason_to_stop(void **state)
{
    struct world *w = *state;
    Pb__InstanceAnswer *a;

    good(w, "ensure", 1, "s1");
    a = wait_ready(w, 1, "s1");
    const char *folder = folder_of(w, a->instances[0]);
    const pid_t child = state_of(w, a->instances[0]).child;
    assert_int_equal(os_put_file(arena_printf(&w->arena, "%s/state", folder), "x", 1, 0600), 0);
    assert_int_equal(os_put_file(arena_printf(&w->arena, "%s/ready", folder), "x", 1, 0600), 0);
    a = good(w, "ensure", 1, "s1");
    assert_true(a->instances[0]->running && a->instances[0]->ready);
    assert_int_equal(kill(child, 0), 0);
    assert_int_equal(os_put_file(arena_printf(&w->arena, "%s/instance", folder), "\n", 1, 0600), 0);
    a = good(w, "status", 1, "s1");
    assert_false(a->instances[0]->ready);
    a = good(w, "ensure", 1, "s1"); /* nobody knows what it is: it is replaced */
    assert_int_equal(a->n_instances, 1);
    assert_true(is_gone(child));
    assert_true(str_eqz(pb_str(a->instances[0]->snapshot), "s1"));
}

static void a_later_action_ends_an_earlier_one(void **state)
{
    struct world *w = *state;
    Pb__JobSpec first = PB__JOB_SPEC__INIT, second = PB__JOB_SPEC__INIT;

    good(w, "ensure", 2, "s1");
    wait_ready(w, 2, "s1");
    w->drain_ms = 30000;
    begin(w, &first, "ensure", 1, "s1");
    begin(w, &second, "ensure", 2, "s1");
    loop_run(w->loop);
    assert_string_equal(w->code, "replaced");
    loop_run(w->loop);
    assert_true(w->ok);
    assert_int_equal(w->answer->n_instances, 2);
    assert_true(w->answer->instances[0]->ready && w->answer->instances[1]->ready);
}

static void wrong_settings_are_said(void **state)
{
    static const char *const wrong[][3] = {
        {"ports", "8100", "ports"},         {"ports", "8101-8100", "ports"},
        {"ports", "0-70000", "ports"},      {"ports", "8100-8103", "3 instances, and 2 ports"},
        {"address", "localhost", "number"}, {"health", "health", "a path"},
        {"health", "/ HTTP/1.1", "a path"}, {"cwd", "here", "whole path"},
        {"grace", "soon", "a time"},        {"command", "", "needs a command"},
    };
    struct world *w = *state;

    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        w->ports = strcmp(wrong[i][0], "ports") == 0 ? w->ports : "8100-8199";
        w->only = wrong[i][0];
        w->value = wrong[i][1];
        drive(w, "ensure", 3, "s1");
        assert_false(w->ok);
        assert_string_equal(w->code, "invalid");
        assert_non_null(strstr(w->text, wrong[i][2]));
    }
    w->only = NULL;
    w->ports = some_ports(w, 4);
    drive(w, "ensure", 1, "");
    assert_string_equal(w->code, "invalid");
    drive(w, "sample", 1, "s1");
    assert_string_equal(w->code, "invalid");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_asked_for_runs_and_is_asked_for_again),
        TEST(fewer_is_the_last_ones_after_their_drain),
        TEST(another_snapshot_replaces_and_waits_for_nobody_twice),
        TEST(slots_have_ports_of_their_own),
        TEST(what_crashes_shows),
        TEST(who_loses_its_davit_keep_is_started_anew_alone),
        TEST(a_worker_that_starts_brings_them_back),
        TEST(damaged_files_are_no_reason_to_stop),
        TEST(a_later_action_ends_an_earlier_one),
        TEST(wrong_settings_are_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
