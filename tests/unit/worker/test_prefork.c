/* Pools of processes that are there before their jobs: real ones, which answer, fail, end, hang. */
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
#include "worker/action/state.h"

/* What it does is the job's input, a word of sh; `id` counts as the worker does. */
#define LOOP                                                                                     \
    "echo '{\"ready\": true}'; id=0; "                                                           \
    "while read -r line; do id=$((id+1)); "                                                      \
    "case $line in "                                                                             \
    "*'\"input\":\"pid\"'*) echo \"{\\\"id\\\":$id,\\\"output\\\":\\\"$$\\\"}\";; "              \
    "*'\"input\":\"log\"'*) echo said >&2; echo \"{\\\"id\\\":$id}\";; "                         \
    "*'\"input\":\"bad\"'*) echo \"{\\\"id\\\":$id,\\\"exit\\\":3,\\\"text\\\":\\\"no\\\"}\";; " \
    "*'\"input\":\"last\"'*) echo "                                                              \
    "\"{\\\"id\\\":$id,\\\"output\\\":\\\"$$\\\",\\\"last\\\":true}\"; exit;; "                  \
    "*'\"input\":\"die\"'*) echo why >&2; kill -9 $$;; "                                         \
    "*'\"input\":\"garbage\"'*) echo '{\"id\": 9';; "                                            \
    "*'\"input\":\"other\"'*) echo '{\"id\": 99}';; "                                            \
    "*'\"input\":\"flood\"'*) head -c 2000000 /dev/zero | tr '\\0' x;; "                         \
    "*'\"input\":\"hang\"'*) setsid sleep 61.375 & wait;; "                                      \
    "*'\"A\":\"secret-of-mine\"'*) echo secret-of-mine >&2; echo "                               \
    "\"{\\\"id\\\":$id,\\\"output\\\":\\\"a "                                                    \
    "secret-of-mine\\\"}\";; "                                                                   \
    "esac; done"

struct end {
    bool ok;
    Pb__Reason reason;
    char code[32];
    char text[200];
    char body[64];
    char log[200];
};

struct world {
    char *dir;
    struct loop *loop;
    struct reach reach;
    struct actions *actions;
    Pb__JobSpec spec;
    Pb__JobKey key;
    Pb__ActionSpec what;
    Pb__PreforkAction prefork;
    struct action *running;
    struct end end;
    uint32_t ends, awaited;
};

static void ignore_signal(void *ctx, int number)
{
    (void)ctx;
    (void)number;
}

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    w->dir = os_make_temp_dir("davit-prefork");
    assert_int_equal(loop_new(ignore_signal, w, &w->loop), 0);
    w->actions = actions_new(w->loop, &w->reach, w->dir);
    pb__job_spec__init(&w->spec);
    pb__job_key__init(&w->key);
    pb__action_spec__init(&w->what);
    pb__prefork_action__init(&w->prefork);
    w->spec.key = &w->key;
    w->spec.action = &w->what;
    w->spec.timeout_ms = 20000;
    w->what.what_case = PB__ACTION_SPEC__WHAT_PREFORK;
    w->what.prefork = &w->prefork;
    w->prefork.name = (char *)"p";
    w->prefork.keep_bytes = 60;
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    actions_free(w->actions);
    loop_free(w->loop);
    assert_int_equal(os_remove_tree(w->dir), 0);
    free(w->dir);
    free(w);
    return 0;
}

static void pool(struct world *w, uint32_t processes, const char *command, uint64_t recycle)
{
    const struct prefork_config config = {(char *)"p", (char *)(uintptr_t)command, processes};
    actions_add_pool(w->actions, &config, recycle);
}

