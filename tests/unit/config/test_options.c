#include "common/base.h"

#include "broker/config/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"

/* All errors of a text in one, or "". */
static char *read_text(struct options *o, const char *text)
{
    struct diags diags;
    struct buf out = BUF_INIT;

    options_init(o);
    diags_init(&diags);
    int r = options_read(o, "davitd.yml", str_from(text), &diags);
    assert_int_equal(r, diags.count > 0 ? -E_INVALID : 0);
    for (size_t i = 0; i < diags.count; i++) {
        diag_render(&diags.items[i], NULL, NULL, false, &out);
    }
    diags_release(&diags);
    (void)buf_cstr(&out);
    return buf_take(&out);
}

static void assert_wrong(const char *text, const char *expected)
{
    struct options o;
    char *said = read_text(&o, text);

    if (strstr(said, expected) == NULL) {
        fail_msg("%s\nsays: %s\nnot: %s", text, said, expected);
    }
    free(said);
    options_release(&o);
}

static void a_file_sets_what_it_names(void **state)
{
    struct options o;
    char *said = read_text(&o, "data: /d\n"
                               "heartbeat_ms: 1000\n"
                               "durability: relaxed:20\n"
                               "keep_pipelines: 30d\n"
                               "fetch_includes: true\n"
                               "log_level: debug\n"
                               "templates:\n"
                               "include_project: {group/ci: 'https://x/ci.git', a/b: /srv/b}\n");

    assert_string_equal(said, "");
    assert_string_equal(o.data, "/d");
    assert_int_equal(o.heartbeat_ms, 1000);
    assert_int_equal(o.relaxed_ms, 20);
    assert_int_equal(o.keep_pipelines_ms, 30ull * 24 * 3600 * 1000);
    assert_true(o.fetch_includes);
    assert_int_equal(o.log_level, LOG_DEBUG);
    assert_null(o.templates);
    assert_int_equal(o.projects.count, 2);
    assert_string_equal(o.projects.items[1].from, "/srv/b");
    assert_string_equal(o.http, "127.0.0.1:7080"); /* not said: the default */
    assert_null(o.said[OPTION_http]);
    free(said);
    options_release(&o);
}

static void a_file_declares_pools_and_projects(void **state)
{
    struct options o;
    char *said = read_text(&o, "pools:\n"
                               "  deploy:\n"
                               "    projects: [group/app, 'infra/*']\n"
                               "    protected: true\n"
                               "    locked: true\n"
                               "    max_running: 4\n"
                               "    project_max_running: 2\n"
                               "    queue_timeout: 30m\n"
                               "    preempt: true\n"
                               "    heartbeat_ms: 1000\n"
                               "    suspect_ms: 3000\n"
                               "    lease_ms: 8000\n"
                               "    on_worker_lost: wait\n"
                               "  plain:\n"
                               "projects:\n"
                               "  group/app: {weight: 300, max_running: 7, default_branch: trunk,\n"
                               "    protected_branches: [release/*, x], protected_tags: [v*]}\n");
    const Pb__PoolSet *p;

    assert_string_equal(said, "");
    assert_int_equal(o.declared->n_pools, 2);
    p = o.declared->pools[0];
    assert_string_equal(p->name, "deploy");
    assert_int_equal(p->n_projects, 2);
    assert_string_equal(p->projects[1], "infra/*");
    assert_true(p->protected_ && p->locked && p->preempt);
    assert_int_equal(p->max_running, 4);
    assert_int_equal(p->project_max_running, 2);
    assert_int_equal(p->queue_timeout_ms, 30 * 60 * 1000);
    assert_int_equal(p->heartbeat_ms, 1000);
    assert_int_equal(p->suspect_ms, 3000);
    assert_int_equal(p->lease_ms, 8000);
    assert_int_equal(p->on_worker_lost, PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT);
    p = o.declared->pools[1];
    assert_true(p->has_projects && p->has_lease && p->has_locked); /* to their defaults */
    assert_int_equal(p->n_projects, 0);
    assert_int_equal(o.declared->n_projects, 1);
    assert_int_equal(o.declared->projects[0]->weight, 300);
    assert_string_equal(o.declared->projects[0]->default_branch, "trunk");
    assert_int_equal(o.declared->projects[0]->n_protected_branches, 2);
    assert_string_equal(o.declared->projects[0]->protected_branches[0], "release/*");
    assert_string_equal(o.declared->projects[0]->protected_tags[0], "v*");
    assert_int_equal(o.declared->projects[0]->max_running, 7);
    free(said);
    options_release(&o);
}

