#include "common/base.h"

#include "worker/step/step.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "common/upload.h"

#define RETRY_FIRST_MS 500u
#define RETRY_MAX_MS   30000u
#define READ_BYTES     ((size_t)64 * KIB)

int step_temporary_file(struct step *s, int *ret_fd)
{
    int fd = open(s->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        /* Not every file system knows O_TMPFILE. */
        char *path = arena_printf(&s->arena, "%s/transfer.XXXXXX", s->folder);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0) {
            unlink(path);
        }
    }
    if (fd < 0) {
        step_error("cannot make a file in %s: %s", s->folder, strerror(errno));
        return err_from_errno(errno);
    }
    *ret_fd = fd;
    return 0;
}

/* Half to whole of a doubling pause, so that many jobs do not come back at once. */
static void pause_before_retry(unsigned tries)
{
    uint64_t longest = MIN((uint64_t)RETRY_FIRST_MS << MIN(tries, 10u), (uint64_t)RETRY_MAX_MS);
    uint64_t random;
    os_random(&random, sizeof(random));
    os_sleep_ms(longest / 2 + random % (longest / 2));
}

static uint64_t end_of(uint64_t patience_ms)
{
    return patience_ms == STEP_FOREVER ? UINT64_MAX : os_monotonic_ms() + patience_ms;
}

static void say_away(unsigned tries, const char *why)
{
    if (tries == 0) {
        step_warn("the broker does not answer (%s); trying again until it does", why);
    }
    pause_before_retry(tries);
}

/* How much of the answer is there already. */
static off_t received(const struct http_request *req)
{
    return req->out_fd >= 0 ? lseek(req->out_fd, 0, SEEK_END) : 0;
}

/* Asks until there is an answer that another try would not change, or patience ends. What was
 * received of a file that broke off stays: the next try goes on behind it. */
static int ask(struct http_request *req, const char *etag, uint64_t patience_ms, int *ret_status,
               struct buf *out, struct buf *why)
{
    uint64_t end_ms = end_of(patience_ms);
    int status = 0;
    for (unsigned tries = 0;; tries++) {
        off_t before = received(req);
        buf_clear(out);
        buf_clear(why);
        int r = before < 0 ? err_from_errno(errno) : http_do(req, &status, out, why);
        if (r == 0 && status == 416 && req->resume != NULL) {
            r = ftruncate(req->out_fd, 0) < 0 ? err_from_errno(errno) : -E_UNREACHABLE;
        }
        if (!upload_may_go_on(r, status) || os_monotonic_ms() >= end_ms) {
            *ret_status = status == 206 ? 200 : status;
            return r;
        }
        if (r == 0) {
            buf_addf(why, "HTTP status %d", status);
        }
        req->resume = etag;
        tries = received(req) > before ? 0 : tries;
        say_away(tries, buf_cstr(why));
    }
}

int step_file_digest(int fd, uint8_t ret[SHA256_BYTES], uint64_t *ret_size)
{
    char *bytes = xmalloc(READ_BYTES);
    struct sha256 *hash = sha256_new();
    uint64_t size = 0;
    ssize_t n;
    while ((n = pread(fd, bytes, READ_BYTES, (off_t)size)) > 0) {
        sha256_add(hash, bytes, (size_t)n);
        size += (uint64_t)n;
    }
    int r = n < 0 ? err_from_errno(errno) : 0;
    if (r == 0) {
        sha256_end(hash, ret);
        *ret_size = size;
    }
    sha256_free(hash);
    free(bytes);
    return r;
}

static int status_error(int status)
{
    return status == 404 || status == 410   ? -E_NOT_FOUND
           : status == 401 || status == 403 ? -E_FORBIDDEN
           : status == 409                  ? -E_CONFLICT
           : status >= 500                  ? -E_UNREACHABLE
                                            : -E_FAILED;
}

