#include "common/base.h"

#include "worker/engine/answers.h"

#include <jansson.h>
#include <stdlib.h>

#include "common/limits.h"

#define ERROR_BYTES  1000u
#define STATUS_BYTES ((size_t)4 * KIB)
#define ID_MAX       256u

static json_t *load(struct str text)
{
    return json_loadb(text.p != NULL ? text.p : "", text.n, JSON_REJECT_DUPLICATES, NULL);
}

/* A text, or "" for anything else. */
static const char *text_of(const json_t *object, const char *key, struct arena *arena)
{
    const char *text = json_string_value(json_object_get(object, key));
    struct str s = str_sub(str_from(text != NULL ? text : ""), 0, LIMIT_ENGINE_TEXT);
    return arena_strdup(arena, s);
}

/* "1.41" */
static bool minor_of(const json_t *value, unsigned *ret)
{
    struct str text = str_from(json_string_value(value));
    uint64_t minor;
    if (!str_starts(text, STR("1.")) || str_to_u64(str_sub(text, 2, text.n), &minor) < 0 ||
        minor > 10000) {
        return false;
    }
    *ret = (unsigned)minor;
    return true;
}

int answer_version(struct str text, unsigned *ret_newest, unsigned *ret_oldest)
{
    unsigned newest;
    unsigned oldest;
    json_t *root = load(text);
    bool ok = minor_of(json_object_get(root, "ApiVersion"), &newest);
    if (ok && !minor_of(json_object_get(root, "MinAPIVersion"), &oldest)) {
        oldest = newest; /* an old one that does not say */
    }
    json_decref(root);
    if (!ok || oldest > newest) {
        return -E_PROTOCOL;
    }
    *ret_newest = newest;
    *ret_oldest = oldest;
    return 0;
}

static void add_line(struct str text, size_t limit, struct buf *out)
{
    text = str_trim(str_sub(text, 0, limit));
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        buf_add_char(out, c < ' ' || c == 0x7f ? ' ' : (char)c);
    }
}

void answer_error(struct str text, struct buf *why)
{
    json_t *root = load(text);
    const char *message = json_string_value(json_object_get(root, "message"));
    if (message == NULL) {
        message = json_string_value(json_object_get(root, "cause"));
    }
    struct str said = message != NULL ? str_from(message) : str_trim(text);
    if (said.n == 0) {
        said = STR("it does not say why");
    }
    add_line(said, ERROR_BYTES, why);
    json_decref(root);
}

/* Ids go into paths of later requests. */
static bool id_valid(struct str id)
{
    for (size_t i = 0; i < id.n; i++) {
        char c = id.p[i];
        bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    c == ':' || c == '-' || c == '_';
        if (!good) {
            return false;
        }
    }
    return id.n > 0 && id.n <= ID_MAX;
}

static bool id_of(const json_t *object, struct arena *arena, const char **ret)
{
    struct str id = str_from(json_string_value(json_object_get(object, "Id")));
    if (!id_valid(id)) {
        return false;
    }
    *ret = arena_strdup(arena, id);
    return true;
}

int answer_id(struct str text, struct arena *arena, const char **ret_id)
{
    json_t *root = load(text);
    int r = id_of(root, arena, ret_id) ? 0 : -E_PROTOCOL;
    json_decref(root);
    return r;
}

static int compare_ports(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* {"80/tcp": {}, "53/udp": {}} */
static void read_ports(json_t *exposed, struct arena *arena, struct answer_image *image)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    uint16_t *ports = arena_array(arena, LIMIT_ENGINE_PORTS, sizeof(*ports));
    json_object_foreach(exposed, key, value)
    {
        struct str rest = str_from(key);
        struct str number;
        uint64_t port;
        if (str_split(&rest, '/', &number) && (rest.n == 0 || str_eqz(rest, "tcp")) &&
            str_to_u64(number, &port) == 0 && port > 0 && port <= UINT16_MAX &&
            n < LIMIT_ENGINE_PORTS) {
            ports[n++] = (uint16_t)port;
        }
    }
    qsort(ports, n, sizeof(*ports), compare_ports);
    image->ports = ports;
    image->port_count = n;
}

static bool read_entrypoint(const json_t *list, struct arena *arena, struct answer_image *image)
{
    size_t n = json_array_size(list);
    if (n > LIMIT_CONTAINER_ARGUMENTS) {
        return false;
    }
    image->entrypoint = arena_array(arena, n + 1, sizeof(*image->entrypoint));
    for (size_t i = 0; i < n; i++) {
        const char *word = json_string_value(json_array_get(list, i));
        if (word == NULL || strlen(word) > LIMIT_ENGINE_TEXT) {
            return false;
        }
        image->entrypoint[i] = arena_strdup(arena, str_from(word));
    }
    image->entrypoint_count = n;
    return true;
}

/* {"Test": ["NONE"]} is none. */
static bool has_health(const json_t *config)
{
    const json_t *test = json_object_get(json_object_get(config, "Healthcheck"), "Test");
    const char *first = json_string_value(json_array_get(test, 0));
    return first != NULL && strcmp(first, "NONE") != 0 && first[0] != '\0';
}

int answer_image(struct str text, struct arena *arena, struct answer_image *ret)
{
    struct answer_image image = {0};
    json_t *root = load(text);
    const json_t *config = json_object_get(root, "Config");
    bool ok = id_of(root, arena, &image.id) &&
              read_entrypoint(json_object_get(config, "Entrypoint"), arena, &image);
    if (ok) {
        image.user = text_of(config, "User", arena);
        image.health = has_health(config);
        read_ports(json_object_get(config, "ExposedPorts"), arena, &image);
        *ret = image;
    }
    json_decref(root);
    return ok ? 0 : -E_PROTOCOL;
}

