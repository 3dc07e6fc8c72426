/* What is asked of the driver `process`: the action's arguments and the target's settings. */
#include "common/base.h"

#include <arpa/inet.h>

#include "common/crypto.h"
#include "common/drivers.h"
#include "common/limits.h"
#include "worker/driver/process.h"

#define GRACE_MS     10000u
#define NAME_BYTES   100u /* of a service, in its folder's name */
#define DIGEST_BYTES 8u

/* Two services never get the same one, and people know it again. */
static const char *service_dir(struct driver_call *call, const char *service)
{
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    char *name = arena_strdup(call->arena, str_sub(str_from(service), 0, NAME_BYTES));

    for (char *p = name; *p != '\0'; p++) {
        const bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                            (*p >= '0' && *p <= '9') || *p == '_' || (*p == '.' && p > name);
        *p = letter ? *p : '-';
    }
    crypto_sha256(service, strlen(service), digest);
    str_to_hex(digest, DIGEST_BYTES, hex);
    return arena_printf(call->arena, "%s/%s-%s", call->state_dir, name, hex);
}

static const char *text_of(struct driver_call *call, const Pb__InstanceArgs *args, const char *name,
                           const char *otherwise)
{
    return arena_strdup(call->arena, driver_setting(args->driver, name, otherwise));
}

static bool is_address(const char *text)
{
    uint8_t bytes[16];

    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

/* The lower half is slot a's, the upper half slot b's; of an odd count the last is nobody's. */
static bool take_ports(struct driver_call *call, const Pb__InstanceArgs *args,
                       struct process_wish *w)
{
    uint32_t first, last;

    if (driver_ports_parse(driver_setting(args->driver, "ports", ""), &first, &last) < 0) {
        driver_fail(call, "invalid", "process needs ports, a range as 8100-8199");
        return false;
    }
    w->port_count = (last - first + 1) / 2;
    w->first_port = w->slot == 'b' ? first + w->port_count : first;
    if (w->instances > w->port_count) {
        driver_fail(call, "invalid", "%u instances, and %u ports for slot %c", w->instances,
                    w->port_count, w->slot);
        return false;
    }
    return true;
}

static bool take_health(struct driver_call *call, const Pb__InstanceArgs *args,
                        struct process_wish *w)
{
    const char *health = text_of(call, args, "health", "/");

    w->health = strcmp(health, "tcp") == 0 ? NULL : health;
    if (w->health != NULL && (health[0] != '/' || strpbrk(health, " \r\n\t") != NULL)) {
        driver_fail(call, "invalid", "health is a path, or tcp");
        return false;
    }
    return true;
}

static bool take_command(struct driver_call *call, const Pb__InstanceArgs *args,
                         struct process_wish *w)
{
    const struct str grace = driver_setting(args->driver, "grace", "");

    w->command = args->command.len > 0 ? arena_strdup(call->arena, pb_str(args->command))
                                       : text_of(call, args, "command", "");
    w->cwd = text_of(call, args, "cwd", "/");
    w->grace_ms = GRACE_MS;
    if (w->cwd[0] != '/') {
        driver_fail(call, "invalid", "cwd is a whole path");
        return false;
    }
    if (grace.n > 0 && str_to_duration_ms(grace, &w->grace_ms) < 0) {
        driver_fail(call, "invalid", "grace is a time as 10s");
        return false;
    }
    w->grace_ms = MIN(w->grace_ms, LIMIT_TIMEOUT_MS);
    return true;
}

bool process_wish_read(struct driver_call *call, struct process_wish *w)
{
    const Pb__InstanceArgs *args = DRIVER_ARGS(call, instance_args);

    if (args == NULL) {
        return false;
    }
    if (args->service[0] == '\0' || args->snapshot.len > LIMIT_NAME) {
        driver_fail(call, "invalid", "process needs a service, and a snapshot that is a digest");
        return false;
    }
    char *snapshot = arena_alloc(call->arena, 2 * args->snapshot.len + 1);
    str_to_hex(args->snapshot.data, args->snapshot.len, snapshot);
    *w = (struct process_wish){
        .service_dir = service_dir(call, args->service),
        .service = args->service,
        .slot = args->slot == ROLLOUT_SLOT_B ? 'b' : 'a',
        .instances = strcmp(call->what->verb, "ensure") == 0 ? args->instances : 0,
        .snapshot = snapshot,
        .version = args->version,
        .address = text_of(call, args, "address", "127.0.0.1"),
        .drain_ms = MIN(args->drain_ms, LIMIT_TIMEOUT_MS),
    };
    if (!is_address(w->address)) {
        driver_fail(call, "invalid", "address is one of IPv4 or IPv6, by number");
        return false;
    }
    return take_ports(call, args, w) && take_health(call, args, w) && take_command(call, args, w);
}
