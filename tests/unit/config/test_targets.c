#include "common/base.h"

#include "broker/config/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/drivers.h"
#include "proto/rollout.h"

/* All errors of a text in one, or "". */
static char *read_text(struct options *o, const char *text)
{
    struct diags diags;
    struct buf out = BUF_INIT;

    options_init(o);
    diags_init(&diags);
    options_read(o, "davitd.yml", str_from(text), &diags);
    for (size_t i = 0; i < diags.count; i++) {
        diag_render(&diags.items[i], NULL, NULL, false, &out);
    }
    diags_release(&diags);
    (void)buf_cstr(&out);
    return buf_take(&out);
}

#define RUN "    run: {driver: exec, command: ./instances}\n"

static const char whole[] =
    "targets:\n"
    "  production/web:\n"
    "    projects: [shop/*]\n"
    "    workers: {pool: edge, tags: [prod]}\n"
    "    places: [h1, h2]\n"
    "    instances: 3\n"
    "    run: {driver: exec, command: ./instances --keep, timeout: 90s}\n"
    "    router: {driver: haproxy, socket: /run/h.sock, map: /etc/w.map, key: web, backend_a: a, "
    "backend_b: b}\n"
    "    metrics:\n"
    "      error_rate: {driver: haproxy, socket: /run/h.sock, backend_a: a, backend_b: b}\n"
    "      latency: {kind: histogram, driver: http, buckets: request_seconds}\n"
    "    freezes:\n"
    "      weekend: {cron: '0 18 * * fri', for: 62h, zone: Berlin}\n"
    "      holidays: {from: '2026-12-24T00:00:00Z', until: '2027-01-02T00:00:00Z'}\n"
    "    gate: {roles: [maintainer], count: 2}\n"
    "    tick: 1s\n"
    "    drain: 5s\n"
    "    settle: 2s\n"
    "    kill_ratio: 20%\n"
    "    unready_failures: 4\n"
    "    restart_failures: 5\n"
    "    synthetic: {driver: http, url: 'http://127.0.0.1/', rate: 20}\n"
    "    notify: [{driver: webhook, url: 'http://127.0.0.1:1/'}]\n"
    "    keep_snapshots: 5\n";

static void a_target_has_all_that_is_written(void **state)
{
    struct options o;
    char *said = read_text(&o, whole);
    const Pb__RolloutTarget *t;

    assert_string_equal(said, "");
    assert_int_equal(o.declared->n_targets, 1);
    t = o.declared->targets[0];
    assert_string_equal(t->environment, "production");
    assert_string_equal(t->name, "web");
    assert_string_equal(t->projects[0], "shop/*");
    assert_string_equal(t->pool, "edge");
    assert_string_equal(t->tags[0], "prod");
    assert_int_equal(t->n_places, 2);
    assert_int_equal(t->instances, 3);
    assert_string_equal(t->instance_driver->driver, "exec");
    assert_int_equal(t->instance_driver->n_settings, 2);
    assert_string_equal(t->router_driver->driver, "haproxy");
    assert_int_equal(t->n_metrics, 2);
    assert_int_equal(t->metrics[1]->kind, TARGET_METRIC_HISTOGRAM);
    assert_int_equal(t->n_freezes, 2);
    assert_string_equal(t->freezes[0]->zone, "Europe/Berlin");
    assert_true(t->freezes[0]->zone_data.len > 0);
    assert_int_equal(t->freezes[0]->for_ms, 62u * 3600000);
    assert_true(t->freezes[1]->from_ms < t->freezes[1]->until_ms);
    assert_int_equal(t->gate_approvals, 2);
    assert_int_equal(t->tick_ms, 1000);
    assert_int_equal(t->drain_ms, 5000);
    assert_int_equal(t->settle_ms, 2000);
    assert_int_equal(t->kill_ratio_millionths, 200000);
    assert_int_equal(t->unready_failures, 4);
    assert_int_equal(t->restart_failures, 5);
    assert_string_equal(t->synthetic->driver, "http");
    assert_string_equal(t->notify[0]->driver, "webhook");
    assert_int_equal(t->keep_snapshots, 5);
    free(said);
    options_release(&o);
    (void)state;
}

