/* HAProxy by its runtime socket (HAProxy management guide, section 9.3): no reload, no lost
 * request.
 *
 * A router. One map entry holds the weight of slot b, 0 to 10,000: the configuration sends a
 * request to the backend of b when its hash or random number is below it (docs/rollouts.md has the
 * lines). The map file is written first, so that a reload or a crash of HAProxy finds the same
 * number; then the map in memory, which is one atomic change. Servers are those of a
 * `server-template` of each backend: an address that may get traffic takes a free one, one that may
 * not any more is drained and put to maintenance. Everything is read back, and the answer is that.
 *
 * A metric: requests and 5xx answers of each backend, from `show stat`. */
#include "common/base.h"

#include "worker/driver/haproxy.h"

#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

#define ANSWER_BYTES (1u << 20)
#define ASK_MS       5000u
#define FULL_BP      10000u

/* ---- `show stat`: CSV with a header line that names the columns ---- */

static int column(struct str header, const char *name)
{
    struct str field;
    int i = 0;

    while (str_split(&header, ',', &field)) {
        field = str_starts(field, STR("# ")) ? str_sub(field, 2, field.n) : field;
        if (str_eqz(field, name)) {
            return i;
        }
        i++;
    }
    return -1;
}

static struct str field_at(struct str line, int at)
{
    struct str field;

    for (int i = 0; str_split(&line, ',', &field); i++) {
        if (i == at) {
            return field;
        }
    }
    return STR_NULL;
}

/* UP, UP 1/3 (going down), no check, but not DOWN, MAINT, DRAIN, NOLB. */
static bool is_up(struct str status)
{
    return str_starts(status, STR("UP")) || str_eqz(status, "no check");
}

static bool columns_of(struct str header, struct haproxy_columns *c)
{
    static const char *const answers[] = {"hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx",
                                          "hrsp_other"};
    bool all = true;

    c->backend = column(header, "pxname");
    c->server = column(header, "svname");
    c->status = column(header, "status");
    c->sessions = column(header, "scur");
    c->address = column(header, "addr");
    for (size_t i = 0; i < ARRAY_LEN(c->answers); i++) {
        c->answers[i] = column(header, answers[i]);
        all = all && c->answers[i] >= 0;
    }
    c->errors = column(header, "hrsp_5xx");
    return all && c->backend >= 0 && c->server >= 0 && c->status >= 0 && c->sessions >= 0 &&
           c->address >= 0;
}

static uint64_t number(struct str line, int at)
{
    uint64_t n = 0;

    (void)str_to_u64(field_at(line, at), &n); /* an empty field is nothing counted yet */
    return n;
}

bool haproxy_stat_begin(struct str text, struct haproxy_stat *ret)
{
    struct str header;

    *ret = (struct haproxy_stat){.rest = text};
    return str_split(&ret->rest, '\n', &header) && columns_of(header, &ret->columns);
}

bool haproxy_stat_next(struct haproxy_stat *s, struct haproxy_row *ret)
{
    struct str line;

    while (str_split(&s->rest, '\n', &line)) {
        if (line.n == 0) {
            continue;
        }
        *ret = (struct haproxy_row){
            .backend = field_at(line, s->columns.backend),
            .server = field_at(line, s->columns.server),
            .status = field_at(line, s->columns.status),
            .address = field_at(line, s->columns.address),
            .sessions = number(line, s->columns.sessions),
            .errors = number(line, s->columns.errors),
        };
        for (size_t i = 0; i < ARRAY_LEN(s->columns.answers); i++) {
            ret->requests += number(line, s->columns.answers[i]);
        }
        return true;
    }
    return false;
}

bool haproxy_row_is_server(const struct haproxy_row *row)
{
    return !str_eqz(row->server, "BACKEND") && !str_eqz(row->server, "FRONTEND");
}

/* A template's server that has never been given an address, or whose address was taken away. */
static bool is_free(const struct haproxy_row *row)
{
    return str_starts(row->status, STR("MAINT"));
}

/* ---- settings ---- */

struct settings {
    const char *socket;
    const char *map;
    const char *key;
    const char *backend[2]; /* by slot */
};

static const char *setting(struct driver_call *call, const Pb__DriverConfig *config,
                           const char *name)
{
    return arena_strdup(call->arena, driver_setting(config, name, ""));
}

/* What goes into a command line must not end it. */
static bool is_word(const char *s)
{
    for (const char *p = s; *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || *p == ';' || *p == '\\' || (unsigned char)*p == 0x7f) {
            return false;
        }
    }
    return s[0] != '\0';
}

