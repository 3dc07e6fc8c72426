#include "common/base.h"

#include "broker/blob/s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "common/sigv4.h"
#include "common/upload.h"

#define KEY_LIMIT    4096u
#define COMMAND_MS   60000u
#define TRIES        6u
#define PAUSE_MS     500u
#define LIST_BYTES   (4u * MIB) /* one page of a list: 1,000 objects */
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct s3 {
    char *server; /* http(s)://HOST[:PORT] */
    char *host;   /* as the header has it */
    char *bucket; /* "/BUCKET" */
    char *prefix; /* "PREFIX/" or "" */
    char *access;
    char *secret;
    char *region;
};

/* --- opening --- */

static int read_command(const char *command, struct buf *text)
{
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    struct os_spawn spawn = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .new_session = true};
    int status = 0;
    int r = os_run_within(&spawn, COMMAND_MS, NULL, KEY_LIMIT, text, &status);
    return r == 0 && status != 0 ? -E_FAILED : r;
}

static int read_source(const char *source, struct buf *text, struct buf *why)
{
    struct str rest = str_from(source);
    struct str kind = STR_NULL;
    struct stat st;
    str_split(&rest, ':', &kind);
    const char *value = rest.n > 0 ? rest.p : ""; /* the end of a C string */
    int r = -E_INVALID;
    if (str_eqz(kind, "file") && rest.n > 0) {
        r = os_read_file(value, KEY_LIMIT, text);
        if (r == 0 && stat(value, &st) == 0 && (st.st_mode & 077) != 0) {
            buf_addf(why, "%s: others may read the key of the S3 storage: chmod 600", value);
            return -E_FORBIDDEN;
        }
    } else if (str_eqz(kind, "env") && rest.n > 0) {
        char *found = getenv(value);
        r = found != NULL ? 0 : -E_NOT_FOUND;
        buf_addz(text, found != NULL ? found : "");
        if (found != NULL) {
            crypto_wipe(found, strlen(found)); /* /proc/PID/environ shows it, too */
            unsetenv(value);
        }
    } else if (str_eqz(kind, "command") && rest.n > 0) {
        r = read_command(value, text);
    }
    if (r < 0) {
        buf_addf(why, "the key of the S3 storage cannot be had from " STR_FMT ":: %s",
                 STR_ARG(kind), err_text(r));
    }
    return r;
}

static int read_key(struct s3 *s, const char *source, struct buf *why)
{
    struct buf text = BUF_INIT;
    struct str access;
    int r = read_source(source, &text, why);
    struct str rest = str_trim(buf_str(&text));
    const char between = str_chr(rest, '\n') >= 0 ? '\n' : ':';
    if (r == 0 && (!str_split(&rest, between, &access) || access.n == 0 || rest.n == 0)) {
        buf_addz(why, "the key of the S3 storage is to be ACCESS_KEY:SECRET_KEY, or two lines");
        r = -E_INVALID;
    }
    if (r == 0) {
        s->access = str_dup(access);
        s->secret = str_dup(rest);
    }
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    return r;
}

/* Letters, digits and what needs no encoding in a path. */
static bool is_plain(struct str text, const char *more)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              strchr(more, c) != NULL) ||
            c == '\0') {
            return false;
        }
    }
    return text.n > 0;
}

static int read_url(struct s3 *s, const char *url, struct buf *why)
{
    struct str all = str_from(url);
    bool tls = str_starts(all, STR("https://"));
    struct str rest = str_sub(all, tls ? 8 : 7, all.n);
    struct str host, bucket;
    bool good = (tls || str_starts(all, STR("http://"))) && str_split(&rest, '/', &host) &&
                is_plain(host, ".-:[]") && str_split(&rest, '/', &bucket) &&
                is_plain(bucket, ".-_");
    while (good && str_ends(rest, STR("/"))) {
        rest.n--;
    }
    if (!good || (rest.n > 0 && !is_plain(rest, ".-_/")) || str_find(rest, STR("..")) >= 0) {
        buf_addf(why,
                 "%s: the S3 storage is to be https://HOST/BUCKET or https://HOST/BUCKET/PREFIX",
                 url);
        return -E_INVALID;
    }
    struct str shown = host; /* a port that goes without saying is not in the header */
    if (str_ends(host, tls ? STR(":443") : STR(":80"))) {
        shown.n -= tls ? 4 : 3;
    }
    struct buf text = BUF_INIT;
    buf_addf(&text, "%s" STR_FMT, tls ? "https://" : "http://", STR_ARG(host));
    s->server = str_dup(buf_str(&text));
    s->host = str_dup(shown);
    buf_clear(&text);
    buf_addf(&text, "/" STR_FMT, STR_ARG(bucket));
    s->bucket = str_dup(buf_str(&text));
    buf_clear(&text);
    buf_addf(&text, STR_FMT "%s", STR_ARG(rest), rest.n > 0 ? "/" : "");
    s->prefix = xstrdup(buf_cstr(&text));
    buf_release(&text);
    return 0;
}

