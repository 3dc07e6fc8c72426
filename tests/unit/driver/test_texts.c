#include "common/base.h"

#include "worker/driver/haproxy.h"
#include "worker/driver/samples.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"

/* Some of the columns of HAProxy 2.6, in another order than there. */
static const char stat_text[] =
    "# "
    "pxname,svname,scur,stot,status,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,addr,\n"
    "fe,FRONTEND,1,9,OPEN,0,9,0,0,0,0,,\n"
    "web_a,s1,2,7,UP,0,6,0,1,2,0,127.0.0.1:9001,\n"
    "web_a,s2,0,0,DOWN,0,0,0,0,0,0,127.0.0.1:9002,\n"
    "web_a,s3,0,0,MAINT,0,0,0,0,0,0,127.0.0.1:1,\n"
    "web_a,s4,0,0,MAINT,0,0,0,0,0,0,127.0.0.1:1,\n"
    "web_a,BACKEND,2,9,UP,0,6,0,1,2,0,,\n"
    "\n"
    "type=str, case=sensitive, found=yes, idx=tree, key=\"web\", value=\"500\", type=\"sint\"\n";

static void haproxy_tables_are_read_by_the_names_of_columns(void **state)
{
    struct haproxy_stat stat;
    struct haproxy_row row;
    uint32_t weight = 0;

    (void)state;
    assert_true(haproxy_stat_begin(str_from(stat_text), &stat));
    assert_true(haproxy_stat_next(&stat, &row));
    assert_false(haproxy_row_is_server(&row));
    assert_true(haproxy_stat_next(&stat, &row));
    assert_true(haproxy_row_is_server(&row));
    assert_true(str_eqz(row.address, "127.0.0.1:9001"));
    assert_int_equal(row.requests, 9);
    assert_int_equal(row.errors, 2);
    assert_int_equal(row.sessions, 2);
    assert_true(haproxy_map_value(str_from(stat_text), &weight));
    assert_int_equal(weight, 500);
    assert_false(haproxy_stat_begin(STR("Unknown command.\n"), &stat));
    assert_false(haproxy_map_value(STR("value=\"10001\""), &weight));
    assert_false(haproxy_map_value(STR("value=\"5"), &weight));
}

static void assert_commands(const char *const *wanted, size_t count, int result,
                            const char *expected)
{
    struct buf out = BUF_INIT;
    const char *why;

    assert_int_equal(
        haproxy_servers("web_a", str_from(stat_text), (char *const *)wanted, count, &out, &why),
        result);
    if (result == 0) {
        assert_string_equal(buf_cstr(&out), expected);
    }
    buf_release(&out);
}

static void servers_that_are_wanted_take_free_ones_and_others_go(void **state)
{
    const char *same[] = {"127.0.0.1:9001", "127.0.0.1:9002"};
    const char *other[] = {"127.0.0.1:9002", "127.0.0.1:9005"};
    const char *bad[] = {"nowhere"};
    const char *many[] = {"h:1", "h:2", "h:3"};

    (void)state;
    assert_commands(same, 2, 0, "");
    assert_commands(other, 2, 0,
                    "set server web_a/s1 state maint;"
                    "set server web_a/s3 addr 127.0.0.1 port 9005;set server web_a/s3 state ready;"
                    "enable health web_a/s3;");
    assert_commands(bad, 1, -E_INVALID, NULL);
    assert_commands(many, 3, -E_LIMIT, NULL);
}

static void what_haproxy_complains_of_is_told_from_what_it_reports(void **state)
{
    (void)state;
    assert_int_equal(
        haproxy_complaint(
            STR("no need to change the addr, port changed from '1' to '19001' by 'stats socket "
                "command'\n\n\n\n"))
            .n,
        0);
    assert_true(str_eqz(haproxy_complaint(STR("\n\nentry not found.\n")), "entry not found."));
}