static bool read_settings(struct driver_call *call, const Pb__DriverConfig *config, bool router,
                          struct settings *ret)
{
    ret->socket = setting(call, config, "socket");
    ret->map = setting(call, config, "map");
    ret->key = setting(call, config, "key");
    ret->backend[PB__ROLLOUT_SLOT__ROLLOUT_SLOT_A] = setting(call, config, "backend_a");
    ret->backend[PB__ROLLOUT_SLOT__ROLLOUT_SLOT_B] = setting(call, config, "backend_b");
    if (ret->socket[0] != '/' || !is_word(ret->backend[0]) || !is_word(ret->backend[1]) ||
        (router && (ret->map[0] != '/' || !is_word(ret->map) || !is_word(ret->key)))) {
        driver_fail(call, "invalid",
                    "haproxy needs socket, backend_a, backend_b%s: paths and words",
                    router ? ", map, key" : "");
        return false;
    }
    return true;
}

static void ask(struct driver_call *call, const struct settings *s, struct str text, driver_fn fn)
{
    const struct driver_ask ask = {.address = arena_printf(call->arena, "unix:%s", s->socket),
                                   .text = text,
                                   .limit = ANSWER_BYTES,
                                   .timeout_ms = ASK_MS};

    driver_ask(call, &ask, fn);
}

/* False: the call has been ended. */
static bool answered(struct driver_call *call, const struct driver_reply *reply)
{
    if (reply->error < 0) {
        driver_fail(call, "unreachable", "haproxy: %s", reply->why);
        return false;
    }
    return true;
}

/* ---- the router ---- */

struct route {
    struct settings s;
    const Pb__RouterArgs *args;
    bool set;
};

static const char *map_command(struct driver_call *call, const struct settings *s)
{
    return arena_printf(call->arena, "show stat; get map %s %s\n", s->map, s->key);
}

/* "type=str, case=sensitive, found=yes, idx=tree, key="web", value="500", type="str"" */
bool haproxy_map_value(struct str text, uint32_t *ret)
{
    const ptrdiff_t at = str_find(text, STR("value=\""));
    uint64_t n;

    if (at < 0) {
        return false;
    }
    struct str value = str_sub(text, (size_t)at + 7, text.n);
    const ptrdiff_t end = str_chr(value, '"');
    if (end < 0 || str_to_u64(str_sub(value, 0, (size_t)end), &n) < 0 || n > FULL_BP) {
        return false;
    }
    *ret = (uint32_t)n;
    return true;
}

static void add_server(struct driver_call *call, Pb__RouterAnswer *answer, Pb__RolloutSlot slot,
                       const struct haproxy_row *row)
{
    Pb__RouterServer *s = arena_alloc(call->arena, sizeof(*s));

    pb__router_server__init(s);
    s->slot = slot;
    s->address = arena_strdup(call->arena, row->address);
    s->up = is_up(row->status);
    s->sessions = (uint32_t)MIN(row->sessions, UINT32_MAX);
    answer->servers[answer->n_servers++] = s;
}

static int slot_of(const struct settings *s, struct str backend)
{
    return str_eqz(backend, s->backend[0]) ? 0 : str_eqz(backend, s->backend[1]) ? 1 : -1;
}

/* False: the call has been ended. */
static bool has_stat(struct driver_call *call, const struct driver_reply *reply,
                     struct haproxy_stat *ret)
{
    if (!answered(call, reply)) {
        return false;
    }
    if (!haproxy_stat_begin(reply->out, ret)) {
        driver_fail(call, "invalid", "haproxy: `show stat` answers something else");
        return false;
    }
    return true;
}

static void read_back(struct driver_call *call, const struct driver_reply *reply)
{
    struct route *r = call->state;
    Pb__RouterAnswer answer = PB__ROUTER_ANSWER__INIT;
    struct haproxy_stat stat;
    struct haproxy_row row;

    if (!has_stat(call, reply, &stat)) {
        return;
    }
    answer.servers = arena_array(call->arena, LIMIT_ROUTER_SERVERS, sizeof(*answer.servers));
    while (haproxy_stat_next(&stat, &row)) {
        const int slot = slot_of(&r->s, row.backend);
        if (slot >= 0 && haproxy_row_is_server(&row) && !is_free(&row) &&
            !str_starts(row.status, STR("DRAIN")) && answer.n_servers < LIMIT_ROUTER_SERVERS) {
            add_server(call, &answer, (Pb__RolloutSlot)slot, &row);
        }
    }
    answer.unknown = !haproxy_map_value(reply->out, &answer.weight_b_bp);
    driver_done(call, &answer.base);
}

