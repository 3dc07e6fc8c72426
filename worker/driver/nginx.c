/* The driver `nginx`, a router: a file with both upstreams and the split between them is written,
 * nginx is told to read it, and a URL of it is asked until it says the file's generation.
 *
 * A reload is not free: requests on connections that the old workers close get lost
 * (docs/rollouts.md). So nothing is reloaded when what is wanted is in force already. nginx does
 * not say whether a server is up, nor how many requests are open there: a server of the file in
 * force counts as up. A file that nginx refuses is put back as it was. */
#include "common/base.h"

#include "worker/driver/nginx.h"

#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "proto/rollout.h"
#include "worker/driver/op.h"

#define ANSWER_BYTES (64u * KIB)
#define ASK_MS       2000u
#define POLL_MS      100u
#define RELOAD_MS    30000u
#define IN_FORCE_MS  20000u
/* New workers answer while old ones still take connections, for a moment: after this time it is
 * asked once more. */
#define OLD_GO_MS 250u

struct route {
    const Pb__RouterArgs *args;
    const char *file;
    const char *name;
    const char *check;
    const char *reload;
    bool known; /* the file is one of ours */
    struct str old;
    struct nginx_route is; /* what the file says: after a set, what is wanted */
    char generation[NGINX_GENERATION_BYTES];
    uint64_t until_ms; /* of the polls */
    bool seen;         /* the generation, once */
};

static void done(struct driver_call *call, bool in_force)
{
    const struct route *r = call->state;
    Pb__RouterAnswer answer = PB__ROUTER_ANSWER__INIT;

    answer.unknown = !in_force;
    answer.servers = arena_array(call->arena, r->is.counts[0] + r->is.counts[1] + 1,
                                 sizeof(*answer.servers));
    for (int slot = 0; slot < 2 && in_force; slot++) {
        for (size_t i = 0; i < r->is.counts[slot]; i++) {
            Pb__RouterServer *s = arena_alloc(call->arena, sizeof(*s));
            pb__router_server__init(s);
            s->slot = (Pb__RolloutSlot)slot;
            s->address = r->is.servers[slot][i];
            s->up = true;
            answer.servers[answer.n_servers++] = s;
        }
    }
    answer.weight_b_bp = in_force ? r->is.weight : 0;
    driver_done(call, &answer.base);
}

static bool says(const struct route *r, const struct driver_reply *reply)
{
    return reply->error == 0 && reply->status == 200 &&
           str_find(reply->out, str_from(r->generation)) >= 0;
}

static void ask(struct driver_call *call, driver_fn fn)
{
    const struct route *r = call->state;
    /* A connection that stayed open would be answered by a worker that is to go. */
    static const char *const headers[] = {"Connection", "close", NULL};
    const struct driver_http request = {
        .url = r->check, .headers = headers, .limit = ANSWER_BYTES, .timeout_ms = ASK_MS};

    driver_http(call, &request, fn);
}

/* ---- set ---- */

static void polled(struct driver_call *call, const struct driver_reply *reply);

static void poll_again(struct driver_call *call, const struct driver_reply *reply)
{
    (void)reply;
    ask(call, polled);
}

static void polled(struct driver_call *call, const struct driver_reply *reply)
{
    struct route *r = call->state;
    const bool good = says(r, reply);

    if (good && r->seen) {
        done(call, true);
    } else if (os_monotonic_ms() >= r->until_ms) {
        driver_fail(call, "timeout", "nginx: %s does not say the generation %s%s%s", r->check,
                    r->generation, reply->error < 0 ? ": " : "",
                    reply->error < 0 ? reply->why : "");
    } else {
        r->seen = good;
        driver_after(call, good ? OLD_GO_MS : POLL_MS, poll_again);
    }
}

/* As it was before: what nginx refused must not be there when it starts next. */
static void put_back(const struct route *r)
{
    if (r->old.n > 0) {
        (void)os_write_file(r->file, r->old.p, r->old.n, 0644);
    } else {
        (void)unlink(r->file);
    }
}

static void reloaded(struct driver_call *call, const struct driver_reply *reply)
{
    struct route *r = call->state;

    if (reply->error < 0 || reply->status != 0) {
        const struct str said = last_line(reply->err);
        put_back(r);
        if (reply->error < 0) {
            driver_fail(call, "failed", "nginx: reload: %s", reply->why);
        } else {
            driver_fail(call, "refused", "nginx: reload ended with %d: " STR_FMT, reply->status,
                        (int)MIN(said.n, 300u), said.n > 0 ? said.p : "");
        }
        return;
    }
    r->until_ms = os_monotonic_ms() + IN_FORCE_MS;
    ask(call, polled);
}