static void on_end(void *ctx, Pb__ActionResult *result, Pb__Reason reason)
{
    struct world *w = ctx;
    const struct str log = w->running != NULL ? action_log(w->running) : STR_NULL;
    w->end = (struct end){.ok = result->ok, .reason = reason};
    (void)snprintf(w->end.code, sizeof(w->end.code), "%s", result->code);
    (void)snprintf(w->end.text, sizeof(w->end.text), "%s", result->text);
    (void)snprintf(w->end.body, sizeof(w->end.body), STR_FMT, STR_ARG(pb_str(result->body)));
    (void)snprintf(w->end.log, sizeof(w->end.log), STR_FMT, STR_ARG(log));
    if (++w->ends == w->awaited) {
        loop_stop(w->loop);
    }
}

static struct end run(struct world *w, const char *input)
{
    w->prefork.input = pb_bytes_ref(str_from(input));
    w->awaited = w->ends + 1;
    w->running = action_begin(w->actions, &w->spec, on_end, w);
    assert_int_equal(w->ends + 1, w->awaited); /* not from within */
    loop_run(w->loop);
    assert_int_equal(w->ends, w->awaited);
    return w->end;
}

static void one_process_does_one_job_after_the_other(void **state)
{
    struct world *w = *state;
    pool(w, 1, LOOP, 0);
    const struct end first = run(w, "pid"), second = run(w, "pid");
    assert_true(first.ok);
    assert_true(second.ok);
    assert_string_equal(first.body, second.body);
    const struct end bad = run(w, "bad");
    assert_false(bad.ok);
    assert_int_equal(bad.reason, REASON_SCRIPT_FAILURE);
    assert_string_equal(bad.code, "exit");
    assert_string_equal(bad.text, "exit 3: no");
    assert_string_equal(run(w, "log").log, "said\n");
    assert_string_equal(run(w, "pid").log, "");
}

static void what_is_kept_is_cut(void **state)
{
    struct world *w = *state;
    w->prefork.keep_bytes = 1;
    pool(w, 1, LOOP, 0);
    assert_int_equal(strlen(run(w, "pid").body), 1);
}

static void who_says_that_it_was_the_last_is_replaced(void **state)
{
    struct world *w = *state;
    pool(w, 1, LOOP, 0);
    const struct end last = run(w, "last"), next = run(w, "pid");
    assert_true(last.ok);
    assert_true(next.ok);
    assert_string_not_equal(last.body, next.body);
}

static void after_so_many_jobs_it_is_replaced(void **state)
{
    struct world *w = *state;
    pool(w, 1, LOOP, 2);
    const struct end a = run(w, "pid"), b = run(w, "pid"), c = run(w, "pid");
    assert_string_equal(a.body, b.body);
    assert_string_not_equal(b.body, c.body);
}

static void a_process_that_dies_fails_its_job_alone(void **state)
{
    struct world *w = *state;
    pool(w, 1, LOOP, 0);
    const struct end end = run(w, "die");
    assert_string_equal(end.code, "died");
    assert_int_equal(end.reason, REASON_SCRIPT_FAILURE);
    assert_string_equal(end.text, "the process ended with signal 9: why");
    assert_true(run(w, "pid").ok);
}

static void what_is_no_answer_costs_the_process(void **state)
{
    static const char *const inputs[] = {"garbage", "other", "flood"};
    struct world *w = *state;
    pool(w, 1, LOOP, 0);
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
        const struct end before = run(w, "pid"), end = run(w, inputs[i]);
        assert_string_equal(end.code, "protocol");
        assert_string_not_equal(run(w, "pid").body, before.body);
    }
}

static size_t sleepers(void)
{
    FILE *f = popen("grep -lxz '61[.]375' /proc/[0-9]*/cmdline 2>/dev/null | wc -l", "r");
    size_t n = 0;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%zu", &n), 1);
    assert_int_equal(pclose(f), 0);
    return n;
}

static void a_job_that_takes_too_long_goes_with_all_that_it_started(void **state)
{
    struct world *w = *state;
    pool(w, 1, LOOP, 0);
    const struct end before = run(w, "pid");
    w->spec.timeout_ms = 500;
    const struct end end = run(w, "hang");
    assert_string_equal(end.code, "timeout");
    assert_int_equal(end.reason, REASON_JOB_TIMEOUT);
    assert_int_equal(sleepers(), 0); /* it had a session of its own */
    w->spec.timeout_ms = 20000;
    assert_string_not_equal(run(w, "pid").body, before.body);
}

