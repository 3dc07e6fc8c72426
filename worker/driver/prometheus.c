/* Metrics from a Prometheus server, by instant queries for raw counters (prometheus.io/docs: HTTP
 * API, GET /api/v1/query): rate() would blur what the statistics want to see. A query is asked for
 * each slot, with $slot (a, b) and $version replaced; the label `instance`, or the one that the
 * settings name, tells counters apart. */
#include "common/base.h"

#include <jansson.h>

#include "common/limits.h"
#include "common/os.h"
#include "proto/rollout.h"
#include "worker/driver/samples.h"

#define ASK_MS     8000u
#define SERIES_MAX 1000u

struct ask {
    Pb__RolloutSlot slot;
    bool bad; /* else the total, the buckets, the value */
};

struct sampling {
    const Pb__MetricArgs *args;
    struct ask asks[4];
    size_t waits;
    bool ended;
    Pb__MetricAnswer answer;
};

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

static void add_escaped(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (is_unreserved(s.p[i])) {
            buf_add_char(out, s.p[i]);
        } else {
            buf_addf(out, "%%%02X", (unsigned char)s.p[i]);
        }
    }
}

/* The query with $slot and $version in it replaced. */
static void add_query(struct driver_call *call, struct buf *out, struct str query,
                      Pb__RolloutSlot slot)
{
    static const struct str words[] = {STR("$slot"), STR("$version")};
    const char *version = driver_variable(call, "DAVIT_VERSION");
    const struct str values[] = {slot == ROLLOUT_SLOT_A ? STR("a") : STR("b"),
                                 str_from(version != NULL ? version : "")};

    while (query.n > 0) {
        size_t step = 1;
        struct str put = str_sub(query, 0, 1);
        for (size_t i = 0; i < ARRAY_LEN(words); i++) {
            if (str_starts(query, words[i])) {
                step = words[i].n;
                put = values[i];
            }
        }
        add_escaped(out, put);
        query = str_sub(query, step, query.n);
    }
}

static void fail(struct driver_call *call, struct sampling *s, const char *why)
{
    if (!s->ended) {
        s->ended = true;
        driver_fail(call, "unreachable", "prometheus: %s", why);
    }
}

static Pb__MetricSeries *series_of(struct driver_call *call, struct sampling *s,
                                   Pb__RolloutSlot slot, const char *instance)
{
    for (size_t i = 0; i < s->answer.n_series; i++) {
        if (s->answer.series[i]->slot == slot &&
            strcmp(s->answer.series[i]->instance, instance) == 0) {
            return s->answer.series[i];
        }
    }
    if (s->answer.n_series == SERIES_MAX) {
        return NULL;
    }
    return samples_add(call, &s->answer, slot, arena_strdup(call->arena, str_from(instance)));
}

static void add_bucket(struct driver_call *call, Pb__MetricSeries *series, json_t *labels,
                       double count)
{
    const char *le = json_string_value(json_object_get(labels, "le"));
    Pb__MetricBucket *b;
    double seconds;
    size_t at = 0;

    if (le == NULL || !exposition_number(str_from(le), &seconds) || !(seconds >= 0) ||
        series->n_buckets == LIMIT_METRIC_BUCKETS) {
        return;
    }
    if (series->buckets == NULL) {
        series->buckets = arena_array(call->arena, LIMIT_METRIC_BUCKETS, sizeof(b));
    }
    b = arena_alloc(call->arena, sizeof(*b));
    pb__metric_bucket__init(b);
    b->upto_micros = seconds >= 1e12 ? UINT64_MAX : (uint64_t)(seconds * 1e6 + 0.5);
    b->count = count;
    while (at < series->n_buckets && series->buckets[at]->upto_micros < b->upto_micros) {
        at++;
    }
    memmove(&series->buckets[at + 1], &series->buckets[at], (series->n_buckets - at) * sizeof(b));
    series->buckets[at] = b;
    series->n_buckets++;
}

/* {"metric": {LABEL: VALUE}, "value": [TIME, "NUMBER"]} */
static void take_result(struct driver_call *call, struct sampling *s, const struct ask *ask,
                        json_t *result)
{
    const char *label = arena_strdup(call->arena,
                                     driver_setting(s->args->driver, "instance", "instance"));
    json_t *labels = json_object_get(result, "metric");
    const char *instance = json_string_value(json_object_get(labels, label));
    const char *text = json_string_value(json_array_get(json_object_get(result, "value"), 1));
    Pb__MetricSeries *series;
    double v;

    if (text == NULL || !exposition_number(str_from(text), &v) || !(v >= 0 && v < 1e15)) {
        return; /* NaN and infinities are no counts */
    }
    series = series_of(call, s, ask->slot, instance != NULL ? instance : "all");
    if (series == NULL) {
        return;
    }
    if (s->args->kind == TARGET_METRIC_HISTOGRAM) {
        add_bucket(call, series, labels, v);
    } else if (ask->bad) {
        series->bad += v;
    } else {
        series->total += v;
        series->value = v;
    }
}