static void what_is_wrong_has_its_place_and_what_there_is(void **state)
{
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"targets: {web: {}}", "a target is named ENVIRONMENT/NAME"},
        {"targets:\n  p/w:\n    instances: 2\n", "a target has `run`"},
        {"targets:\n  p/w:\n" RUN "    instances: 0\n",
         "4:16: error: `instances` is a number, 1 to 100"},
        {"targets:\n  p/w:\n" RUN "    plases: [a]\n", "did you mean `places`?"},
        {"targets:\n  p/w:\n    run: {driver: exce}\n", "there are: exec"},
        {"targets:\n  p/w:\n    run: {driver: exec}\n", "the driver `exec` needs `command`"},
        {"targets:\n  p/w:\n    run: {driver: exec, command: c, port: 3}\n",
         "there is no `port` of the driver `exec`"},
        {"targets:\n  p/w:\n    run: {driver: process, command: c}\n",
         "the driver `process` needs `ports`"},
        {"targets:\n  p/w:\n    run: {driver: process, ports: 8199-8100}\n",
         "3:35: error: `ports` is a range of ports as 8100-8199"},
        {"targets:\n  p/w:\n" RUN "    synthetic: {driver: http, url: u, rate: many}\n",
         "`rate` is a number from 1 on"},
        {"targets:\n  p/w:\n" RUN "    metrics: {e: {driver: http, total: t}}\n",
         "metric `e` needs `total` and `bad`"},
        {"targets:\n  p/w:\n" RUN "    metrics: {e: {driver: http, kind: guess, value: v}}\n",
         "`kind` is ratio, histogram or value"},
        {"targets:\n  p/w:\n" RUN "    freezes: {x: {cron: '0 0 * * *'}}\n",
         "freeze `x` has `cron` and `for`, or `from` and `until`"},
        {"targets:\n  p/w:\n" RUN "    freezes: {x: {cron: '99 0 * * *', for: 1h}}\n",
         "`cron` is a cron expression"},
        {"targets:\n  p/w:\n" RUN "    freezes: {x: {cron: '0 0 * * *', for: 1h, zone: Nowhere}}\n",
         "`zone` is a time zone"},
        {"targets:\n  p/w:\n" RUN "    kill_ratio: 0.2\n", "`kill_ratio` is a share as 20%"},
        {"targets:\n  p/w:\n" RUN "    gate: [release-managers]\n",
         "4:11: error: `gate`: `release-managers` is no role"},
        {"targets:\n  p/w:\n" RUN "    projects: [/web]\n", "a project is group/name, or group/*"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct options o;
        char *said = read_text(&o, cases[i].text);
        if (strstr(said, cases[i].says) == NULL) {
            fail_msg("%s\nsays: %s\nnot: %s", cases[i].text, said, cases[i].says);
        }
        free(said);
        options_release(&o);
    }
}

static void every_driver_has_its_settings(void **state)
{
    const char *names[16];

    (void)state;
    assert_int_equal(driver_names(DRIVER_ROUTER, names, ARRAY_LEN(names)), 4);
    assert_true(driver_find(DRIVER_ROUTER, STR("prometheus")) < 0);
    assert_null(driver_setting_at(driver_find(DRIVER_ROUTER, STR("none")), 0));
    assert_string_equal(driver_setting_at(driver_find(DRIVER_LOAD, STR("http")), 2)->name, "rate");
    assert_null(driver_setting_at(driver_find(DRIVER_LOAD, STR("http")), 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_target_has_all_that_is_written),
        cmocka_unit_test(what_is_wrong_has_its_place_and_what_there_is),
        cmocka_unit_test(every_driver_has_its_settings),
    };

    return cmocka_run_group_tests_name("config targets", tests, NULL, NULL);
}
