/* The driver `exec`: a command of the user's own does what is asked, of instances, a router or a
 * metric, or is told what there is to know. It gets one JSON object on its stdin and answers with
 * one on its stdout; docs/rollouts.md has the contract. The command runs by /bin/sh; a code other
 * than 0 is an error, whose text is the last line on stderr. */
#include "common/base.h"

#include <jansson.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "proto/rollout.h"
#include "worker/driver/notice.h"
#include "worker/driver/op.h"

#define ANSWER_BYTES  (1u << 20)
#define COMMAND_MS    60000u
#define JSON_DEPTH    8
#define INSTANCES_MAX (LIMIT_ROLLOUT_INSTANCES * 2u)
#define SERIES_MAX    1000u

/* ---- what is asked ---- */

static json_t *names(char *const *list, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, json_string(list[i]));
    }
    return array;
}

/* Bytes of any kind: what is no UTF-8 would be no JSON. */
static json_t *text(ProtobufCBinaryData b)
{
    json_t *s = json_stringn((const char *)b.data, b.len);

    return s != NULL ? s : json_string("");
}

static json_t *hex(struct driver_call *call, ProtobufCBinaryData b)
{
    char *s = arena_alloc(call->arena, 2 * b.len + 1);

    str_to_hex(b.data, b.len, s);
    return json_string(s);
}

static const char *slot_text(Pb__RolloutSlot slot)
{
    return slot == ROLLOUT_SLOT_B ? "b" : "a";
}

static json_t *instance_wish(struct driver_call *call, const Pb__InstanceArgs *a)
{
    return json_pack("{s:s, s:s, s:I, s:o, s:s, s:o, s:o, s:I}", "service", a->service, "slot",
                     slot_text(a->slot), "instances", (json_int_t)a->instances, "snapshot",
                     hex(call, a->snapshot), "version", a->version, "image", text(a->image),
                     "command", text(a->command), "drain_ms", (json_int_t)a->drain_ms);
}

static json_t *router_wish(const Pb__RouterArgs *a)
{
    return json_pack("{s:s, s:I, s:I, s:o, s:o}", "service", a->service, "weight_b",
                     (json_int_t)a->weight_b_bp, "mirror_b", (json_int_t)a->mirror_b_bp,
                     "servers_a", names(a->servers_a, a->n_servers_a), "servers_b",
                     names(a->servers_b, a->n_servers_b));
}

static json_t *metric_wish(const Pb__MetricArgs *a)
{
    static const char *const kinds[] = {"ratio", "histogram", "value"};

    return json_pack("{s:s, s:s, s:s, s:o, s:o}", "service", a->service, "metric", a->metric,
                     "kind", kinds[a->kind % ARRAY_LEN(kinds)], "servers_a",
                     names(a->servers_a, a->n_servers_a), "servers_b",
                     names(a->servers_b, a->n_servers_b));
}

/* ---- what is answered ---- */

static const char *string_of(struct driver_call *call, json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));

    return s != NULL ? arena_strdup(call->arena, str_from(s)) : "";
}

/* A whole number from 0 to max; what is not there is 0. */
static bool count_of(json_t *o, const char *name, uint64_t max, uint64_t *ret)
{
    json_t *v = json_object_get(o, name);

    *ret = 0;
    if (v == NULL || json_is_null(v)) {
        return true;
    }
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max) {
        return false;
    }
    *ret = (uint64_t)json_integer_value(v);
    return true;
}

static bool slot_of(json_t *o, Pb__RolloutSlot *ret)
{
    const char *s = json_string_value(json_object_get(o, "slot"));

    if (s == NULL || (strcmp(s, "a") != 0 && strcmp(s, "b") != 0)) {
        return false;
    }
    *ret = s[0] == 'b' ? ROLLOUT_SLOT_B : ROLLOUT_SLOT_A;
    return true;
}

static bool unhex(struct driver_call *call, const char *s, ProtobufCBinaryData *ret)
{
    const size_t n = strlen(s) / 2;
    uint8_t *bytes = arena_alloc(call->arena, n + 1);

    if (n > 64 || str_from_hex(str_from(s), bytes, n) < 0) {
        return false;
    }
    *ret = (ProtobufCBinaryData){.data = bytes, .len = n};
    return true;
}

static bool take_instance(struct driver_call *call, json_t *o, Pb__InstanceState *s)
{
    uint64_t index, restarts, ready_for_ms;

    if (!json_is_object(o) || !count_of(o, "index", UINT32_MAX, &index) ||
        !count_of(o, "restarts", UINT32_MAX, &restarts) ||
        !count_of(o, "ready_for_ms", INT64_MAX, &ready_for_ms) ||
        !unhex(call, string_of(call, o, "snapshot"), &s->snapshot)) {
        return false;
    }
    s->index = (uint32_t)index;
    s->restarts = (uint32_t)restarts;
    s->ready_for_ms = ready_for_ms;
    s->address = (char *)string_of(call, o, "address");
    s->running = json_is_true(json_object_get(o, "running"));
    s->ready = json_is_true(json_object_get(o, "ready"));
    s->detail = (char *)string_of(call, o, "detail");
    return true;
}

