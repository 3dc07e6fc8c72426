/* Where actions may connect to, whom a fence lets pass, and that an action ends once. */
#include "common/base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "worker/action/state.h"
#include "worker/shim/proc.h"

static bool admits(const struct reach *r, const char *address, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
        return reach_admits(r, (struct sockaddr *)&v4);
    }
    assert_int_equal(inet_pton(AF_INET6, address, &v6.sin6_addr), 1);
    return reach_admits(r, (struct sockaddr *)&v6);
}

static void without_patterns_all_but_link_local(void **state)
{
    struct reach r = {0};
    (void)state;
    assert_true(admits(&r, "127.0.0.1", 80));
    assert_true(admits(&r, "10.0.0.1", 80));
    assert_true(admits(&r, "2001:db8::1", 443));
    assert_false(admits(&r, "169.254.169.254", 80));
    assert_false(admits(&r, "::ffff:169.254.169.254", 80));
    assert_false(admits(&r, "fe80::1", 80));
    assert_false(admits(&r, "fd00:ec2::254", 80));
    assert_false(admits(&r, "224.0.0.1", 80));
    assert_false(admits(&r, "0.0.0.0", 80));
}

static void with_patterns_only_these(void **state)
{
    static const char *const good[] = {"10.1.0.0/16:443", "[fd00::/8]:80", "192.0.2.7",
                                       "169.254.169.254:80"};
    static const char *const bad[] = {"",           "10.0.0.0/33", "host:80", "10.0.0.1:0",
                                      "10.0.0.1:x", "[fd00::",     "/8",      "10.0.0.1:65536"};
    struct reach r = {0};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(reach_add(&r, good[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(reach_add(&r, bad[i]), -E_USAGE);
    }
    assert_true(admits(&r, "10.1.2.3", 443));
    assert_false(admits(&r, "10.1.2.3", 80));
    assert_false(admits(&r, "10.2.0.1", 443));
    assert_true(admits(&r, "fd12::1", 80));
    assert_true(admits(&r, "192.0.2.7", 1));
    assert_true(admits(&r, "169.254.169.254", 80));
    assert_false(admits(&r, "127.0.0.1", 80));
    reach_release(&r);
    assert_int_equal(reach_add(&r, "*:443"), 0);
    assert_true(admits(&r, "127.0.0.1", 443));
    assert_false(admits(&r, "169.254.169.254", 443));
    reach_release(&r);
}

static int pass(struct fences *f, const char *target, uint64_t generation, uint64_t epoch,
                uint64_t rollout)
{
    Pb__ActionFence fence = PB__ACTION_FENCE__INIT, seen = PB__ACTION_FENCE__INIT;
    fence.generation = generation;
    fence.epoch = epoch;
    fence.rollout = rollout;
    return fences_pass(f, target, &fence, &seen);
}

static void what_is_lower_is_refused_for_good(void **state)
{
    char *dir = os_make_temp_dir("davit-fence");
    struct fences f;
    (void)state;
    fences_init(&f, dir);
    assert_int_equal(pass(&f, "web", 3, 5, 7), 0);
    assert_int_equal(pass(&f, "web", 3, 5, 7), 0);
    assert_int_equal(pass(&f, "web", 3, 4, 7), -E_STALE_EPOCH);
    assert_int_equal(pass(&f, "web", 2, 9, 7), -E_STALE_EPOCH);
    assert_int_equal(pass(&f, "web", 3, 6, 8), -E_STALE_EPOCH);
    assert_int_equal(pass(&f, "other", 1, 1, 1), 0);
    fences_release(&f);
    fences_init(&f, dir); /* a new process */
    assert_int_equal(pass(&f, "web", 3, 4, 7), -E_STALE_EPOCH);
    assert_int_equal(pass(&f, "web", 3, 6, 7), 0);
    assert_int_equal(pass(&f, "web", 3, 5, 7), -E_STALE_EPOCH);
    assert_int_equal(pass(&f, "web", 4, 1, 8), 0);
    fences_release(&f);
    assert_int_equal(os_remove_tree(dir), 0);
    free(dir);
}

/* ---- actions on a loop ---- */

struct world {
    char *dir;
    struct loop *loop;
    struct reach reach;
    struct actions *actions;
    Pb__JobSpec spec;
    Pb__ActionSpec what;
    Pb__DriverAction driver;
    Pb__ActionFence fence;
    int ends;
    int releases;
    bool ok;
    char code[32];
    char text[128];
    struct buf data;
};

static struct world *now; /* of the driver */

static void ignore_signal(void *ctx, int number)
{
    (void)ctx;
    (void)number;
}

static void on_ran(struct driver_call *call, const struct driver_reply *reply)
{
    Pb__RouterAnswer answer = PB__ROUTER_ANSWER__INIT;
    if (reply->error < 0) {
        driver_fail(call, err_code(reply->error), "%s", reply->why);
        return;
    }
    answer.weight_b_bp = (uint32_t)reply->status;
    assert_true(str_eqz(reply->out, "out\n"));
    assert_true(str_eqz(reply->err, "err\n"));
    driver_done(call, &answer.base);
    driver_fail(call, "twice", "what comes second is not heeded");
}

static void test_act(struct driver_call *call)
{
    static const char *const argv[] = {"sh", "-c", "echo out; echo err >&2; exit 7", NULL};
    static const char *const slow[] = {
        "sh", "-c", "setsid sh -c 'echo $$ >new; mv new pid; exec sleep 60' & sleep 60", NULL};
    bool is_slow = strcmp(call->what->verb, "slow") == 0;
    call->state = now;
    driver_exec(call,
                &(struct driver_exec){.argv = is_slow ? slow : argv,
                                      .limit = 100,
                                      .timeout_ms = is_slow ? 2000 : 9000},
                on_ran);
}

static void test_release(struct driver_call *call)
{
    struct world *w = call->state;
    w->releases++;
}

static const struct driver test_driver = {.name = "test", .act = test_act, .release = test_release};
static const struct driver *const test_drivers[] = {&test_driver, NULL};

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    w->dir = os_make_temp_dir("davit-action");
    assert_int_equal(loop_new(ignore_signal, w, &w->loop), 0);
    w->actions = actions_new(w->loop, &w->reach, w->dir);
    w->actions->drivers = test_drivers;
    pb__job_spec__init(&w->spec);
    pb__action_spec__init(&w->what);
    pb__driver_action__init(&w->driver);
    pb__action_fence__init(&w->fence);
    w->spec.action = &w->what;
    w->spec.timeout_ms = 20000;
    w->fence.generation = 2;
    w->fence.epoch = 2;
    w->driver.driver = (char *)"test";
    w->driver.target = (char *)"web";
    w->driver.verb = (char *)"run";
    w->driver.fence = &w->fence;
    now = *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    actions_free(w->actions);
    loop_free(w->loop);
    assert_int_equal(os_remove_tree(w->dir), 0);
    buf_release(&w->data);
    free(w->dir);
    free(w);
    return 0;
}

static void on_end(void *ctx, Pb__ActionResult *result, Pb__Reason reason)
{
    struct world *w = ctx;
    w->ends++;
    w->ok = result->ok;
    assert_int_equal(result->ok, reason == REASON_NONE);
    strncpy(w->code, result->code, sizeof(w->code) - 1);
    strncpy(w->text, result->text, sizeof(w->text) - 1);
    buf_add_str(&w->data, pb_str(result->data));
    loop_stop(w->loop);
}

static void run(struct world *w)
{
    int before = w->ends;
    action_begin(w->actions, &w->spec, on_end, w);
    assert_int_equal(w->ends, before); /* not from within */
    loop_run(w->loop);
    assert_int_equal(w->ends, before + 1);
}

static void drive(struct world *w)
{
    w->what.what_case = PB__ACTION_SPEC__WHAT_DRIVER;
    w->what.driver = &w->driver;
    run(w);
}

static void a_driver_runs_a_program_and_answers_once(void **state)
{
    struct world *w = *state;
    struct arena arena;
    Pb__RouterAnswer *answer;
    drive(w);
    assert_true(w->ok);
    arena_init(&arena, 0);
    assert_int_equal(
        PB_UNPACK(&arena, router_answer, w->data.p, w->data.n, LIMIT_ACTION_DATA, &answer), 0);
    assert_int_equal(answer->weight_b_bp, 7);
    assert_int_equal(w->releases, 1);
    arena_release(&arena);
}

static void a_program_that_takes_too_long_is_killed(void **state)
{
    struct world *w = *state;
    w->driver.verb = (char *)"slow";
    drive(w);
    assert_false(w->ok);
    assert_string_equal(w->code, "timeout");
    assert_int_equal(w->releases, 1);
    /* With what went into a session of its own. */
    struct buf text = BUF_INIT;
    struct proc proc;
    uint64_t pid, start;
    char *path = os_path_join(w->dir, "drivers/test/pid");
    assert_int_equal(os_read_file(path, 16, &text), 0);
    assert_int_equal(str_to_u64(str_trim(buf_str(&text)), &pid), 0);
    assert_true(proc_read((pid_t)pid, &proc, &start) < 0 || proc.state == 'Z');
    buf_release(&text);
    free(path);
}

static void a_lower_fence_never_reaches_the_driver(void **state)
{
    struct world *w = *state;
    assert_int_equal(pass(&w->actions->fences, "web", 2, 3, 0), 0);
    drive(w);
    assert_string_equal(w->code, "stale");
    assert_int_equal(w->releases, 0);
}

static void a_driver_that_is_not_here_is_named(void **state)
{
    struct world *w = *state;
    w->driver.driver = (char *)"none";
    drive(w);
    assert_string_equal(w->code, "no_driver");
}

static void the_jobs_time_ends_a_wait(void **state)
{
    struct world *w = *state;
    Pb__WaitAction wait = PB__WAIT_ACTION__INIT;
    wait.ms = 60000;
    w->spec.timeout_ms = 20;
    w->what.what_case = PB__ACTION_SPEC__WHAT_WAIT;
    w->what.wait = &wait;
    run(w);
    assert_string_equal(w->code, "timeout");
}

static void where_nobody_may_go_nobody_goes(void **state)
{
    struct world *w = *state;
    Pb__HttpAction http = PB__HTTP_ACTION__INIT;
    http.url = pb_bytes_ref(STR("http://169.254.169.254/latest"));
    w->what.what_case = PB__ACTION_SPEC__WHAT_HTTP;
    w->what.http = &http;
    run(w);
    assert_string_equal(w->code, "denied");
}

int main(void)
{
#define ON_LOOP(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_patterns_all_but_link_local),
        cmocka_unit_test(with_patterns_only_these),
        cmocka_unit_test(what_is_lower_is_refused_for_good),
        ON_LOOP(a_driver_runs_a_program_and_answers_once),
        ON_LOOP(a_program_that_takes_too_long_is_killed),
        ON_LOOP(a_lower_fence_never_reaches_the_driver),
        ON_LOOP(a_driver_that_is_not_here_is_named),
        ON_LOOP(the_jobs_time_ends_a_wait),
        ON_LOOP(where_nobody_may_go_nobody_goes),
    };
    http_global_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
