#include "common/base.h"

#include "worker/engine/auth.h"

#include <jansson.h>

#include "common/crypto.h"
#include "common/limits.h"

/* "https://index.docker.io/v1/" is how docker login writes Docker Hub. */
static struct str host_of(struct str key)
{
    static const struct str schemes[] = {
        {"https://", sizeof("https://") - 1},
        {"http://", sizeof("http://") - 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        if (str_starts(key, schemes[i])) {
            key = str_sub(key, schemes[i].n, key.n);
        }
    }
    ptrdiff_t slash = str_chr(key, '/');
    struct str host = slash >= 0 ? str_sub(key, 0, (size_t)slash) : key;
    bool hub = str_eqz(host, "index.docker.io") || str_eqz(host, "registry-1.docker.io");
    return hub ? STR("docker.io") : host;
}

static const json_t *find(json_t *auths, struct str registry)
{
    const char *key;
    json_t *entry;
    json_object_foreach(auths, key, entry)
    {
        if (str_eq(host_of(str_from(key)), registry)) {
            return entry;
        }
    }
    return NULL;
}

/* "auth" is base64 of USER:PASSWORD; docker also knows the two by name. */
static bool add_user(const json_t *entry, json_t *header)
{
    const char *auth = json_string_value(json_object_get(entry, "auth"));
    const char *user = json_string_value(json_object_get(entry, "username"));
    const char *password = json_string_value(json_object_get(entry, "password"));
    struct buf both = BUF_INIT;
    bool ok = false;
    if (auth != NULL && auth[0] != '\0') {
        ptrdiff_t colon = -1;
        if (crypto_from_base64(str_from(auth), &both) == 0) {
            colon = str_chr(buf_str(&both), ':');
        }
        if (colon > 0) {
            size_t n = (size_t)colon;
            ok = json_object_set_new(header, "username", json_stringn(both.p, n)) == 0 &&
                 json_object_set_new(header, "password",
                                     json_stringn(both.p + n + 1, both.n - n - 1)) == 0;
        }
        crypto_wipe(both.p, both.n);
    } else if (user != NULL && password != NULL) {
        ok = json_object_set_new(header, "username", json_string(user)) == 0 &&
             json_object_set_new(header, "password", json_string(password)) == 0;
    }
    buf_release(&both);
    return ok;
}

static bool add_token(const json_t *entry, json_t *header, const char *key)
{
    const char *token = json_string_value(json_object_get(entry, key));
    return token != NULL && token[0] != '\0' &&
           json_object_set_new(header, key, json_string(token)) == 0;
}

/* base64 in the alphabet for URLs */
static void encode(const json_t *header, struct buf *out)
{
    struct buf text = BUF_INIT;
    char *json = json_dumps(header, JSON_COMPACT);
    crypto_to_base64(str_from(json), &text);
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        buf_add_char(out, c == '+' ? '-' : c == '/' ? '_' : c);
    }
    crypto_wipe(json, strlen(json));
    free(json);
    crypto_wipe(text.p, text.n);
    buf_release(&text);
}

/* NULL, and why. */
static json_t *read_config(struct str config, struct buf *why)
{
    json_error_t error;
    if (config.n > LIMIT_AUTH_CONFIG) {
        buf_addf(why, "it has more than %u bytes", LIMIT_AUTH_CONFIG);
        return NULL;
    }
    json_t *root = json_loadb(config.p != NULL ? config.p : "", config.n, JSON_REJECT_DUPLICATES,
                              &error);
    if (!json_is_object(root)) {
        buf_addf(why, "it is no JSON object (line %d)", root == NULL ? error.line : 1);
        json_decref(root);
        return NULL;
    }
    return root;
}

int auth_header(struct str config, struct str registry, struct buf *out, struct buf *why)
{
    json_t *root = read_config(config, why);
    if (root == NULL) {
        return -E_INVALID;
    }
    const json_t *entry = find(json_object_get(root, "auths"), registry);
    json_t *header = json_object();
    bool user = add_user(entry, header);
    bool token = add_token(entry, header, "identitytoken");
    token = add_token(entry, header, "registrytoken") || token;
    int r = 0;
    if (entry == NULL || json_object_size(entry) == 0) {
        r = -E_NOT_FOUND;
    } else if (!user && !token) {
        buf_addf(why, "its entry for " STR_FMT " has neither a good `auth` nor a token",
                 STR_ARG(registry));
        r = -E_INVALID;
    } else {
        json_object_set_new(header, "serveraddress", json_stringn(registry.p, registry.n));
        encode(header, out);
    }
    json_decref(header);
    json_decref(root);
    return r;
}

/* It becomes the name of a program. */
static bool is_helper(struct str name)
{
    for (size_t i = 0; i < name.n; i++) {
        const char c = name.p[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            strchr("-_.", c) == NULL) {
            return false;
        }
    }
    return name.n > 0 && name.n <= LIMIT_NAME;
}

int auth_helper(struct str config, struct str registry, struct buf *out, struct buf *why)
{
    json_t *root = read_config(config, why);
    if (root == NULL) {
        return -E_INVALID;
    }
    const json_t *own = find(json_object_get(root, "credHelpers"), registry);
    const char *name = json_string_value(own != NULL ? own : json_object_get(root, "credsStore"));
    int r = name == NULL || name[0] == '\0' ? -E_NOT_FOUND : 0;
    if (r == 0 && !is_helper(str_from(name))) {
        buf_addf(why, "what its %s names for " STR_FMT " is no name of a program",
                 own != NULL ? "credHelpers" : "credsStore", STR_ARG(registry));
        r = -E_INVALID;
    } else if (r == 0) {
        buf_addf(out, "docker-credential-%s", name);
    }
    json_decref(root);
    return r;
}

struct str auth_server(struct str registry)
{
    return str_eqz(registry, "docker.io") ? STR("https://index.docker.io/v1/") : registry;
}

/* A user called so has a token in place of a password. */
#define TOKEN_USER "<token>"

int auth_answer(struct str answer, struct str registry, struct buf *out, struct buf *why)
{
    json_t *root = answer.n <= LIMIT_AUTH_CONFIG
                       ? json_loadb(answer.n > 0 ? answer.p : "", answer.n, 0, NULL)
                       : NULL;
    const char *user = json_string_value(json_object_get(root, "Username"));
    const char *secret = json_string_value(json_object_get(root, "Secret"));
    if (user == NULL || secret == NULL || secret[0] == '\0') {
        buf_addz(why, "it printed no JSON with Username and Secret");
        json_decref(root);
        return -E_INVALID;
    }
    json_t *header = strcmp(user, TOKEN_USER) == 0
                         ? json_pack("{s:s}", "identitytoken", secret)
                         : json_pack("{s:s, s:s}", "username", user, "password", secret);
    json_object_set_new(header, "serveraddress", json_stringn(registry.p, registry.n));
    encode(header, out);
    json_decref(header);
    json_decref(root);
    return 0;
}