static bool is_wanted(char *const *wanted, size_t count, struct str address)
{
    for (size_t i = 0; i < count; i++) {
        if (str_eqz(address, wanted[i])) {
            return true;
        }
    }
    return false;
}

/* HOST:PORT of an argument, as `set server ... addr HOST port PORT` wants them. */
static bool split_address(const char *text, struct str *ret_host, struct str *ret_port)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;

    if (colon == NULL || !is_word(text) || str_to_u64(str_from(colon + 1), &port) < 0 ||
        port == 0 || port > UINT16_MAX) {
        return false;
    }
    *ret_host = str_of(text, (size_t)(colon - text));
    *ret_port = str_from(colon + 1);
    return ret_host->n > 0;
}

static void take_server(struct buf *out, const char *backend, struct str server, struct str host,
                        struct str port)
{
    buf_addf(out, "set server %s/" STR_FMT " addr " STR_FMT " port " STR_FMT ";", backend,
             STR_ARG(server), STR_ARG(host), STR_ARG(port));
    buf_addf(out, "set server %s/" STR_FMT " state ready;", backend, STR_ARG(server));
    buf_addf(out, "enable health %s/" STR_FMT ";", backend, STR_ARG(server));
}

/* Commands that make the slot's servers those that are wanted. 0, -E_INVALID, -E_LIMIT (the backend
 * has too few) with a text. */
int haproxy_servers(const char *backend, struct str stat_text, char *const *wanted, size_t count,
                    struct buf *out, const char **ret_why)
{
    struct haproxy_stat stat;
    struct haproxy_row row;
    bool has[LIMIT_ROUTER_SERVERS] = {false};
    size_t next = 0;

    if (count > LIMIT_ROUTER_SERVERS || !haproxy_stat_begin(stat_text, &stat)) {
        *ret_why = count > LIMIT_ROUTER_SERVERS ? "too many servers"
                                                : "`show stat` answers something else";
        return -E_INVALID;
    }
    struct haproxy_stat again = stat;
    while (haproxy_stat_next(&stat, &row)) { /* those that are there already */
        if (!str_eqz(row.backend, backend) || !haproxy_row_is_server(&row) || is_free(&row)) {
            continue;
        }
        if (!is_wanted(wanted, count, row.address)) {
            buf_addf(out, "set server %s/" STR_FMT " state maint;", backend, STR_ARG(row.server));
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            has[i] = has[i] || str_eqz(row.address, wanted[i]);
        }
        if (str_starts(row.status, STR("DRAIN"))) {
            buf_addf(out, "set server %s/" STR_FMT " state ready;", backend, STR_ARG(row.server));
        }
    }
    while (next < count && haproxy_stat_next(&again, &row)) {
        struct str host, port;
        for (; next < count && has[next]; next++) {
        }
        if (next == count) {
            break;
        }
        if (!str_eqz(row.backend, backend) || !haproxy_row_is_server(&row) || !is_free(&row)) {
            continue;
        }
        if (!split_address(wanted[next], &host, &port)) {
            *ret_why = "an address that is not HOST:PORT";
            return -E_INVALID;
        }
        take_server(out, backend, row.server, host, port);
        next++;
    }
    for (; next < count && has[next]; next++) {
    }
    *ret_why = next < count ? "the backend's server-template has too few servers" : NULL;
    return next < count ? -E_LIMIT : 0;
}

/* The file first: what starts HAProxy anew finds the same number there. Other keys stay. */
int haproxy_map_write(const char *path, const char *key, uint32_t weight)
{
    struct buf old = BUF_INIT, text = BUF_INIT;
    struct str line, rest;
    int r = os_read_file(path, LIMIT_MAP_FILE, &old);

    if (r < 0 && r != -E_NOT_FOUND) {
        buf_release(&old);
        return r;
    }
    rest = buf_str(&old);
    while (str_split(&rest, '\n', &line)) {
        struct str after = line, word;
        if (line.n > 0 && !(str_split(&after, ' ', &word) && str_eqz(word, key))) {
            buf_addf(&text, STR_FMT "\n", STR_ARG(line));
        }
    }
    buf_addf(&text, "%s %u\n", key, weight);
    r = os_write_file(path, text.p, text.n, 0644);
    buf_release(&old);
    buf_release(&text);
    return r;
}

/* A command that went wrong says so; one that went well says nothing, or what it has changed. */
struct str haproxy_complaint(struct str text)
{
    struct str line;

    while (str_split(&text, '\n', &line)) {
        line = str_trim(line);
        if (line.n > 0 && !str_ends(line, STR("by 'stats socket command'"))) {
            return line;
        }
    }
    return STR_NULL;
}