static void secrets_are_hidden(void **state)
{
    struct world *w = *state;
    Pb__Variable v = PB__VARIABLE__INIT, *all[] = {&v};
    v.name = (char *)"A";
    v.value = pb_bytes_ref(STR("secret-of-mine"));
    v.masked = true;
    w->spec.variables = all;
    w->spec.n_variables = 1;
    pool(w, 1, LOOP, 0);
    const struct end end = run(w, "");
    assert_true(end.ok);
    assert_null(strstr(end.body, "of-mine"));
    assert_null(strstr(end.log, "of-mine"));
    v.masked = false;
    v.value = pb_bytes_ref(STR("\xff"));
    assert_string_equal(run(w, "").code, "invalid");
    w->spec.n_variables = 0;
    assert_true(run(w, "pid").ok); /* whoever was not asked has nothing to answer */
}

static void what_never_gets_ready_fails_its_jobs_for_others_to_have(void **state)
{
    static const char *const commands[] = {"echo broken >&2; exit 7", "echo hello; sleep 60"};
    struct world *w = *state;
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        w->prefork.name = (char *)"p";
        pool(w, 2, commands[i], 0);
        const struct end end = run(w, "pid");
        assert_string_equal(end.code, "died");
        assert_int_equal(end.reason, REASON_SYSTEM_FAILURE);
        assert_non_null(strstr(end.text, i == 0 ? "code 7: broken" : "is not {\"ready\": true}"));
        prefork_free(w->actions->pools[0]);
        w->actions->pool_count = 0;
    }
    w->prefork.name = (char *)"q";
    assert_string_equal(run(w, "pid").code, "no_pool");
}

static void jobs_wait_for_a_process_and_may_be_canceled(void **state)
{
    struct world *w = *state;
    struct action *all[20];
    pool(w, 2, LOOP, 0);
    w->prefork.input = pb_bytes_ref(STR("pid"));
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        all[i] = action_begin(w->actions, &w->spec, on_end, w);
    }
    action_cancel(all[7]);
    w->running = NULL; /* which one it is is not known */
    w->awaited = ARRAY_LEN(all) - 1;
    loop_run(w->loop);
    assert_int_equal(w->ends, ARRAY_LEN(all) - 1);
}

static void a_pool_is_named_and_counted(void **state)
{
    static const char *const bad[] = {"",       "p",      "p=",     "=sh",
                                      "p:0=sh", "p:x=sh", "p/q=sh", "p:2000=sh"};
    struct prefork_config c;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(prefork_parse(bad[i], &c), -E_USAGE);
    }
    assert_int_equal(prefork_parse("py-3.11:4=python3 loop.py --x=1:2", &c), 0);
    assert_string_equal(c.name, "py-3.11");
    assert_string_equal(c.command, "python3 loop.py --x=1:2");
    assert_int_equal(c.processes, 4);
    prefork_config_release(&c);
    assert_int_equal(prefork_parse("p=sh", &c), 0);
    assert_true(c.processes >= 1);
    prefork_config_release(&c);
}

int main(void)
{
#define ON_LOOP(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_is_named_and_counted),
        ON_LOOP(one_process_does_one_job_after_the_other),
        ON_LOOP(what_is_kept_is_cut),
        ON_LOOP(who_says_that_it_was_the_last_is_replaced),
        ON_LOOP(after_so_many_jobs_it_is_replaced),
        ON_LOOP(a_process_that_dies_fails_its_job_alone),
        ON_LOOP(what_is_no_answer_costs_the_process),
        ON_LOOP(a_job_that_takes_too_long_goes_with_all_that_it_started),
        ON_LOOP(secrets_are_hidden),
        ON_LOOP(what_never_gets_ready_fails_its_jobs_for_others_to_have),
        ON_LOOP(jobs_wait_for_a_process_and_may_be_canceled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
