/* Containers beside the job's: started before it, known by their aliases in its network. */
#include "common/base.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/exec.h"
#include "worker/step/container.h"

#define LOG_LINES      50u
#define LOG_BYTES      ((size_t)16 * KIB)
#define HEALTH_LOOK_MS 250u

/* The job's variables but for its secrets, then those of the service alone. */
static json_t *environment(const struct box *box, const Pb__Service *service)
{
    struct step *s = box->s;
    struct vars own;
    json_t *list = json_array();
    vars_layer(&own, &s->arena, &s->vars, 0);
    for (size_t i = 0; i < service->n_variables; i++) {
        const Pb__Variable *v = service->variables[i];
        vars_set(&own,
                 (struct var){.name = str_from(v->name), .value = pb_str(v->value), .raw = v->raw});
    }
    for (size_t i = 0; i < s->vars.count; i++) {
        const struct var *var = &s->vars.items[i];
        if (!var->file && !var->masked && vars_get_own(&own, var->name) == NULL) {
            json_array_append_new(
                list, json_sprintf(STR_FMT "=" STR_FMT, STR_ARG(var->name), STR_ARG(var->value)));
        }
    }
    for (size_t i = 0; i < service->n_variables; i++) {
        const struct var *var = vars_get(&own, str_from(service->variables[i]->name));
        json_array_append_new(
            list, json_sprintf(STR_FMT "=" STR_FMT, STR_ARG(var->name), STR_ARG(var->value)));
    }
    return list;
}

static json_t *aliases(const struct box *box, const Pb__Service *service, const char *image)
{
    struct image_name name;
    const char *hosts[IMAGE_HOSTS_MAX];
    json_t *list = json_array();
    char *text = arena_strdup(&box->s->arena, pb_str(service->alias));
    const char *own = box_expand(box, text);
    struct buf words = BUF_INIT;
    struct str rest;
    struct str word;
    buf_addz(&words, own != NULL ? own : "");
    for (size_t i = 0; i < words.n; i++) {
        words.p[i] = strchr(", \t\n", words.p[i]) != NULL ? ' ' : words.p[i];
    }
    rest = buf_str(&words);
    while (str_split(&rest, ' ', &word)) {
        if (word.n > 0) {
            json_array_append_new(list, json_stringn(word.p, word.n));
        }
    }
    buf_release(&words);
    check(image_name_parse(str_from(image), &name) == 0);
    size_t n = image_name_hosts(&name, &box->s->arena, hosts);
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_string(hosts[i]));
    }
    return list;
}

static json_t *words_of(char *const *words, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(list, json_string(words[i]));
    }
    return list;
}

static json_t *description(const struct box *box, const Pb__Service *service,
                           const struct box_image *image, const char *network)
{
    json_t *body = json_pack("{s:s, s:s, s:o, s:o, s:o}", "Image", image->info.id, "User",
                             image->user, "Env", environment(box, service), "Labels",
                             box_labels(box), "HostConfig", box_host_config(box, network));
    check(body != NULL);
    if (service->image->n_entrypoint > 0) {
        json_object_set_new(body, "Entrypoint",
                            words_of(service->image->entrypoint, service->image->n_entrypoint));
    }
    if (service->n_command > 0) {
        json_object_set_new(body, "Cmd", words_of(service->command, service->n_command));
    }
    json_t *endpoints = json_pack("{s:{s:{s:o}}}", "EndpointsConfig", network, "Aliases",
                                  aliases(box, service, image->name));
    check(endpoints != NULL);
    json_object_set_new(body, "NetworkingConfig", endpoints);
    return body;
}

/* On which port it is ready, when it is: of several it may listen on one alone, the lowest. */
static void add_ports(const struct box *box, const Pb__Service *service,
                      const struct answer_image *info, Pb__ServiceState *state)
{
    uint64_t port = info->port_count > 0 ? info->ports[0] : 0;
    for (size_t i = 0; i < service->n_variables; i++) {
        const Pb__Variable *v = service->variables[i];
        if (strcmp(v->name, "HEALTHCHECK_TCP_PORT") == 0 &&
            (str_to_u64(str_trim(pb_str(v->value)), &port) < 0 || port > UINT16_MAX)) {
            step_warn("HEALTHCHECK_TCP_PORT of service %s is no port", state->name);
            port = 0;
        }
    }
    if (port > 0) {
        state->ports = arena_array(&box->s->arena, 1, sizeof(*state->ports));
        state->ports[state->n_ports++] = (uint32_t)port;
    }
}