static void what_is_wrong_has_its_place(void **state)
{
    assert_wrong("a: [\n", "davitd.yml:");
    assert_wrong("- a\n", "davitd.yml:1:1: error: the configuration is a mapping, not a list");
    assert_wrong("http: a\nlog_levle: info\n",
                 "davitd.yml:2:1: error: there is no `log_levle` in the configuration");
    assert_wrong("log_levle: info\n", "did you mean `log_level`?");
    assert_wrong("heartbeat_ms: 5\n", "davitd.yml:1:15: error: `heartbeat_ms` is a number");
    assert_wrong("data: [a]\n", "`data` is a text");
    assert_wrong("fetch_private: 1\n", "`fetch_private` is true or false");
    assert_wrong("data: a\ndata: b\n", "davitd.yml:2:1: error: ");
    assert_wrong("include_project: a/b=c\n", "`include_project` is a mapping");
    assert_wrong("include_project: {a/b: -x}\n", "NAME=URL");
    assert_wrong("pools: [a]\n", "`pools` is a mapping, not a list");
    assert_wrong("pools: {a: 3}\n", "pool `a` is a mapping");
    assert_wrong("pools:\n  a: {protekted: true}\n",
                 "davitd.yml:2:7: error: there is no `protekted` in pool `a`");
    assert_wrong("pools: {a: {locked: 1}}\n", "`locked` is true or false");
    assert_wrong("pools: {a: {max_running: -1}}\n", "`max_running` is a number, 0 to ");
    assert_wrong("pools: {a: {projects: x}}\n", "`projects` is a list");
    assert_wrong("pools: {a: {projects: [[x]]}}\n", "a project is group/name, or group/*");
    assert_wrong("pools: {a: {projects: ['*']}}\n",
                 "davitd.yml:1:24: error: a project is group/name");
    assert_wrong("pools: {a: {queue_timeout: soon}}\n", "`queue_timeout` is a time");
    assert_wrong("pools: {a: {on_worker_lost: cry}}\n", "requeue, fail or wait");
    assert_wrong("pools:\n  a: {lease_ms: 9}\n",
                 "davitd.yml:2:3: error: pool `a`: heartbeat_ms is");
    assert_wrong("projects: {a: {weight: 1001}}\n", "`weight` is a number, 0 to 1000");
    assert_wrong("projects: {a: {default_branch: [x]}}\n", "1:32: error: `default_branch` is");
    assert_wrong("projects: {a: {protected_tags: v*}}\n", "`protected_tags` is a list of at most");
    assert_wrong("projects: {a: {protected_branches: [a, '']}}\n",
                 "`protected_branches` holds names");
    assert_wrong("projects: {../a: {weight: 1}}\n", "a project is named group/name");
    assert_wrong("--- {spec: {}}\n--- {data: a}\n", "davitd.yml:");
}

static void a_flag_counts_more_than_the_file(void **state)
{
    char path[] = "/tmp/davit-test-XXXXXX";
    struct options_flag flags[] = {{OPTION_http, "127.0.0.1:9"}};
    struct options_source source = {.file = path, .flags = flags, .flag_count = 1};
    struct options o;
    struct buf why = BUF_INIT;

    close(mkstemp(path));
    assert_int_equal(os_write_file(path, "http: 127.0.0.1:1\nlease_ms: 60000\n", 34, 0600), 0);
    assert_int_equal(options_load(&source, &o, &why), 0);
    assert_string_equal(o.http, "127.0.0.1:9");
    assert_int_equal(o.lease_ms, 60000);
    assert_string_equal(o.said[OPTION_http], "127.0.0.1:9");
    options_release(&o);
    assert_int_equal(os_write_file(path, "lease_ms: 5000\n", 15, 0600), 0);
    assert_int_equal(options_load(&source, &o, &why), -E_USAGE); /* below two heartbeats */
    assert_non_null(strstr(buf_cstr(&why), "too short"));
    unlink(path);
    buf_clear(&why);
    assert_int_equal(options_load(&source, &o, &why), -E_NOT_FOUND);
    assert_non_null(strstr(buf_cstr(&why), path));
    buf_release(&why);
}

static void every_option_has_a_name_and_a_help(void **state)
{
    for (enum option_id i = 0; i < OPTION_COUNT; i++) {
        assert_true(strlen(option_info(i)->name) > 0);
        assert_true(strlen(option_info(i)->help) > 0);
        assert_null(strchr(option_info(i)->name, '_'));
        assert_true(strlen(option_expected(i)) > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_sets_what_it_names),
        cmocka_unit_test(a_file_declares_pools_and_projects),
        cmocka_unit_test(what_is_wrong_has_its_place),
        cmocka_unit_test(a_flag_counts_more_than_the_file),
        cmocka_unit_test(every_option_has_a_name_and_a_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
