#include "common/base.h"

#include "worker/engine/image_name.h"

#include "common/buf.h"
#include "common/err.h"
#include "common/glob.h"
#include "common/limits.h"

#define TAG_MAX 128u

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool made_of(struct str s, const char *others)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_letter_or_digit(s.p[i]) && (s.p[i] == '\0' || strchr(others, s.p[i]) == NULL)) {
            return false;
        }
    }
    return s.n > 0;
}

/* "registry.example.com", "localhost", "host:5000": what tells a registry from a folder of Docker
 * Hub. */
static bool is_registry(struct str first)
{
    return str_eqz(first, "localhost") || str_chr(first, '.') >= 0 || str_chr(first, ':') >= 0;
}

static bool path_valid(struct str path)
{
    struct str part;
    while (str_split(&path, '/', &part)) {
        if (!made_of(part, "._-") || !is_letter_or_digit(part.p[0])) {
            return false;
        }
    }
    return true;
}

/* Cuts ":TAG" off, but not the port of a registry. */
static void cut_tag(struct str *rest, struct image_name *name)
{
    for (size_t i = rest->n; i-- > 0 && rest->p[i] != '/';) {
        if (rest->p[i] == ':') {
            name->tag = str_sub(*rest, i + 1, rest->n);
            *rest = str_sub(*rest, 0, i);
            return;
        }
    }
}

int image_name_parse(struct str text, struct image_name *ret)
{
    struct image_name name = {.registry = STR("docker.io"), .tag = STR(""), .digest = STR("")};
    struct str rest = text;
    ptrdiff_t at = str_chr(text, '@');
    if (text.n == 0 || text.n > LIMIT_IMAGE_NAME) {
        return -E_INVALID;
    }
    if (at >= 0) {
        name.digest = str_sub(text, (size_t)at + 1, text.n);
        rest = str_sub(text, 0, (size_t)at);
        if (!made_of(name.digest, ":") || str_chr(name.digest, ':') < 0) {
            return -E_INVALID;
        }
    }
    size_t before = rest.n;
    cut_tag(&rest, &name);
    if (rest.n != before && (!made_of(name.tag, "._-") || name.tag.n > TAG_MAX)) {
        return -E_INVALID;
    }
    name.path = rest;
    ptrdiff_t slash = str_chr(rest, '/');
    if (slash > 0 && is_registry(str_sub(rest, 0, (size_t)slash))) {
        name.registry = str_sub(rest, 0, (size_t)slash);
        rest = str_sub(rest, (size_t)slash + 1, rest.n);
        if (!made_of(name.registry, ".:-_") || !is_letter_or_digit(name.registry.p[0])) {
            return -E_INVALID;
        }
    }
    if (!path_valid(rest) || rest.n == 0) {
        return -E_INVALID;
    }
    if (name.tag.n == 0 && name.digest.n == 0) {
        name.tag = STR("latest");
    }
    *ret = name;
    return 0;
}

static char *with(struct arena *arena, const struct image_name *name, const char *between)
{
    struct buf host = BUF_INIT;
    struct str rest = name->path;
    struct str part;
    bool first = true;
    while (str_split(&rest, '/', &part)) {
        ptrdiff_t port = first ? str_chr(part, ':') : -1;
        buf_addz(&host, first ? "" : between);
        buf_add_str(&host, port >= 0 ? str_sub(part, 0, (size_t)port) : part);
        first = false;
    }
    char *text = arena_strdup(arena, buf_str(&host));
    buf_release(&host);
    return text;
}

size_t image_name_hosts(const struct image_name *name, struct arena *arena,
                        const char *ret[IMAGE_HOSTS_MAX])
{
    ret[0] = with(arena, name, "__");
    ret[1] = with(arena, name, "-");
    return strcmp(ret[0], ret[1]) == 0 ? 1 : 2;
}

bool image_name_allowed(struct str text, char *const *patterns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (glob_match(GLOB_STAR, str_from(patterns[i]), text)) {
            return true;
        }
    }
    return count == 0;
}