static int start_one(const struct box *box, const char *network, const Pb__Service *service,
                     size_t number, Pb__ContainerState *state)
{
    struct box_image image;
    struct buf why = BUF_INIT;
    const char *id;
    int code = box_get_image(box, service->image, "service", &image);
    if (code != 0) {
        return code;
    }
    char *name = arena_printf(&box->s->arena, "%s-%zu", box->name, number);
    int r = engine_create(&box->engine, name, image.platform,
                          description(box, service, &image, network), &id, &why);
    r = r < 0 ? r : engine_start(&box->engine, id, &why);
    if (r < 0) {
        step_error("service %s does not start: %s", image.name, box_quote(box, buf_str(&why)));
        buf_release(&why);
        return r == -E_INVALID || r == -E_NOT_FOUND ? STEP_EXIT_CONFIG : STEP_EXIT_SYSTEM;
    }
    Pb__ServiceState *one = arena_alloc(&box->s->arena, sizeof(*one));
    pb__service_state__init(one);
    one->id = arena_strdup(&box->s->arena, str_from(id));
    one->name = arena_strdup(&box->s->arena, str_from(image.name));
    one->health = image.info.health;
    add_ports(box, service, &image.info, one);
    state->services[state->n_services++] = one;
    buf_release(&why);
    return 0;
}

int box_start_services(const struct box *box, const char *network, Pb__ContainerState *state)
{
    const Pb__JobSpec *spec = box->s->spec;
    int code = 0;
    state->services = arena_array(&box->s->arena, spec->n_services + 1, sizeof(*state->services));
    for (size_t i = 0; code == 0 && i < spec->n_services; i++) {
        if (spec->services[i]->image == NULL) {
            step_error("a service has no image");
            return STEP_EXIT_CONFIG;
        }
        code = start_one(box, network, spec->services[i], i, state);
    }
    return code;
}

/* Where it is now; says so when it has ended instead. NULL: there is nothing to wait for. */
static const char *address_of(const struct box *box, const Pb__ServiceState *service)
{
    struct answer_container c;
    struct buf why = BUF_INIT;
    int r = engine_inspect(&box->engine, service->id, &c, &why);
    const char *address = NULL;
    if (r < 0) {
        step_warn("service %s cannot be looked at: %s", service->name,
                  box_quote(box, buf_str(&why)));
    } else if (!c.running) {
        step_warn("service %s has ended with exit code %" PRIi64, service->name, c.exit_code);
    } else {
        address = c.ipv4;
    }
    buf_release(&why);
    return address;
}

const char **box_service_endpoints(const struct box *box, const Pb__ContainerState *state,
                                   size_t *ret_count)
{
    const char **list = arena_array(&box->s->arena, state->n_services + 1, sizeof(*list));
    size_t n = 0;
    for (size_t i = 0; i < state->n_services; i++) {
        const Pb__ServiceState *service = state->services[i];
        if (service->health || service->n_ports == 0) {
            continue;
        }
        const char *address = address_of(box, service);
        if (address != NULL && address[0] != '\0') {
            list[n++] = arena_printf(&box->s->arena, "%s:%u", address, service->ports[0]);
        }
    }
    list[n] = NULL;
    *ret_count = n;
    return list;
}

static void await_one(const struct box *box, const Pb__ServiceState *service, uint64_t end_ms)
{
    struct engine engine = box->engine;
    struct answer_container c;
    struct arena arena; /* of each look */
    struct buf why = BUF_INIT;
    const char *problem = NULL;
    bool healthy = false;
    arena_init(&arena, 0);
    engine.arena = &arena;
    while (!healthy && problem == NULL) {
        arena_clear(&arena);
        if (engine_inspect(&engine, service->id, &c, &why) < 0) {
            problem = "cannot be looked at";
        } else if (!c.running) {
            problem = "has ended";
        } else if (strcmp(c.health, "healthy") == 0) {
            healthy = true;
        } else if (os_monotonic_ms() >= end_ms) {
            problem = "is not well yet";
        } else {
            os_sleep_ms(HEALTH_LOOK_MS);
        }
    }
    if (problem != NULL) {
        step_warn("service %s %s; going on all the same", service->name, problem);
    }
    arena_release(&arena);
    buf_release(&why);
}

void box_await_health(const struct box *box, const Pb__ContainerState *state)
{
    uint64_t end_ms = os_monotonic_ms() + box->settings->service_wait_ms;
    for (size_t i = 0; i < state->n_services; i++) {
        if (state->services[i]->health) {
            await_one(box, state->services[i], end_ms);
        }
    }
}

void box_show_service_logs(const struct box *box, const Pb__ContainerState *state)
{
    for (size_t i = 0; i < state->n_services; i++) {
        struct buf log = BUF_INIT;
        struct buf why = BUF_INIT;
        buf_init(&log, LOG_BYTES);
        if (engine_logs(&box->engine, state->services[i]->id, LOG_LINES, &log, &why) == 0 &&
            log.n > 0) {
            step_say("What service %s said last:", state->services[i]->name);
            (void)os_write_all(STDOUT_FILENO, log.p, log.n);
        }
        buf_release(&log);
        buf_release(&why);
    }
}