static bool take_answer(struct driver_call *call, struct sampling *s, const struct ask *ask,
                        struct str text, const char **ret_why)
{
    json_error_t error;
    json_t *root = json_loadb(text.p, text.n, 0, &error);
    json_t *results = json_object_get(json_object_get(root, "data"), "result");
    const char *status = json_string_value(json_object_get(root, "status"));
    json_t *result;
    size_t i;

    if (status == NULL || strcmp(status, "success") != 0 || !json_is_array(results)) {
        const char *said = json_string_value(json_object_get(root, "error"));
        *ret_why = said != NULL ? arena_printf(call->arena, "%.300s", said)
                                : "an answer that is none";
        json_decref(root);
        return false;
    }
    json_array_foreach(results, i, result)
    {
        take_result(call, s, ask, result);
    }
    json_decref(root);
    return true;
}

/* Errors without requests: the total was asked for a moment earlier, or is another query's. */
static void finish(struct driver_call *call, struct sampling *s)
{
    size_t kept = 0;

    for (size_t i = 0; i < s->answer.n_series; i++) {
        Pb__MetricSeries *series = s->answer.series[i];
        series->bad = MIN(series->bad, series->total);
        if (s->args->kind != TARGET_METRIC_RATIO || series->total > 0) {
            s->answer.series[kept++] = series;
        }
    }
    s->answer.n_series = kept;
    s->answer.taken_ms = os_realtime_ms();
    s->ended = true;
    driver_done(call, &s->answer.base);
}

static void took(struct driver_call *call, const struct driver_reply *reply)
{
    struct sampling *s = call->state;
    const struct ask *ask = reply->ctx;
    const char *why;

    if (reply->error < 0) {
        fail(call, s, reply->why);
    } else if (!take_answer(call, s, ask, reply->out, &why)) {
        fail(call, s, why);
    } else if (--s->waits == 0) {
        finish(call, s);
    }
}

static void send_query(struct driver_call *call, struct sampling *s, const char *name,
                       struct ask *ask)
{
    const struct str query = driver_setting(s->args->driver, name, "");
    const struct str url = driver_setting(s->args->driver, "url", "");
    struct buf b = BUF_INIT;

    buf_add_str(&b, str_ends(url, STR("/")) ? str_sub(url, 0, url.n - 1) : url);
    buf_addz(&b, "/api/v1/query?query=");
    add_query(call, &b, query, ask->slot);
    const struct driver_http request = {.url = arena_strdup(call->arena, buf_str(&b)),
                                        .limit = LIMIT_METRICS_PAGE,
                                        .timeout_ms = ASK_MS,
                                        .ctx = ask};
    buf_release(&b);
    driver_http(call, &request, took);
}

static void act(struct driver_call *call)
{
    static const char *const named[] = {"total", "buckets", "value"};
    struct sampling *s = arena_alloc(call->arena, sizeof(*s));
    const char *names[2];
    size_t count = 0;

    if (strcmp(call->what->verb, "sample") != 0) {
        driver_fail(call, "invalid", "prometheus can sample, not %s", call->what->verb);
        return;
    }
    s->args = DRIVER_ARGS(call, metric_args);
    if (s->args == NULL) {
        return;
    }
    names[count++] = named[s->args->kind % ARRAY_LEN(named)];
    if (s->args->kind == TARGET_METRIC_RATIO) {
        names[count++] = "bad";
    }
    for (size_t i = 0; i < count; i++) {
        if (driver_setting(s->args->driver, names[i], "").n == 0) {
            driver_fail(call, "invalid", "prometheus needs the query `%s`", names[i]);
            return;
        }
    }
    samples_begin(call, &s->answer, SERIES_MAX);
    call->state = s;
    s->waits = count * 2;
    for (size_t i = 0; i < count * 2; i++) {
        s->asks[i] = (struct ask){.slot = i % 2 == 0 ? ROLLOUT_SLOT_A : ROLLOUT_SLOT_B,
                                  .bad = i >= 2};
    }
    for (size_t i = 0; i < count * 2; i++) {
        send_query(call, s, names[i / 2], &s->asks[i]);
    }
}

const struct driver driver_prometheus = {.name = "prometheus", .act = act};