static void a_map_file_keeps_its_other_lines(void **state)
{
    char path[64];
    struct buf text = BUF_INIT;

    (void)state;
    snprintf(path, sizeof(path), "/tmp/davit-map-%ld", (long)getpid());
    assert_int_equal(os_write_file(path, "a 1\nweb 0\n\nb 2\n", 15, 0644), 0);
    assert_int_equal(haproxy_map_write(path, "web", 750), 0);
    assert_int_equal(os_read_file(path, 100, &text), 0);
    assert_string_equal(buf_cstr(&text), "a 1\nb 2\nweb 750\n");
    unlink(path);
    buf_release(&text);
}

static const char page[] = "# HELP requests_total All of them.\n"
                           "# TYPE requests_total counter\n"
                           "requests_total{code=\"200\",path=\"/a b\"} 90\n"
                           "requests_total{code=\"500\",path=\"/\"} 4 1700000000000\n"
                           "requests_total{code=\"503\",path=\"x\\\"y}\"} 6\n"
                           "requests_total_more{code=\"500\"} 1000\n"
                           "broken{ 5\n"
                           "empty 7\r\n"
                           "odd NaN\n"
                           "time_seconds_bucket{le=\"0.1\"} 5\n"
                           "time_seconds_bucket{le=\"0.5\"} 8\n"
                           "time_seconds_bucket{le=\"+Inf\"} 9\n"
                           "time_seconds_bucket{le=\"0.1\",other=\"1\"} 1\n"
                           "time_seconds_sum 3\n";

static double sum_of(const char *text)
{
    struct selector s;
    double v;

    assert_int_equal(selector_parse(str_from(text), &s), 0);
    return exposition_sum(str_from(page), &s, &v) ? v : NAN;
}

static void series_of_a_page_are_added_up_by_name_and_labels(void **state)
{
    struct selector s;

    (void)state;
    assert_true(sum_of("requests_total") == 100);
    assert_true(sum_of("requests_total{code=\"500\"}") == 4);
    assert_true(sum_of(" requests_total{code=\"5*\"} ") == 10);
    assert_true(sum_of("requests_total{code=\"5*\", path=\"/\"}") == 4);
    assert_true(sum_of("empty") == 7);
    assert_true(isnan(sum_of("odd")));
    assert_true(isnan(sum_of("requests")));
    assert_int_equal(selector_parse(STR("a{b=c}"), &s), -E_INVALID);
    assert_int_equal(selector_parse(STR("a{b=\"c\""), &s), -E_INVALID);
    assert_int_equal(selector_parse(STR("{b=\"c\"}"), &s), -E_INVALID);
    assert_int_equal(selector_parse(STR("a b"), &s), -E_INVALID);
}

static void buckets_of_a_histogram_rise_and_are_added_up(void **state)
{
    struct exposition_bucket *b;
    struct selector s;
    struct arena a;

    (void)state;
    arena_init(&a, 0);
    assert_int_equal(selector_parse(STR("time_seconds"), &s), 0);
    assert_int_equal(exposition_buckets(str_from(page), &s, &a, &b), 3);
    assert_int_equal(b[0].upto_micros, 100000);
    assert_true(b[0].count == 6);
    assert_int_equal(b[1].upto_micros, 500000);
    assert_true(b[2].upto_micros == UINT64_MAX && b[2].count == 9);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(haproxy_tables_are_read_by_the_names_of_columns),
        cmocka_unit_test(servers_that_are_wanted_take_free_ones_and_others_go),
        cmocka_unit_test(what_haproxy_complains_of_is_told_from_what_it_reports),
        cmocka_unit_test(a_map_file_keeps_its_other_lines),
        cmocka_unit_test(series_of_a_page_are_added_up_by_name_and_labels),
        cmocka_unit_test(buckets_of_a_histogram_rise_and_are_added_up),
    };

    return cmocka_run_group_tests_name("driver texts", tests, NULL, NULL);
}
