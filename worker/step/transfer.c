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

static bool worth_another_try(int r, int status)
{
    return r == -E_UNREACHABLE || r == -E_TIMEOUT ||
           (r == 0 && (status >= 500 || status == 429 || status == 408));
}

/* Half to whole of a doubling pause, so that many jobs do not come back at once. */
static void pause_before_retry(unsigned tries)
{
    uint64_t longest = MIN((uint64_t)RETRY_FIRST_MS << MIN(tries, 10u), (uint64_t)RETRY_MAX_MS);
    uint64_t random;
    os_random(&random, sizeof(random));
    os_sleep_ms(longest / 2 + random % (longest / 2));
}

/* Asks until there is an answer that another try would not change. */
static int ask(const struct http_request *req, int *ret_status, struct buf *out, struct buf *why)
{
    int status = 0;
    for (unsigned tries = 0;; tries++) {
        buf_clear(out);
        buf_clear(why);
        if (req->out_fd >= 0 &&
            (ftruncate(req->out_fd, 0) < 0 || lseek(req->out_fd, 0, SEEK_SET) < 0)) {
            return err_from_errno(errno);
        }
        int r = http_do(req, &status, out, why);
        if (!worth_another_try(r, status)) {
            *ret_status = status;
            return r;
        }
        if (tries == 0) {
            if (r == 0) {
                buf_addf(why, "HTTP status %d", status);
            }
            step_warn("the broker does not answer (%s); trying again until it does", buf_cstr(why));
        }
        pause_before_retry(tries);
    }
}

static int read_digest(int fd, uint8_t ret[SHA256_BYTES], uint64_t *ret_size)
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
    int r = ask(&req, &status, &out, &why);
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
    int r = read_digest(fd, got, &got_size);
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

int step_upload(struct step *s, int fd, uint64_t size, const uint8_t *digest)
{
    char hex[2 * SHA256_BYTES + 1];
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    int status = 0;
    struct http_request req = HTTP_REQUEST_INIT;
    req.method = "POST";
    req.url = arena_printf(&s->arena, "%s/api/v1/blobs", s->api_url);
    req.token = s->spec->token;
    req.content_type = "application/octet-stream";
    req.body_fd = fd;
    req.body_size = size;
    str_to_hex(digest, SHA256_BYTES, hex);
    int r = ask(&req, &status, &out, &why);
    if (r < 0) {
        step_error("cannot upload: %s", why.n > 0 ? buf_cstr(&why) : err_text(r));
    } else if (status != 201 && status != 200) {
        r = status_error(status);
        step_error("the broker refuses the upload: HTTP status %d %.200s", status, buf_cstr(&out));
    } else if (str_find(buf_str(&out), str_from(hex)) < 0) {
        r = -E_CORRUPT;
        step_error("the broker got something else than was sent");
    }
    buf_release(&out);
    buf_release(&why);
    return r;
}