static const char *instances_done(struct driver_call *call, json_t *root)
{
    json_t *list = json_object_get(root, "instances");
    Pb__InstanceAnswer answer = PB__INSTANCE_ANSWER__INIT;
    json_t *o;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) > INSTANCES_MAX) {
        return "`instances` is a list of what there is";
    }
    answer.instances = arena_array(call->arena, json_array_size(list) + 1,
                                   sizeof(*answer.instances));
    json_array_foreach(list, i, o)
    {
        Pb__InstanceState *s = arena_alloc(call->arena, sizeof(*s));
        pb__instance_state__init(s);
        if (!take_instance(call, o, s)) {
            return arena_printf(call->arena,
                                "instances[%zu]: index, address, running, ready, restarts, "
                                "snapshot, ready_for_ms, detail",
                                i);
        }
        answer.instances[answer.n_instances++] = s;
    }
    driver_done(call, &answer.base);
    return NULL;
}

static const char *router_done(struct driver_call *call, json_t *root)
{
    json_t *list = json_object_get(root, "servers");
    Pb__RouterAnswer answer = PB__ROUTER_ANSWER__INIT;
    uint64_t weight, sessions;
    json_t *o;
    size_t i;

    answer.unknown = json_is_true(json_object_get(root, "unknown"));
    if (!count_of(root, "weight_b", 10000, &weight) ||
        (!answer.unknown && !json_is_integer(json_object_get(root, "weight_b")))) {
        return "`weight_b` is a number from 0 to 10000";
    }
    answer.weight_b_bp = (uint32_t)weight;
    answer.servers = arena_array(call->arena, json_array_size(list) + 1, sizeof(*answer.servers));
    json_array_foreach(list, i, o)
    {
        Pb__RouterServer *s = arena_alloc(call->arena, sizeof(*s));
        pb__router_server__init(s);
        if (i == LIMIT_ROUTER_SERVERS || !slot_of(o, &s->slot) ||
            !count_of(o, "sessions", UINT32_MAX, &sessions)) {
            return arena_printf(call->arena, "servers[%zu]: slot (a, b), address, up, sessions", i);
        }
        s->address = (char *)string_of(call, o, "address");
        s->up = json_is_true(json_object_get(o, "up"));
        s->sessions = (uint32_t)sessions;
        answer.servers[answer.n_servers++] = s;
    }
    driver_done(call, &answer.base);
    return NULL;
}

static double number_of(json_t *o, const char *name)
{
    const double v = json_number_value(json_object_get(o, name));

    return v >= 0 && v < 1e15 ? v : 0;
}

/* [[0.1, 5], [0.5, 8], [null, 9]]: seconds, rising, and null for all. */
static bool take_buckets(struct driver_call *call, json_t *list, Pb__MetricSeries *s)
{
    json_t *pair;
    size_t i;

    if (json_array_size(list) > LIMIT_METRIC_BUCKETS) {
        return false;
    }
    s->buckets = arena_array(call->arena, json_array_size(list) + 1, sizeof(*s->buckets));
    json_array_foreach(list, i, pair)
    {
        Pb__MetricBucket *b = arena_alloc(call->arena, sizeof(*b));
        json_t *bound = json_array_get(pair, 0);
        const double seconds = json_number_value(bound);
        pb__metric_bucket__init(b);
        if (json_array_size(pair) != 2 || !(json_is_number(bound) || json_is_null(bound)) ||
            !(seconds >= 0 && seconds < 1e9)) {
            return false;
        }
        b->upto_micros = json_is_null(bound) ? UINT64_MAX : (uint64_t)(seconds * 1e6 + 0.5);
        b->count = json_number_value(json_array_get(pair, 1));
        s->buckets[s->n_buckets++] = b;
    }
    return true;
}

static const char *metric_done(struct driver_call *call, json_t *root)
{
    json_t *list = json_object_get(root, "series");
    Pb__MetricAnswer answer = PB__METRIC_ANSWER__INIT;
    json_t *o;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) > SERIES_MAX) {
        return "`series` is a list of counters";
    }
    answer.series = arena_array(call->arena, json_array_size(list) + 1, sizeof(*answer.series));
    json_array_foreach(list, i, o)
    {
        Pb__MetricSeries *s = arena_alloc(call->arena, sizeof(*s));
        pb__metric_series__init(s);
        if (!slot_of(o, &s->slot) || !take_buckets(call, json_object_get(o, "buckets"), s)) {
            return arena_printf(
                call->arena, "series[%zu]: slot (a, b), instance, total, bad, value, buckets", i);
        }
        s->instance = (char *)string_of(call, o, "instance");
        s->total = number_of(o, "total");
        s->bad = MIN(number_of(o, "bad"), s->total);
        s->value = json_number_value(json_object_get(o, "value"));
        answer.series[answer.n_series++] = s;
    }
    answer.taken_ms = os_realtime_ms();
    driver_done(call, &answer.base);
    return NULL;
}