static void write_and_reload(struct driver_call *call, struct str text)
{
    const struct route *r = call->state;
    const char *argv[] = {"/bin/sh", "-c", r->reload, NULL};
    const struct driver_exec exec = {.argv = argv, .limit = ANSWER_BYTES, .timeout_ms = RELOAD_MS};
    const int result = text.n > LIMIT_NGINX_FILE ? -E_TOO_BIG
                                                 : os_write_file(r->file, text.p, text.n, 0644);

    if (result < 0) {
        driver_fail(call, "failed", "nginx: %s: %s", r->file, err_text(result));
        return;
    }
    driver_exec(call, &exec, reloaded);
}

static void set_now(struct driver_call *call, const struct driver_reply *reply)
{
    struct route *r = call->state;
    const bool was = r->known && says(r, reply);
    struct buf text = BUF_INIT;

    r->is.weight = r->args->weight_b_bp;
    if (r->args->n_servers_a > 0) {
        r->is.servers[0] = r->args->servers_a;
        r->is.counts[0] = r->args->n_servers_a;
    }
    if (r->args->n_servers_b > 0) {
        r->is.servers[1] = r->args->servers_b;
        r->is.counts[1] = r->args->n_servers_b;
    }
    nginx_render(r->name, &r->is, &text, r->generation);
    if (was && str_eq(buf_str(&text), r->old)) {
        done(call, true);
    } else {
        write_and_reload(call, buf_str(&text));
    }
    buf_release(&text);
}

/* ---- read ---- */

static void read_back(struct driver_call *call, const struct driver_reply *reply)
{
    const struct route *r = call->state;

    if (reply->error < 0) {
        driver_fail(call, "unreachable", "nginx: %s: %s", r->check, reply->why);
    } else {
        done(call, r->known && says(r, reply));
    }
}

/* ---- the call ---- */

static bool read_settings(struct driver_call *call, struct route *r)
{
    const Pb__DriverConfig *config = r->args->driver;

    r->file = arena_strdup(call->arena, driver_setting(config, "file", ""));
    r->name = arena_strdup(call->arena, driver_setting(config, "name", ""));
    r->check = arena_strdup(call->arena, driver_setting(config, "check", ""));
    r->reload = arena_strdup(call->arena, driver_setting(config, "reload", ""));
    if (r->file[0] != '/' || !nginx_is_name(str_from(r->name)) || r->reload[0] == '\0' ||
        !(str_starts(str_from(r->check), STR("http://")) ||
          str_starts(str_from(r->check), STR("https://")))) {
        driver_fail(call, "invalid",
                    "nginx needs file (a path), name (letters, digits, _), reload, check (a URL)");
        return false;
    }
    return true;
}

static bool check_servers(struct driver_call *call, char *const *servers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!nginx_is_address(str_from(servers[i]))) {
            driver_fail(call, "invalid", "nginx: `%.100s` is not HOST:PORT", servers[i]);
            return false;
        }
    }
    return true;
}

static bool check_wish(struct driver_call *call, const Pb__RouterArgs *a)
{
    if (a->weight_b_bp > 10000 || a->n_servers_a + a->n_servers_b > LIMIT_ROUTER_SERVERS) {
        driver_fail(call, "invalid", "nginx: a weight above 100 %%, or more than %u servers",
                    LIMIT_ROUTER_SERVERS);
        return false;
    }
    if (a->mirror_b_bp > 0) {
        driver_fail(call, "invalid", "nginx: this driver cannot mirror requests");
        return false;
    }
    return check_servers(call, a->servers_a, a->n_servers_a) &&
           check_servers(call, a->servers_b, a->n_servers_b);
}

static void act(struct driver_call *call)
{
    struct route *r = arena_alloc(call->arena, sizeof(*r));
    const bool set = strcmp(call->what->verb, "set") == 0;
    struct buf old = BUF_INIT;
    int result;

    if (!set && strcmp(call->what->verb, "read") != 0) {
        driver_fail(call, "invalid", "nginx can set and read, not %s", call->what->verb);
        return;
    }
    *r = (struct route){.args = DRIVER_ARGS(call, router_args)};
    if (r->args == NULL || !read_settings(call, r) || (set && !check_wish(call, r->args))) {
        return;
    }
    result = os_read_file(r->file, LIMIT_NGINX_FILE, &old);
    if (result < 0 && result != -E_NOT_FOUND) {
        driver_fail(call, "failed", "nginx: %s: %s", r->file, err_text(result));
    } else {
        r->old = arena_str(call->arena, buf_str(&old));
        r->known = nginx_parse(r->name, r->old, call->arena, &r->is, r->generation);
        if (!r->known) {
            r->is.counts[0] = r->is.counts[1] = 0;
        }
        call->state = r;
        ask(call, set ? set_now : read_back);
    }
    buf_release(&old);
}

const struct driver driver_nginx = {.name = "nginx", .act = act};
