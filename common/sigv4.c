#include "common/base.h"

#include "common/sigv4.h"

#include <inttypes.h>

#include "common/crypto.h"

#define ALGORITHM "AWS4-HMAC-SHA256"

void sigv4_encode(struct str text, struct buf *out)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c != '\0' && strchr("-._~", c) != NULL);
        buf_addf(out, plain ? "%c" : "%%%02X", (unsigned char)c);
    }
}

void sigv4_time(uint64_t time_ms, char ret[SIGV4_TIME_CHARS])
{
    char text[32];
    size_t n = 0;
    for (const char *p = str_time(time_ms, text, sizeof(text)); *p != '\0'; p++) {
        if (*p != '-' && *p != ':' && n < SIGV4_TIME_CHARS - 1) {
            ret[n++] = *p;
        }
    }
    ret[n] = '\0';
}

/* The names of the signed headers, host in its place. */
static void add_headers(const struct sigv4_request *req, bool with_values, struct buf *out)
{
    bool host = false;
    const char *between = with_values ? "" : ";";
    size_t start = out->n;
    for (const char *const *h = req->headers; !host || (h != NULL && h[0] != NULL);) {
        bool is_host = !host && (h == NULL || h[0] == NULL || strcmp(h[0], "host") > 0);
        const char *name = is_host ? "host" : h[0];
        buf_addz(out, out->n > start ? between : "");
        buf_addz(out, name);
        if (with_values) {
            buf_addf(out, ":%s\n", is_host ? req->host : h[1]);
        }
        host = host || is_host;
        h += is_host ? 0 : 2;
    }
}

/* DATE/REGION/s3/aws4_request */
static void add_scope(const struct sigv4_key *key, const char *time, const char *slash,
                      struct buf *out)
{
    buf_addf(out, "%.8s%s%s%ss3%saws4_request", time, slash, key->region, slash, slash);
}

static void signing_key(const struct sigv4_key *key, const char *time, uint8_t ret[SHA256_BYTES])
{
    struct buf first = BUF_INIT;
    const char *parts[] = {key->region, "s3", "aws4_request"};
    buf_addf(&first, "AWS4%s", key->secret);
    crypto_hmac_sha256(buf_str(&first), str_of(time, 8), ret);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        uint8_t next[SHA256_BYTES];
        crypto_hmac_sha256(str_of(ret, SHA256_BYTES), str_from(parts[i]), next);
        memcpy(ret, next, SHA256_BYTES);
    }
    crypto_wipe(first.p, first.n);
    buf_release(&first);
}

static void add_signature(const struct sigv4_key *key, const struct sigv4_request *req,
                          const char *query, struct buf *out)
{
    struct buf text = BUF_INIT;
    uint8_t digest[SHA256_BYTES];
    uint8_t secret[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    char time[SIGV4_TIME_CHARS];
    sigv4_time(req->time_ms, time);
    buf_addf(&text, "%s\n%s\n%s\n", req->method, req->path, query);
    add_headers(req, true, &text);
    buf_add_char(&text, '\n');
    add_headers(req, false, &text);
    buf_addf(&text, "\n%s", req->payload);
    crypto_sha256(text.p, text.n, digest);
    str_to_hex(digest, sizeof(digest), hex);
    buf_clear(&text);
    buf_addf(&text, ALGORITHM "\n%s\n", time);
    add_scope(key, time, "/", &text);
    buf_addf(&text, "\n%s", hex);
    signing_key(key, time, secret);
    crypto_hmac_sha256(str_of(secret, sizeof(secret)), buf_str(&text), digest);
    str_to_hex(digest, sizeof(digest), hex);
    buf_addz(out, hex);
    crypto_wipe(secret, sizeof(secret));
    buf_release(&text);
}

void sigv4_authorization(const struct sigv4_key *key, const struct sigv4_request *req,
                         struct buf *out)
{
    char time[SIGV4_TIME_CHARS];
    sigv4_time(req->time_ms, time);
    buf_addf(out, ALGORITHM " Credential=%s/", key->access);
    add_scope(key, time, "/", out);
    buf_addz(out, ",SignedHeaders=");
    add_headers(req, false, out);
    buf_addz(out, ",Signature=");
    add_signature(key, req, req->query, out);
}
