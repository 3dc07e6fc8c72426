#include "common/base.h"

#include "worker/driver/nginx.h"

#include "common/crypto.h"
#include "common/limits.h"

#define FULL_BP 10000u

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool nginx_is_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && s.p[i] != '_') {
            return false;
        }
    }
    return s.n > 0 && s.n <= LIMIT_NAME;
}

bool nginx_is_address(struct str s)
{
    size_t colon = s.n;
    uint64_t port;

    while (colon > 0 && s.p[colon - 1] != ':') {
        colon--;
    }
    if (colon < 2 || s.n > LIMIT_NAME || str_to_u64(str_sub(s, colon, s.n), &port) < 0 ||
        port == 0 || port > UINT16_MAX) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && (s.p[i] == '\0' || strchr(".:-_[]", s.p[i]) == NULL)) {
            return false;
        }
    }
    return true;
}

/* An upstream has to have a server: this one is never asked. */
static void add_upstream(struct buf *out, const char *name, char slot, char *const *servers,
                         size_t count)
{
    buf_addf(out, "upstream %s_%c {\n", name, slot);
    for (size_t i = 0; i < count; i++) {
        buf_addf(out, "    server %s;\n", servers[i]);
    }
    buf_addf(out, "%s}\n", count == 0 ? "    server 127.0.0.1:1 down;\n" : "");
}

/* A share of 0 is no share to nginx. */
static void add_split(struct buf *out, const char *name, uint32_t weight)
{
    buf_addf(out, "map $cookie_uid $%s_key {\n    '' $request_id;\n    default $cookie_uid;\n}\n",
             name);
    buf_addf(out, "split_clients $%s_key $%s_slot {\n", name, name);
    if (weight > 0 && weight < FULL_BP) {
        buf_addf(out, "    %u.%02u%% %s_b;\n", weight / 100, weight % 100, name);
    }
    buf_addf(out, "    * %s_%c;\n}\n", name, weight == FULL_BP ? 'b' : 'a');
}

void nginx_render(const char *name, const struct nginx_route *route, struct buf *out,
                  char ret_generation[NGINX_GENERATION_BYTES])
{
    const size_t from = out->n;
    uint8_t digest[SHA256_BYTES];

    buf_addf(out, "# Written by Davit; what is changed here is lost.\n# weight %u\n",
             route->weight);
    add_upstream(out, name, 'a', route->servers[0], route->counts[0]);
    add_upstream(out, name, 'b', route->servers[1], route->counts[1]);
    add_split(out, name, route->weight);
    const struct str rest = str_sub(buf_str(out), from, out->n - from);
    crypto_sha256(rest.p, rest.n, digest);
    str_to_hex(digest, (NGINX_GENERATION_BYTES - 1) / 2, ret_generation);
    buf_addf(out, "map $host $%s_generation {\n    default %s;\n}\n", name, ret_generation);
}

static bool take_line(struct str line, struct arena *arena, struct nginx_route *r,
                      char **servers[2], int *slot)
{
    static const char weight[] = "# weight ";
    uint64_t n;

    line = str_trim(line);
    if (str_starts(line, str_from(weight))) {
        if (str_to_u64(str_sub(line, sizeof(weight) - 1, line.n), &n) < 0 || n > FULL_BP) {
            return false;
        }
        r->weight = (uint32_t)n;
    } else if (str_starts(line, STR("upstream "))) {
        (*slot)++;
    } else if (str_starts(line, STR("server ")) && str_ends(line, STR(";")) &&
               !str_ends(line, STR(" down;"))) {
        const struct str address = str_sub(line, 7, line.n - 8);
        if (*slot < 0 || *slot > 1 || r->counts[*slot] == LIMIT_ROUTER_SERVERS ||
            !nginx_is_address(address)) {
            return false;
        }
        servers[*slot][r->counts[*slot]++] = arena_strdup(arena, address);
    }
    return true;
}

bool nginx_parse(const char *name, struct str text, struct arena *arena, struct nginx_route *ret,
                 char ret_generation[NGINX_GENERATION_BYTES])
{
    char **servers[2];
    struct buf again = BUF_INIT;
    struct str rest = text, line;
    int slot = -1;
    bool same;

    *ret = (struct nginx_route){0};
    for (int i = 0; i < 2; i++) {
        servers[i] = arena_array(arena, LIMIT_ROUTER_SERVERS, sizeof(*servers[i]));
        ret->servers[i] = servers[i];
    }
    while (str_split(&rest, '\n', &line)) {
        if (!take_line(line, arena, ret, servers, &slot)) {
            return false;
        }
    }
    nginx_render(name, ret, &again, ret_generation);
    same = str_eq(buf_str(&again), text);
    buf_release(&again);
    return same;
}
