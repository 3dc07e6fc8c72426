#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/davit.h"
#include "tests/unit/turn/fixture.h"

static const struct fixture_options calm = {.listen = true};
static const struct fixture_options quick = {
    .listen = true, .heartbeat_ms = 50, .lease_ms = 1000, .hello_ms = 10000};

static struct davit *open_with(const struct fixture *f, const char *token,
                               struct davit_error *error)
{
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", f->port);
    return davit_connect(&(struct davit_options){.url = url, .token = token, .timeout_ms = 10000},
                         error);
}

static struct davit *open_handle(const struct fixture *f)
{
    struct davit_error error;
    struct davit *d = open_with(f, FIXTURE_ADMIN_TOKEN, &error);

    assert_string_equal(error.text, "");
    assert_non_null(d);
    return d;
}

static void a_token_that_may_not_submit_is_refused(void **state)
{
    struct fixture f;
    struct davit_error error;

    fixture_up(&f, &calm);
    assert_null(open_with(&f, FIXTURE_WORKER_TOKEN, &error));
    assert_int_equal(error.code, DAVIT_E_UNAUTHORIZED);
    assert_null(open_with(&f, "", &error));
    assert_int_equal(error.code, DAVIT_E_UNAUTHORIZED);
    fixture_down(&f);
}

static void nobody_there_is_unreachable(void **state)
{
    struct davit_error error;
    struct davit_options options = {.url = "tcp://127.0.0.1:1", .token = "t", .timeout_ms = 300};

    assert_null(davit_connect(&options, &error));
    assert_int_equal(error.code, DAVIT_E_UNREACHABLE);
    options.url = "http://127.0.0.1:1";
    assert_null(davit_connect(&options, &error));
    assert_int_equal(error.code, DAVIT_E_INVALID);
}

static void a_silent_time_keeps_the_session(void **state)
{
    struct fixture f;
    struct fleet_stats before;
    struct fleet_stats after;

    fixture_up(&f, &quick);
    struct davit *d = open_handle(&f);
    fleet_get_stats(f.fleet, &before);
    struct davit_result result;
    struct davit_error error;
    assert_int_equal(davit_next(d, &result, 1, 1500, &error), DAVIT_E_TIMEOUT);
    fleet_get_stats(f.fleet, &after);
    assert_int_equal(after.sessions, 1);
    assert_int_equal(after.clients, before.clients);
    assert_int_equal(after.clients, 1);
    davit_close(d);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_that_may_not_submit_is_refused),
        cmocka_unit_test(nobody_there_is_unreachable),
        cmocka_unit_test(a_silent_time_keeps_the_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