static int get(struct step *s, const char *hex, uint64_t size, int fd)
{
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    int status = 0;
    struct http_request req = HTTP_REQUEST_INIT;
    req.url = arena_printf(&s->arena, "%s/api/v1/blobs/%s", s->api_url, hex);
    req.token = s->spec->token;
    req.out_fd = fd;
    req.out_limit = size;
    int r = ask(&req, hex, STEP_FOREVER, &status, &out, &why);
    if (r < 0) {
        step_error("cannot get %.12s from the broker: %s", hex,
                   why.n > 0 ? buf_cstr(&why) : err_text(r));
    } else if (status != 200) {
        r = status_error(status);
        step_error("cannot get %.12s from the broker: %s (HTTP status %d)", hex, err_text(r),
                   status);
    }
    buf_release(&out);
    buf_release(&why);
    return r;
}

static int verify(int fd, const uint8_t *digest, uint64_t size)
{
    uint8_t got[SHA256_BYTES];
    uint64_t got_size = 0;
    int r = step_file_digest(fd, got, &got_size);
    if (r < 0) {
        return r;
    }
    return got_size == size && memcmp(got, digest, sizeof(got)) == 0 ? 0 : -E_CORRUPT;
}

int step_download(struct step *s, ProtobufCBinaryData digest, uint64_t size, int *ret_fd)
{
    char hex[2 * SHA256_BYTES + 1];
    int fd;
    if (digest.len != SHA256_BYTES || size > LIMIT_BLOB_BYTES) {
        step_error("the broker names something that cannot be a blob");
        return -E_PROTOCOL;
    }
    str_to_hex(digest.data, digest.len, hex);
    int r = step_temporary_file(s, &fd);
    if (r < 0) {
        return r;
    }
    r = get(s, hex, size, fd);
    if (r == 0) {
        r = verify(fd, digest.data, size);
        if (r < 0) {
            step_error("what the broker sent for %.12s is not that: %s", hex, err_text(r));
        }
    }
    if (r == 0 && lseek(fd, 0, SEEK_SET) < 0) {
        r = err_from_errno(errno);
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* The one line for people of an answer that is not what was hoped for. */
static int refused(int r, int status, struct buf *out, struct buf *why)
{
    if (r < 0) {
        if (why->n == 0) {
            buf_addz(why, err_text(r));
        }
        return r;
    }
    struct str text = str_trim(str_sub(buf_str(out), 0, 200));
    buf_clear(why);
    buf_addf(why, "the broker answers with HTTP status %d%s" STR_FMT, status,
             text.n > 0 ? ": " : "", STR_ARG(text));
    return status_error(status);
}

struct patience {
    uint64_t end_ms;
};

static bool again(void *ctx, unsigned tries, const char *why)
{
    const struct patience *p = ctx;
    if (os_monotonic_ms() >= p->end_ms) {
        return false;
    }
    say_away(tries, why);
    return true;
}

int step_upload(struct step *s, int fd, uint64_t size, const uint8_t *digest, uint64_t patience_ms,
                struct buf *why)
{
    struct buf out = BUF_INIT;
    int status = 0;
    struct patience patience = {.end_ms = end_of(patience_ms)};
    struct upload u = {
        .api = arena_printf(&s->arena, "%s/api/v1", s->api_url),
        .token = s->spec->token,
        .content_type = "application/octet-stream",
        .fd = fd,
        .size = size,
        .digest = digest,
        .again = again,
        .ctx = &patience,
    };
    int r = upload_file(&u, &status, &out, why);
    if (r < 0 || (status != 201 && status != 200)) {
        r = refused(r, status, &out, why);
    }
    buf_release(&out);
    return r;
}

/* The address of this job's view of one key. */
static const char *cache_url(struct step *s, struct str key)
{
    static const char plain[] = "-._~/";
    struct buf url = BUF_INIT;
    buf_addf(&url, "%s/api/v1/jobs/%" PRIu64 "/cache", s->api_url,
             s->spec->key != NULL ? s->spec->key->job_id : 0);
    for (size_t i = 0; i < key.n; i++) {
        char c = key.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        buf_addz(&url, i == 0 ? "?key=" : "");
        if (letter || strchr(plain, c) != NULL) {
            buf_add_char(&url, c);
        } else {
            buf_addf(&url, "%%%02X", (unsigned)(uint8_t)c);
        }
    }
    const char *text = arena_strdup(&s->arena, buf_str(&url));
    buf_release(&url);
    return text;
}

static int cache_ask(struct http_request *req, struct step *s, const char *etag_wanted,
                     uint64_t patience_ms, uint8_t ret_digest[SHA256_BYTES], struct buf *why)
{
    struct buf out = BUF_INIT;
    struct buf etag = BUF_INIT;
    int status = 0;
    req->token = s->spec->token;
    req->etag = &etag;
    int r = ask(req, etag_wanted, patience_ms, &status, &out, why);
    if (r < 0 || status != 200) {
        r = refused(r, status, &out, why);
    } else if (str_from_hex(buf_str(&etag), ret_digest, SHA256_BYTES) < 0) {
        r = -E_PROTOCOL;
        buf_addz(why, "the broker does not say what it has");
    }
    buf_release(&out);
    buf_release(&etag);
    return r;
}

int step_cache_look(struct step *s, struct str key, uint64_t patience_ms,
                    uint8_t ret_digest[SHA256_BYTES], struct buf *why)
{
    struct http_request req = HTTP_REQUEST_INIT;
    req.method = "HEAD";
    req.url = cache_url(s, key);
    return cache_ask(&req, s, NULL, patience_ms, ret_digest, why);
}

int step_cache_get(struct step *s, struct str key, int fd, uint64_t patience_ms,
                   uint8_t ret_digest[SHA256_BYTES], uint64_t *ret_size, struct buf *why)
{
    uint8_t said[SHA256_BYTES];
    char looked[2 * SHA256_BYTES + 1];
    struct http_request req = HTTP_REQUEST_INIT;
    str_to_hex(ret_digest, SHA256_BYTES, looked);
    req.url = cache_url(s, key);
    req.out_fd = fd;
    req.out_limit = LIMIT_BLOB_BYTES;
    int r = cache_ask(&req, s, looked, patience_ms, said, why);
    if (r == 0) {
        r = step_file_digest(fd, ret_digest, ret_size);
    }
    if (r == 0 && memcmp(said, ret_digest, sizeof(said)) != 0) {
        r = -E_CORRUPT;
        buf_addz(why, "the broker sent something else than it said");
    }
    return r;
}

/* Text without control characters as a JSON string. */
static void add_json(struct buf *out, struct str text)
{
    buf_add_char(out, '"');
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '"' || text.p[i] == '\\') {
            buf_add_char(out, '\\');
        }
        buf_add_char(out, text.p[i]);
    }
    buf_add_char(out, '"');
}

int step_cache_set(struct step *s, struct str key, const uint8_t *digest, uint64_t size,
                   uint64_t patience_ms, struct buf *why)
{
    char hex[2 * SHA256_BYTES + 1];
    struct buf body = BUF_INIT;
    struct buf out = BUF_INIT;
    int status = 0;
    struct http_request req = HTTP_REQUEST_INIT;
    str_to_hex(digest, SHA256_BYTES, hex);
    buf_addz(&body, "{\"key\":");
    add_json(&body, key);
    buf_addf(&body, ",\"digest\":\"%s\",\"size\":%" PRIu64 "}", hex, size);
    req.method = "PUT";
    req.url = cache_url(s, STR_NULL);
    req.token = s->spec->token;
    req.body = buf_str(&body);
    int r = ask(&req, NULL, patience_ms, &status, &out, why);
    if (r < 0 || status < 200 || status > 299) {
        r = refused(r, status, &out, why);
    }
    buf_release(&body);
    buf_release(&out);
    return r;
}