/* ---- the call ---- */

static const struct verb {
    const char *name;
    const char *(*done)(struct driver_call *call, json_t *root); /* NULL: the call is ended */
} verbs[] = {
    {"ensure", instances_done}, {"status", instances_done}, {"remove", instances_done},
    {"set", router_done},       {"read", router_done},      {"sample", metric_done},
    {"notify", NULL},
};

static const struct verb *verb_of(const struct driver_call *call)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verbs[i].name, call->what->verb) == 0) {
            return &verbs[i];
        }
    }
    return NULL;
}

static void ended(struct driver_call *call, const struct driver_reply *reply)
{
    const struct verb *verb = verb_of(call);
    const struct str said = last_line(reply->err);
    json_error_t error;
    const char *why;
    json_t *root;

    if (reply->error < 0) {
        driver_fail(call, "failed", "the command: %s", reply->why);
        return;
    }
    if (reply->status != 0) {
        driver_fail(call, "failed", "the command ended with %d%s" STR_FMT, reply->status,
                    said.n > 0 ? ": " : "", STR_ARG(said));
        return;
    }
    if (verb->done == NULL) {
        driver_done(call, NULL);
        return;
    }
    root = json_loadb(reply->out.p, reply->out.n, JSON_REJECT_DUPLICATES, &error);
    why = json_is_object(root) ? verb->done(call, root)
                               : arena_printf(call->arena, "no JSON object: %s", error.text);
    json_decref(root);
    if (why != NULL) {
        driver_fail(call, "invalid", "the command's answer: %s", why);
    }
}

/* The wish, and whose settings say how; NULL: the call has been ended. */
static json_t *wish_of(struct driver_call *call, const Pb__DriverConfig **ret_config)
{
    const char *verb = call->what->verb;
    const Pb__InstanceArgs *i;
    const Pb__RouterArgs *r;
    const Pb__MetricArgs *m;
    const Pb__NotifyArgs *n;

    if (strcmp(verb, "ensure") == 0 || strcmp(verb, "status") == 0 || strcmp(verb, "remove") == 0) {
        i = DRIVER_ARGS(call, instance_args);
        *ret_config = i != NULL ? i->driver : NULL;
        return i != NULL ? instance_wish(call, i) : NULL;
    }
    if (strcmp(verb, "set") == 0 || strcmp(verb, "read") == 0) {
        r = DRIVER_ARGS(call, router_args);
        *ret_config = r != NULL ? r->driver : NULL;
        return r != NULL ? router_wish(r) : NULL;
    }
    if (strcmp(verb, "sample") == 0) {
        m = DRIVER_ARGS(call, metric_args);
        *ret_config = m != NULL ? m->driver : NULL;
        return m != NULL ? metric_wish(m) : NULL;
    }
    n = DRIVER_ARGS(call, notify_args);
    *ret_config = n != NULL ? n->driver : NULL;
    return n != NULL ? notice_json(n) : NULL;
}

static void act(struct driver_call *call)
{
    const Pb__DriverConfig *config = NULL;
    uint64_t timeout_ms = COMMAND_MS;
    json_t *wish;
    char *in;

    if (verb_of(call) == NULL) {
        driver_fail(call, "invalid", "exec can do no %s", call->what->verb);
        return;
    }
    wish = wish_of(call, &config);
    if (wish == NULL) {
        return;
    }
    json_object_set_new(wish, "verb", json_string(call->what->verb));
    in = json_dumps(wish, JSON_COMPACT);
    json_decref(wish);
    const struct str command = driver_setting(config, "command", "");
    const struct str timeout = driver_setting(config, "timeout", "");
    if (command.n == 0 || in == NULL ||
        (timeout.n > 0 && str_to_duration_ms(timeout, &timeout_ms) < 0)) {
        driver_fail(call, "invalid", "exec needs a command");
        free(in);
        return;
    }
    const char *argv[] = {"/bin/sh", "-c", arena_strdup(call->arena, command), NULL};
    const struct driver_exec exec = {.argv = argv,
                                     .in = arena_str(call->arena, str_from(in)),
                                     .limit = ANSWER_BYTES,
                                     .timeout_ms = timeout_ms};
    free(in);
    driver_exec(call, &exec, ended);
}

const struct driver driver_command = {.name = "exec", .act = act};