int s3_open(const char *url, const char *region, const char *source, struct s3 **ret,
            struct buf *why)
{
    struct s3 *s = xcalloc(1, sizeof(*s));
    int r = read_url(s, url, why);
    if (r == 0 && !is_plain(str_from(region), "-_")) {
        buf_addf(why, "`%s` is no region of an S3 storage", region);
        r = -E_INVALID;
    }
    if (r == 0) {
        s->region = xstrdup(region);
        r = read_key(s, source, why);
    }
    if (r < 0) {
        s3_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

void s3_close(struct s3 *s)
{
    if (s == NULL) {
        return;
    }
    if (s->secret != NULL) {
        crypto_wipe(s->secret, strlen(s->secret));
    }
    free(s->server);
    free(s->host);
    free(s->bucket);
    free(s->prefix);
    free(s->access);
    free(s->secret);
    free(s->region);
    free(s);
}

/* --- one request --- */

struct ask {
    const char *method;
    const char *path;  /* encoded */
    const char *query; /* encoded, sorted */
    const char *payload;
    int body_fd; /* -1: none */
    uint64_t size;
    int out_fd;
    const char *wanted;
    struct buf *value;
    unsigned tries; /* 0: TRIES */
};

static int try_once(struct s3 *s, const struct ask *a, int *ret_status, struct buf *out,
                    struct buf *why)
{
    char time[SIGV4_TIME_CHARS];
    struct sigv4_key key = {.access = s->access, .secret = s->secret, .region = s->region};
    struct sigv4_request sr = {.method = a->method,
                               .host = s->host,
                               .path = a->path,
                               .query = a->query,
                               .payload = a->payload,
                               .time_ms = os_realtime_ms()};
    sigv4_time(sr.time_ms, time);
    const char *signed_headers[] = {"x-amz-content-sha256", a->payload, "x-amz-date", time, NULL};
    sr.headers = signed_headers;
    struct buf url = BUF_INIT;
    struct buf authorization = BUF_INIT;
    buf_addf(&url, "%s%s%s%s", s->server, a->path, a->query[0] != '\0' ? "?" : "", a->query);
    sigv4_authorization(&key, &sr, &authorization);
    const char *headers[] = {
        "x-amz-content-sha256",   a->payload, "x-amz-date", time, "Authorization",
        buf_cstr(&authorization), NULL};
    struct http_request req = HTTP_REQUEST_INIT;
    req.method = a->method;
    req.url = buf_cstr(&url);
    req.headers = headers;
    req.content_type = "application/octet-stream";
    req.body_fd = a->body_fd;
    req.body_size = a->size;
    req.out_fd = a->out_fd;
    req.out_limit = a->out_fd >= 0 ? LIMIT_BLOB_BYTES : LIST_BYTES;
    req.wanted = a->wanted;
    req.wanted_value = a->value;
    int r = http_do(&req, ret_status, out, why);
    buf_release(&url);
    buf_release(&authorization);
    return r;
}

/* What stands between <Code> and </Code>, for people. */
static void refused(int status, const struct buf *out, struct buf *why)
{
    struct str text = buf_str(out);
    ptrdiff_t from = str_find(text, STR("<Code>"));
    struct str code = from < 0 ? STR("") : str_sub(text, (size_t)from + 6, 64);
    ptrdiff_t end = str_chr(code, '<');
    buf_clear(why);
    buf_addf(why, "the S3 storage answers with HTTP status %d " STR_FMT, status,
             STR_ARG(str_sub(code, 0, end < 0 ? 0 : (size_t)end)));
}

static int ask(struct s3 *s, const struct ask *a, struct buf *out, struct buf *why)
{
    int status = 0;
    int r = -E_UNREACHABLE;
    const unsigned most = a->tries > 0 ? a->tries : TRIES;
    for (unsigned tries = 0; tries < most; tries++) {
        if (tries > 0) {
            os_sleep_ms((uint64_t)PAUSE_MS << tries);
        }
        if (a->out_fd >= 0 && (ftruncate(a->out_fd, 0) < 0 || lseek(a->out_fd, 0, SEEK_SET) < 0)) {
            return -E_IO;
        }
        buf_clear(out);
        buf_clear(why);
        r = try_once(s, a, &status, out, why);
        if (!upload_may_go_on(r, status)) {
            break;
        }
    }
    if (r == 0 && (status < 200 || status > 299)) {
        refused(status, out, why);
        r = status == 404                    ? -E_NOT_FOUND
            : status == 401 || status == 403 ? -E_FORBIDDEN
            : status >= 500 || status == 429 ? -E_UNREACHABLE
                                             : -E_FAILED;
    }
    return r;
}

static char *object_path(const struct s3 *s, const uint8_t digest[SHA256_BYTES])
{
    char hex[2 * SHA256_BYTES + 1];
    struct buf path = BUF_INIT;
    str_to_hex(digest, SHA256_BYTES, hex);
    buf_addf(&path, "%s/%s%.2s/%s", s->bucket, s->prefix, hex, hex);
    buf_cstr(&path);
    return buf_take(&path);
}

static int ask_object(struct s3 *s, const uint8_t digest[SHA256_BYTES], struct ask *a,
                      struct buf *why)
{
    struct buf out = BUF_INIT;
    char *path = object_path(s, digest);
    a->path = path;
    a->query = "";
    a->payload = a->payload != NULL ? a->payload : EMPTY_SHA256;
    int r = ask(s, a, &out, why);
    buf_release(&out);
    free(path);
    return r;
}

int s3_size(struct s3 *s, const uint8_t digest[SHA256_BYTES], uint64_t *ret_size, struct buf *why)
{
    struct buf length = BUF_INIT;
    struct ask a = {.method = "HEAD",
                    .body_fd = -1,
                    .out_fd = -1,
                    .wanted = "Content-Length",
                    .value = &length};
    int r = ask_object(s, digest, &a, why);
    if (r == 0 && str_to_u64(buf_str(&length), ret_size) < 0) {
        buf_addz(why, "the S3 storage does not say how large an object is");
        r = -E_PROTOCOL;
    }
    buf_release(&length);
    return r;
}

int s3_put(struct s3 *s, const uint8_t digest[SHA256_BYTES], int fd, uint64_t size, struct buf *why)
{
    char hex[2 * SHA256_BYTES + 1];
    uint64_t there = 0;
    str_to_hex(digest, SHA256_BYTES, hex);
    struct ask a = {.method = "PUT", .payload = hex, .body_fd = fd, .size = size, .out_fd = -1};
    int r = ask_object(s, digest, &a, why);
    if (r == 0) {
        r = s3_size(s, digest, &there, why);
    }
    if (r == 0 && there != size) {
        buf_addz(why, "the S3 storage has another number of bytes than were sent");
        r = -E_CORRUPT;
    }
    return r;
}

int s3_get(struct s3 *s, const uint8_t digest[SHA256_BYTES], int fd, struct buf *why)
{
    struct ask a = {.method = "GET", .body_fd = -1, .out_fd = fd};
    return ask_object(s, digest, &a, why);
}

int s3_delete(struct s3 *s, const uint8_t digest[SHA256_BYTES], struct buf *why)
{
    struct ask a = {.method = "DELETE", .body_fd = -1, .out_fd = -1};
    int r = ask_object(s, digest, &a, why);
    return r == -E_NOT_FOUND ? 0 : r;
}

/* --- the list: XML of which three elements count --- */

/* What stands between <NAME> and </NAME> from the beginning of *rest, which moves behind it.
 * False: there is none. */
static bool element(struct str *rest, const char *name, struct str *ret)
{
    char tag[40];
    int n = snprintf(tag, sizeof(tag), "<%s>", name);
    ptrdiff_t from = str_find(*rest, str_of(tag, (size_t)n));
    if (from < 0) {
        return false;
    }
    struct str value = str_sub(*rest, (size_t)(from + n), rest->n);
    ptrdiff_t end = str_chr(value, '<');
    if (end < 0) {
        return false;
    }
    *ret = str_sub(value, 0, (size_t)end);
    *rest = str_sub(value, (size_t)end, value.n);
    return true;
}

static bool take_object(struct str entry, s3_object_fn fn, void *ctx)
{
    uint8_t digest[SHA256_BYTES];
    uint64_t modified_ms, size;
    struct str key, modified, length;
    struct str in = entry;
    bool good = element(&in, "Key", &key) && key.n > 2 * SHA256_BYTES &&
                str_from_hex(str_sub(key, key.n - 2 * SHA256_BYTES, key.n), digest,
                             sizeof(digest)) == 0;
    in = entry;
    good = good && element(&in, "LastModified", &modified) &&
           str_to_time_ms(modified, &modified_ms) == 0;
    in = entry;
    good = good && element(&in, "Size", &length) && str_to_u64(length, &size) == 0;
    return !good || fn(ctx, digest, modified_ms, size);
}

/* False: enough. */
static bool take_page(struct str rest, s3_object_fn fn, void *ctx)
{
    ptrdiff_t at;
    while ((at = str_find(rest, STR("<Contents>"))) >= 0) {
        rest = str_sub(rest, (size_t)at, rest.n);
        ptrdiff_t end = str_find(rest, STR("</Contents>"));
        struct str entry = str_sub(rest, 0, end < 0 ? rest.n : (size_t)end);
        if (!take_object(entry, fn, ctx)) {
            return false;
        }
        rest = str_sub(rest, MAX(entry.n, (size_t)1), rest.n);
    }
    return true;
}

int s3_check(struct s3 *s, struct buf *why)
{
    struct buf out = BUF_INIT;
    struct buf query = BUF_INIT;
    struct buf reason = BUF_INIT;
    buf_addz(&query, "list-type=2&max-keys=1&prefix=");
    sigv4_encode(str_from(s->prefix), &query);
    struct ask a = {.method = "GET",
                    .path = s->bucket,
                    .query = buf_cstr(&query),
                    .payload = EMPTY_SHA256,
                    .body_fd = -1,
                    .out_fd = -1,
                    .tries = 1};
    int r = ask(s, &a, &out, &reason);
    if (r < 0) {
        buf_addf(why, "%s%s: %s", s->server, s->bucket,
                 reason.n > 0 ? buf_cstr(&reason) : err_text(r));
    }
    buf_release(&reason);
    buf_release(&query);
    buf_release(&out);
    return r;
}

int s3_list(struct s3 *s, s3_object_fn fn, void *ctx, struct buf *why)
{
    struct buf out = BUF_INIT;
    struct buf query = BUF_INIT;
    struct buf token = BUF_INIT;
    char *path = xstrdup(s->bucket);
    int r = 0;
    bool more = true;
    while (r == 0 && more) {
        struct str next;
        buf_clear(&query);
        if (token.n > 0) {
            buf_addz(&query, "continuation-token=");
            sigv4_encode(buf_str(&token), &query);
            buf_add_char(&query, '&');
        }
        buf_addz(&query, "list-type=2&prefix=");
        sigv4_encode(str_from(s->prefix), &query);
        struct ask a = {.method = "GET",
                        .path = path,
                        .query = buf_cstr(&query),
                        .payload = EMPTY_SHA256,
                        .body_fd = -1,
                        .out_fd = -1};
        r = ask(s, &a, &out, why);
        struct str rest = buf_str(&out);
        more = r == 0 && take_page(rest, fn, ctx) && element(&rest, "NextContinuationToken", &next);
        if (more) {
            buf_clear(&token);
            buf_add_str(&token, next);
        }
    }
    free(path);
    buf_release(&token);
    buf_release(&query);
    buf_release(&out);
    return r;
}