static const char *address_of(json_t *networks, struct arena *arena)
{
    const char *name;
    json_t *network;
    json_object_foreach(networks, name, network)
    {
        const char *address = json_string_value(json_object_get(network, "IPAddress"));
        if (address != NULL && address[0] != '\0' && strspn(address, "0123456789.") < 16 &&
            address[strspn(address, "0123456789.")] == '\0') {
            return arena_strdup(arena, str_from(address));
        }
    }
    return "";
}

int answer_container(struct str text, struct arena *arena, struct answer_container *ret)
{
    json_t *root = load(text);
    const json_t *state = json_object_get(root, "State");
    const json_t *settings = json_object_get(root, "NetworkSettings");
    bool ok = json_is_boolean(json_object_get(state, "Running"));
    if (ok) {
        *ret = (struct answer_container){
            .running = json_is_true(json_object_get(state, "Running")),
            .oom_killed = json_is_true(json_object_get(state, "OOMKilled")),
            .exit_code = json_integer_value(json_object_get(state, "ExitCode")),
            .error = text_of(state, "Error", arena),
            .health = text_of(json_object_get(state, "Health"), "Status", arena),
            .ipv4 = address_of(json_object_get(settings, "Networks"), arena),
        };
    }
    json_decref(root);
    return ok ? 0 : -E_PROTOCOL;
}

int answer_list(struct str text, struct arena *arena, struct answer_item **ret, size_t *ret_count)
{
    json_t *root = load(text);
    size_t n = json_array_size(root);
    bool ok = json_is_array(root);
    struct answer_item *items = arena_array(arena, n + 1, sizeof(*items));
    for (size_t i = 0; ok && i < n; i++) {
        const json_t *item = json_array_get(root, i);
        ok = id_of(item, arena, &items[i].id);
        items[i].job = text_of(json_object_get(item, "Labels"), "davit.job", arena);
    }
    json_decref(root);
    if (!ok) {
        return -E_PROTOCOL;
    }
    *ret = items;
    *ret_count = n;
    return 0;
}

void answer_pull_init(struct answer_pull *p)
{
    *p = (struct answer_pull){0};
    buf_init(&p->line, LIMIT_ENGINE_LINE);
    buf_init(&p->status, STATUS_BYTES);
}

void answer_pull_release(struct answer_pull *p)
{
    buf_release(&p->line);
    buf_release(&p->error);
    buf_release(&p->status);
}

static void take_line(struct answer_pull *p)
{
    json_t *root = load(buf_str(&p->line));
    const char *error = json_string_value(json_object_get(root, "error"));
    const char *status = json_string_value(json_object_get(root, "status"));
    if (error != NULL) {
        buf_clear(&p->error);
        add_line(str_from(error), ERROR_BYTES, &p->error);
        buf_addz(&p->error, p->error.n == 0 ? "it does not say why" : "");
    } else if (status != NULL && (str_starts(str_from(status), STR("Digest: ")) ||
                                  str_starts(str_from(status), STR("Status: ")))) {
        buf_addz(&p->status, p->status.n > 0 ? "; " : "");
        add_line(str_from(status), ERROR_BYTES, &p->status);
    }
    json_decref(root);
    buf_clear(&p->line);
}

void answer_pull_add(struct answer_pull *p, struct str bytes)
{
    while (bytes.n > 0) {
        ptrdiff_t end = str_chr(bytes, '\n');
        struct str part = end < 0 ? bytes : str_sub(bytes, 0, (size_t)end);
        if (!p->skipping) {
            buf_add_str(&p->line, part);
            p->skipping = !buf_ok(&p->line);
        }
        if (end < 0) {
            return;
        }
        if (p->skipping) {
            buf_clear(&p->line);
            p->skipping = false;
        } else {
            take_line(p);
        }
        bytes = str_sub(bytes, (size_t)end + 1, bytes.n);
    }
}

void answer_pull_end(struct answer_pull *p)
{
    if (!p->skipping && p->line.n > 0) {
        take_line(p);
    }
}

/* One byte each of the stream's number, three zeros, and the length, big-endian. */
static bool take_header(struct answer_logs *l)
{
    static const uint8_t zeros[3];
    l->left = (uint32_t)l->header[4] << 24 | (uint32_t)l->header[5] << 16 |
              (uint32_t)l->header[6] << 8 | l->header[7];
    l->header_bytes = 0;
    return l->header[0] <= 2 && memcmp(l->header + 1, zeros, sizeof(zeros)) == 0;
}

void answer_logs_add(struct answer_logs *l, struct str bytes, struct buf *out)
{
    while (bytes.n > 0 && !l->broken) {
        if (l->left > 0) {
            size_t n = MIN((size_t)l->left, bytes.n);
            buf_add(out, bytes.p, n);
            l->left -= (uint32_t)n;
            bytes = str_sub(bytes, n, bytes.n);
            continue;
        }
        size_t n = MIN(sizeof(l->header) - l->header_bytes, bytes.n);
        memcpy(l->header + l->header_bytes, bytes.p, n);
        l->header_bytes += n;
        bytes = str_sub(bytes, n, bytes.n);
        if (l->header_bytes == sizeof(l->header)) {
            l->broken = !take_header(l);
        }
    }
}
