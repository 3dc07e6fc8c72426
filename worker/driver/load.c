/* Requests at a steady rate for some time, so that there is something to judge. What became of them
 * is counted by whoever counts all others: the router, the instances. Only when not one was
 * answered is that an error here. No more than LIMIT_LOAD_OPEN wait for an answer at a time; what
 * would be more is left out, not made up for: a slow service gets no burst. */
#include "common/base.h"

#include "worker/driver/load.h"

#include "common/limits.h"
#include "common/os.h"
#include "proto/rollout.h"

#define ANSWER_BYTES (64u * KIB)
#define STEP_MS      5u

struct load {
    const char *url;
    const char *headers[3]; /* none, or one */
    uint64_t rate;          /* a second */
    uint64_t begun_ms;
    uint64_t for_ms;
    uint64_t begun; /* requests, and those that were left out */
    uint64_t sent;
    uint64_t answered;
    uint64_t open;
    bool over; /* no further one begins */
    const char *why;
};

static void finish(struct driver_call *call, const struct load *l)
{
    if (l->answered == 0) {
        driver_fail(call, "unreachable", "of %" PRIu64 " requests none was answered: %s", l->sent,
                    l->why);
    } else {
        driver_done(call, NULL);
    }
}

static void took(struct driver_call *call, const struct driver_reply *reply)
{
    struct load *l = call->state;

    l->open--;
    if (reply->error == 0 || reply->error == -E_TOO_BIG) {
        l->answered++;
    } else if (l->why[0] == '\0') {
        l->why = arena_strdup(call->arena, str_from(reply->why));
    }
    if (l->over && l->open == 0) {
        finish(call, l);
    }
}

static void pace(struct driver_call *call, const struct driver_reply *reply)
{
    struct load *l = call->state;
    const uint64_t elapsed = MIN(os_monotonic_ms() - l->begun_ms, l->for_ms);
    const uint64_t due = MAX(elapsed * l->rate / 1000, 1u);
    const struct driver_http request = {
        .url = l->url,
        .headers = l->headers[0] != NULL ? l->headers : NULL,
        .limit = ANSWER_BYTES,
    };

    (void)reply;
    for (; l->begun < due; l->begun++) {
        if (l->open < LIMIT_LOAD_OPEN) {
            l->open++;
            l->sent++;
            driver_http(call, &request, took);
        }
    }
    if (elapsed < l->for_ms) {
        driver_after(call, MIN(MAX(1000 / l->rate, STEP_MS), l->for_ms - elapsed), pace);
        return;
    }
    l->over = true;
    if (l->open == 0) {
        finish(call, l);
    }
}

/* NAME: VALUE */
static bool take_header(struct driver_call *call, struct str text, struct load *l)
{
    const ptrdiff_t colon = str_chr(text, ':');

    if (text.n == 0) {
        return true;
    }
    if (colon <= 0) {
        return false;
    }
    l->headers[0] = arena_strdup(call->arena, str_sub(text, 0, (size_t)colon));
    l->headers[1] = arena_strdup(call->arena, str_trim(str_sub(text, (size_t)colon + 1, text.n)));
    return true;
}

void load_begin(struct driver_call *call)
{
    const Pb__LoadArgs *args = DRIVER_ARGS(call, load_args);
    struct load *l = arena_alloc(call->arena, sizeof(*l));

    if (args == NULL) {
        return;
    }
    *l = (struct load){.for_ms = args->for_ms, .begun_ms = os_monotonic_ms(), .why = ""};
    l->url = arena_strdup(call->arena, driver_setting(args->driver, "url", ""));
    if (!str_starts(str_from(l->url), STR("http://")) &&
        !str_starts(str_from(l->url), STR("https://"))) {
        driver_fail(call, "invalid", "http needs a url of http or https");
    } else if (str_to_u64(driver_setting(args->driver, "rate", "10"), &l->rate) < 0 ||
               l->rate == 0 || l->rate > LIMIT_LOAD_RATE) {
        driver_fail(call, "invalid", "rate is a number from 1 to %u", LIMIT_LOAD_RATE);
    } else if (!take_header(call, driver_setting(args->driver, "header", ""), l)) {
        driver_fail(call, "invalid", "header is NAME: VALUE");
    } else if (l->for_ms > LIMIT_LOAD_MS) {
        driver_fail(call, "invalid", "load for more than %u ms", LIMIT_LOAD_MS);
    } else {
        call->state = l;
        pace(call, NULL);
    }
}