static void was_set(struct driver_call *call, const struct driver_reply *reply)
{
    struct route *r = call->state;

    if (!answered(call, reply)) {
        return;
    }
    const struct str wrong = haproxy_complaint(reply->out);
    if (wrong.n > 0) {
        driver_fail(call, "refused", "haproxy: " STR_FMT, (int)MIN(wrong.n, 200u), wrong.p);
        return;
    }
    ask(call, &r->s, str_from(map_command(call, &r->s)), read_back);
}

static void set_now(struct driver_call *call, const struct driver_reply *reply)
{
    struct route *r = call->state;
    char *const *servers[2] = {r->args->servers_a, r->args->servers_b};
    const size_t counts[2] = {r->args->n_servers_a, r->args->n_servers_b};
    struct buf out = BUF_INIT;
    const char *why;
    uint32_t present;
    int result = 0;

    if (!answered(call, reply)) {
        return;
    }
    for (int slot = 0; slot < 2 && result == 0; slot++) {
        if (counts[slot] > 0) {
            result = haproxy_servers(r->s.backend[slot], reply->out, servers[slot], counts[slot],
                                     &out, &why);
        }
    }
    if (result < 0) {
        driver_fail(call, "invalid", "haproxy: %s", why);
        buf_release(&out);
        return;
    }
    result = haproxy_map_write(r->s.map, r->s.key, r->args->weight_b_bp);
    if (result < 0) {
        driver_fail(call, "failed", "%s: %s", r->s.map, err_text(result));
        buf_release(&out);
        return;
    }
    /* Servers before traffic. A key that the map does not have yet is added. */
    buf_addf(&out, "%s map %s %s %u\n", haproxy_map_value(reply->out, &present) ? "set" : "add",
             r->s.map, r->s.key, r->args->weight_b_bp);
    ask(call, &r->s, arena_str(call->arena, buf_str(&out)), was_set);
    buf_release(&out);
}

static void act_router(struct driver_call *call)
{
    struct route *r = arena_alloc(call->arena, sizeof(*r));

    r->args = DRIVER_ARGS(call, router_args);
    if (r->args == NULL || !read_settings(call, r->args->driver, true, &r->s)) {
        return;
    }
    r->set = strcmp(call->what->verb, "set") == 0;
    if (r->set && r->args->weight_b_bp > FULL_BP) {
        driver_fail(call, "invalid", "a weight above 100 %%");
        return;
    }
    call->state = r;
    ask(call, &r->s, str_from(map_command(call, &r->s)), r->set ? set_now : read_back);
}

/* ---- the metric ---- */

static void sampled(struct driver_call *call, const struct driver_reply *reply)
{
    struct settings *s = call->state;
    Pb__MetricAnswer answer = PB__METRIC_ANSWER__INIT;
    struct haproxy_stat stat;
    struct haproxy_row row;

    if (!has_stat(call, reply, &stat)) {
        return;
    }
    answer.series = arena_array(call->arena, 2, sizeof(*answer.series));
    while (haproxy_stat_next(&stat, &row) && answer.n_series < 2) {
        const int slot = slot_of(s, row.backend);
        if (slot < 0 || !str_eqz(row.server, "BACKEND")) {
            continue;
        }
        Pb__MetricSeries *series = arena_alloc(call->arena, sizeof(*series));
        pb__metric_series__init(series);
        series->slot = (Pb__RolloutSlot)slot;
        series->instance = arena_strdup(call->arena, row.backend);
        series->total = (double)row.requests;
        series->bad = (double)MIN(row.errors, row.requests);
        answer.series[answer.n_series++] = series;
    }
    answer.taken_ms = os_realtime_ms();
    driver_done(call, &answer.base);
}

static void act_metric(struct driver_call *call)
{
    const Pb__MetricArgs *args = DRIVER_ARGS(call, metric_args);
    struct settings *s = arena_alloc(call->arena, sizeof(*s));

    if (args != NULL && read_settings(call, args->driver, false, s)) {
        call->state = s;
        ask(call, s, STR("show stat\n"), sampled);
    }
}

static void act(struct driver_call *call)
{
    if (strcmp(call->what->verb, "set") == 0 || strcmp(call->what->verb, "read") == 0) {
        act_router(call);
    } else if (strcmp(call->what->verb, "sample") == 0) {
        act_metric(call);
    } else {
        driver_fail(call, "invalid", "haproxy can set, read and sample, not %s", call->what->verb);
    }
}

const struct driver driver_haproxy = {.name = "haproxy", .act = act};
