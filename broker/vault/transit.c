#include "common/base.h"

#include "broker/vault/transit.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/crypto.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"

#define TIMEOUT_MS   15000u
#define ANSWER_LIMIT (64u * KIB)

/* Who wants to decrypt must not be stopped by a trailing line end. */
static int read_token(struct buf *out, struct buf *why)
{
    const char *token = getenv("VAULT_TOKEN");
    const char *file = getenv("VAULT_TOKEN_FILE");
    int r = 0;

    if (token != NULL && token[0] != '\0') {
        buf_addz(out, token);
        return 0;
    }
    if (file == NULL) {
        buf_addz(why, "neither VAULT_TOKEN nor VAULT_TOKEN_FILE is set");
        return -E_USAGE;
    }
    r = os_read_file(file, ANSWER_LIMIT, out);
    if (r < 0) {
        buf_addf(why, "cannot read VAULT_TOKEN_FILE %s: %s", file, err_text(r));
        return r;
    }
    buf_truncate(out, str_trim(buf_str(out)).n);
    return 0;
}

static int make_url(const char *operation, const char *key, struct buf *url, struct buf *why)
{
    const char *address = getenv("VAULT_ADDR");
    const char *mount = getenv("VAULT_TRANSIT_MOUNT");
    struct str base = str_from(address);

    if (base.n == 0) {
        buf_addz(why, "VAULT_ADDR is not set");
        return -E_USAGE;
    }
    while (base.n > 0 && base.p[base.n - 1] == '/') {
        base.n--;
    }
    buf_addf(url, STR_FMT "/v1/%s/%s/%s", STR_ARG(base), mount != NULL ? mount : "transit",
             operation, key);
    return 0;
}

/* What the Vault says of an error: {"errors": ["..."]}. */
static int refused(int status, const json_t *answer, struct buf *why)
{
    const char *text = json_string_value(json_array_get(json_object_get(answer, "errors"), 0));

    buf_addf(why, "the Vault answers %d%s%.200s", status, text != NULL ? ": " : "",
             text != NULL ? text : "");
    return status == 403 ? -E_FORBIDDEN : status == 404 ? -E_NOT_FOUND : -E_UNREACHABLE;
}

static int take_field(const struct buf *text, int status, const char *field, struct buf *out,
                      struct buf *why)
{
    json_t *answer = json_loadb(text->n > 0 ? text->p : "", text->n, 0, NULL);
    const char *value = json_string_value(json_object_get(json_object_get(answer, "data"), field));
    int r = 0;

    if (status != 200) {
        r = refused(status, answer, why);
    } else if (value == NULL) {
        buf_addf(why, "the Vault's answer has no `%s`", field);
        r = -E_PROTOCOL;
    } else {
        buf_addz(out, value);
    }
    json_decref(answer);
    return r;
}

static int call(const char *operation, const char *key, const char *given, struct str value,
                const char *wanted, struct buf *out, struct buf *why)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf url = BUF_INIT;
    struct buf token = BUF_INIT;
    struct buf answer = BUF_INIT;
    json_t *body = json_pack("{s:s%}", given, value.p, value.n);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    int status = 0;
    int r = text != NULL ? make_url(operation, key, &url, why) : -E_INVALID;

    r = r < 0 ? r : read_token(&token, why);
    if (r == 0) {
        http_global_init();
        req.method = "POST";
        req.url = buf_cstr(&url);
        req.token = buf_cstr(&token);
        req.body = str_from(text);
        req.out_limit = ANSWER_LIMIT;
        req.timeout_ms = TIMEOUT_MS;
        r = http_do(&req, &status, &answer, why);
    }
    r = r < 0 ? r : take_field(&answer, status, wanted, out, why);
    crypto_wipe(token.p, token.n);
    crypto_wipe(answer.p, answer.n);
    if (text != NULL) {
        crypto_wipe(text, strlen(text));
    }
    free(text);
    json_decref(body);
    buf_release(&answer);
    buf_release(&token);
    buf_release(&url);
    return r;
}

int transit_encrypt(const char *key, struct str plain, struct buf *out, struct buf *why)
{
    struct buf text = BUF_INIT;

    crypto_to_base64(plain, &text);
    int r = call("encrypt", key, "plaintext", buf_str(&text), "ciphertext", out, why);
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    return r;
}

int transit_decrypt(const char *key, struct str sealed, struct buf *out, struct buf *why)
{
    struct buf text = BUF_INIT;
    int r = call("decrypt", key, "ciphertext", sealed, "plaintext", &text, why);

    if (r == 0 && crypto_from_base64(buf_str(&text), out) < 0) {
        buf_addz(why, "the Vault's answer is no base64");
        r = -E_PROTOCOL;
    }
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    return r;
}
