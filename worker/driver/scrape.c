/* Metrics from the instances themselves: their page in Prometheus' text format, each second if need
 * be. An instance that does not answer has no series; all of them silent is an error. */
#include "common/base.h"

#include "worker/driver/scrape.h"

#include "common/limits.h"
#include "common/os.h"
#include "proto/rollout.h"
#include "worker/driver/samples.h"

#define ASK_MS 5000u

struct scrape {
    const Pb__MetricArgs *args;
    struct selector total; /* or the histogram, or the value */
    struct selector bad;
    size_t waits; /* answers that are still to come */
    size_t failed;
    const char *why; /* of the last that failed */
    Pb__MetricAnswer answer;
};

static bool take_selector(struct driver_call *call, const Pb__DriverConfig *config,
                          const char *name, struct selector *ret)
{
    const struct str text = driver_setting(config, name, "");

    if (selector_parse(text, ret) < 0) {
        driver_fail(call, "invalid", "`%s` is a name and labels: name{label=\"value\"}", name);
        return false;
    }
    return true;
}

static void read_page(struct driver_call *call, struct scrape *s, Pb__RolloutSlot slot,
                      const char *address, struct str page)
{
    struct exposition_bucket *buckets;
    Pb__MetricSeries *series;
    double total = 0, bad = 0;

    if (s->args->kind == TARGET_METRIC_HISTOGRAM) {
        const size_t count = exposition_buckets(page, &s->total, call->arena, &buckets);
        if (count > 0) {
            series = samples_add(call, &s->answer, slot, address);
            samples_set_buckets(call, series, buckets, count);
        }
        return;
    }
    if (!exposition_sum(page, &s->total, &total)) {
        return; /* a counter that never counted is not on the page */
    }
    series = samples_add(call, &s->answer, slot, address);
    series->value = total;
    series->total = total;
    if (s->args->kind == TARGET_METRIC_RATIO) {
        (void)exposition_sum(page, &s->bad, &bad); /* none: nothing was bad yet */
        series->bad = MIN(bad, total);
    }
}

struct page {
    Pb__RolloutSlot slot;
    const char *address;
};

static void took(struct driver_call *call, const struct driver_reply *reply)
{
    struct scrape *s = call->state;
    const struct page *page = reply->ctx;

    if (reply->error < 0 || reply->status != 200) {
        s->failed++;
        s->why = reply->error < 0 ? arena_printf(call->arena, "%s: %s", page->address, reply->why)
                                  : arena_printf(call->arena, "%s answers with %d", page->address,
                                                 reply->status);
    } else {
        read_page(call, s, page->slot, page->address, reply->out);
    }
    if (--s->waits > 0) {
        return;
    }
    if (s->failed > 0 && s->answer.n_series == 0) {
        driver_fail(call, "unreachable", "%s", s->why);
        return;
    }
    s->answer.taken_ms = os_realtime_ms();
    driver_done(call, &s->answer.base);
}

static void ask_all(struct driver_call *call, struct scrape *s, Pb__RolloutSlot slot,
                    char *const *servers, size_t count)
{
    const char *path = arena_strdup(call->arena,
                                    driver_setting(s->args->driver, "path", "/metrics"));

    for (size_t i = 0; i < count; i++) {
        struct page *page = arena_alloc(call->arena, sizeof(*page));
        *page = (struct page){slot, servers[i]};
        const struct driver_http request = {
            .url = arena_printf(call->arena, "http://%s%s%s", servers[i], path[0] == '/' ? "" : "/",
                                path),
            .limit = LIMIT_METRICS_PAGE,
            .timeout_ms = ASK_MS,
            .ctx = page,
        };
        driver_http(call, &request, took);
    }
}

void scrape_sample(struct driver_call *call)
{
    static const char *const named[] = {"total", "buckets", "value"};
    struct scrape *s = arena_alloc(call->arena, sizeof(*s));

    s->args = DRIVER_ARGS(call, metric_args);
    if (s->args == NULL ||
        !take_selector(call, s->args->driver, named[s->args->kind % ARRAY_LEN(named)], &s->total) ||
        (s->args->kind == TARGET_METRIC_RATIO &&
         !take_selector(call, s->args->driver, "bad", &s->bad))) {
        return;
    }
    s->waits = s->args->n_servers_a + s->args->n_servers_b;
    if (s->waits > LIMIT_ROUTER_SERVERS) {
        driver_fail(call, "invalid", "more than %u instances", LIMIT_ROUTER_SERVERS);
        return;
    }
    samples_begin(call, &s->answer, s->waits);
    call->state = s;
    if (s->waits == 0) {
        driver_done(call, &s->answer.base);
        return;
    }
    ask_all(call, s, ROLLOUT_SLOT_A, s->args->servers_a, s->args->n_servers_a);
    ask_all(call, s, ROLLOUT_SLOT_B, s->args->servers_b, s->args->n_servers_b);
}
