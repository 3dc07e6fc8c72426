/* The driver `webhook`: what a rollout tells goes to a URL by POST, as JSON. The same notice may
 * come twice, after a lost worker or a lost answer: X-Davit-Delivery, ROLLOUT-REVISION, is the same
 * then. A status of 2xx is good, all else is an error. */
#include "common/base.h"

#include <stdlib.h>

#include "common/limits.h"
#include "worker/driver/driver.h"
#include "worker/driver/notice.h"

#define ANSWER_BYTES (64u * KIB)

static void answered(struct driver_call *call, const struct driver_reply *reply)
{
    if (reply->error < 0 && reply->error != -E_TOO_BIG) {
        driver_fail(call, "unreachable", "the webhook: %s", reply->why);
    } else if (reply->error == 0 && (reply->status < 200 || reply->status > 299)) {
        driver_fail(call, "status", "the webhook answers with %d", reply->status);
    } else {
        driver_done(call, NULL);
    }
}

static void post(struct driver_call *call, const Pb__NotifyArgs *args, const char *url,
                 const char *token)
{
    const char *headers[] = {
        "Content-Type",
        "application/json",
        "X-Davit-Delivery",
        arena_printf(call->arena, "%" PRIu64 "-%" PRIu64, args->rollout_id, args->revision),
        token != NULL ? "X-Davit-Token" : NULL,
        token,
        NULL,
    };
    json_t *notice = notice_json(args);
    char *body = notice != NULL ? json_dumps(notice, JSON_COMPACT) : NULL;

    json_decref(notice);
    if (body == NULL) {
        driver_fail(call, "invalid", "the notice is no UTF-8");
        return;
    }
    const struct driver_http request = {
        .method = "POST",
        .url = url,
        .headers = headers,
        .body = str_from(body),
        .limit = ANSWER_BYTES,
    };
    driver_http(call, &request, answered);
    free(body);
}

static void act(struct driver_call *call)
{
    const Pb__NotifyArgs *args;
    const char *url, *name, *token = NULL;

    if (strcmp(call->what->verb, "notify") != 0) {
        driver_fail(call, "invalid", "webhook can notify, not %s", call->what->verb);
        return;
    }
    args = DRIVER_ARGS(call, notify_args);
    if (args == NULL) {
        return;
    }
    url = arena_strdup(call->arena, driver_setting(args->driver, "url", ""));
    name = arena_strdup(call->arena, driver_setting(args->driver, "token", ""));
    if (!str_starts(str_from(url), STR("http://")) && !str_starts(str_from(url), STR("https://"))) {
        driver_fail(call, "invalid", "webhook needs a url of http or https");
        return;
    }
    if (name[0] != '\0' && (token = driver_variable(call, name)) == NULL) {
        driver_fail(call, "invalid", "webhook: there is no variable %s for the token", name);
        return;
    }
    post(call, args, url, token);
}

const struct driver driver_webhook = {.name = "webhook", .act = act};
