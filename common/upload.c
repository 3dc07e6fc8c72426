#include "common/base.h"

#include "common/upload.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/http.h"
#include "common/limits.h"

#define API_PATH "/api/v1"
#define GONE_MAX 3u /* uploads that the broker forgot, before it is given up */

struct going {
    const struct upload *u;
    struct buf location; /* empty: to be begun */
    uint64_t offset;
    unsigned tries;
    unsigned gone;
    struct buf *out;
    struct buf *why;
};

bool upload_may_go_on(int r, int status)
{
    return r == -E_UNREACHABLE || r == -E_TIMEOUT ||
           (r == 0 && (status >= 500 || status == 429 || status == 408));
}

/* True: try again. */
static bool wait_a_little(struct going *g, int r, int status)
{
    if (!upload_may_go_on(r, status)) {
        return false;
    }
    if (r == 0) {
        buf_clear(g->why);
        buf_addf(g->why, "HTTP status %d", status);
    }
    return g->u->again(g->u->ctx, g->tries++, buf_cstr(g->why));
}

static struct http_request request_of(const struct upload *u, const char *method, const char *url)
{
    struct http_request req = HTTP_REQUEST_INIT;
    req.method = method;
    req.url = url;
    req.token = u->token;
    return req;
}

/* Of the upload: the location is a path of the same server. */
static void add_location(const struct going *g, struct buf *url)
{
    struct str api = str_from(g->u->api);
    struct str server = str_ends(api, STR(API_PATH)) ? str_sub(api, 0, api.n - strlen(API_PATH))
                                                     : api;
    buf_add_str(url, server);
    buf_add_str(url, buf_str(&g->location));
}

static int ask(struct going *g, const struct http_request *req, int *ret_status)
{
    buf_clear(g->out);
    buf_clear(g->why);
    return http_do(req, ret_status, g->out, g->why);
}

static int send_whole(struct going *g, int *ret_status)
{
    char hex[2 * SHA256_BYTES + 1];
    struct buf url = BUF_INIT;
    buf_addf(&url, "%s/blobs", g->u->api);
    struct http_request req = request_of(g->u, "POST", buf_cstr(&url));
    req.content_type = g->u->content_type;
    req.body_fd = g->u->fd;
    req.body_size = g->u->size;
    int r;
    do {
        r = ask(g, &req, ret_status);
    } while (wait_a_little(g, r, *ret_status));
    str_to_hex(g->u->digest, SHA256_BYTES, hex);
    if (r == 0 && *ret_status == 201 && str_find(buf_str(g->out), str_from(hex)) < 0) {
        r = -E_CORRUPT;
    }
    buf_release(&url);
    return r;
}

/* Begins an upload, or asks how far it came. */
static int find_offset(struct going *g, int *ret_status, struct buf *etag)
{
    bool begun = g->location.n > 0;
    char length[24];
    const char *headers[] = {"Tus-Resumable", "1.0.0", "Upload-Length", length, NULL};
    struct buf url = BUF_INIT;
    struct buf value = BUF_INIT;
    if (begun) {
        add_location(g, &url);
    } else {
        buf_addf(&url, "%s/uploads", g->u->api);
    }
    struct http_request req = request_of(g->u, begun ? "HEAD" : "POST", buf_cstr(&url));
    snprintf(length, sizeof(length), "%" PRIu64, g->u->size);
    headers[2] = begun ? NULL : headers[2];
    req.headers = headers;
    req.etag = etag;
    req.wanted = begun ? "Upload-Offset" : "Location";
    req.wanted_value = &value;
    int r = ask(g, &req, ret_status);
    if (r == 0 && begun && *ret_status == 200) {
        uint64_t offset;
        r = str_to_u64(buf_str(&value), &offset) < 0 || offset > g->u->size ? -E_PROTOCOL : 0;
        g->tries = r == 0 && offset > g->offset ? 0 : g->tries;
        g->offset = r == 0 ? offset : g->offset;
    } else if (r == 0 && !begun && *ret_status == 201) {
        r = value.n > 0 && value.p[0] == '/' ? 0 : -E_PROTOCOL;
        buf_add_str(&g->location, r == 0 ? buf_str(&value) : STR_NULL);
        g->offset = 0;
    }
    buf_release(&url);
    buf_release(&value);
    return r;
}

static int send_rest(struct going *g, int *ret_status, struct buf *etag)
{
    char offset[24];
    const char *headers[] = {"Tus-Resumable", "1.0.0", "Upload-Offset", offset, NULL};
    struct buf url = BUF_INIT;
    add_location(g, &url);
    struct http_request req = request_of(g->u, "PATCH", buf_cstr(&url));
    snprintf(offset, sizeof(offset), "%" PRIu64, g->offset);
    req.headers = headers;
    req.content_type = "application/offset+octet-stream";
    req.body_fd = g->u->fd;
    req.body_offset = g->offset;
    req.body_size = g->u->size - g->offset;
    req.etag = etag;
    int r = ask(g, &req, ret_status);
    buf_release(&url);
    return r;
}

static int check_digest(struct going *g, const struct buf *etag)
{
    uint8_t got[SHA256_BYTES];
    if (str_from_hex(buf_str(etag), got, sizeof(got)) < 0 ||
        memcmp(got, g->u->digest, sizeof(got)) != 0) {
        return -E_CORRUPT;
    }
    return 0;
}

/* One round: asks where to go on, and sends what is left. True: it is over, one way or another. */
static bool go_on(struct going *g, bool ask_first, int *ret, int *ret_status)
{
    struct buf etag = BUF_INIT;
    bool over = false;
    int r = ask_first || g->location.n == 0 ? find_offset(g, ret_status, &etag) : 0;
    if (r == 0 && g->location.n > 0 && (*ret_status == 200 || *ret_status == 201)) {
        if (etag.n == 0) {
            r = send_rest(g, ret_status, &etag);
        }
        over = r == 0 && etag.n > 0 && (*ret_status == 200 || *ret_status == 204);
    }
    if (over) {
        r = check_digest(g, &etag);
        *ret_status = 201;
    } else if (r == 0 && (*ret_status == 404 || *ret_status == 410) && g->location.n > 0) {
        buf_clear(&g->location); /* the broker has forgotten it */
        over = ++g->gone > GONE_MAX;
    } else if (r == 0 && *ret_status == 409) {
        over = !g->u->again(g->u->ctx, g->tries++, "another connection had the upload");
    } else {
        over = !wait_a_little(g, r, *ret_status);
    }
    *ret = r;
    buf_release(&etag);
    return over;
}

int upload_file(const struct upload *u, int *ret_status, struct buf *out, struct buf *why)
{
    struct going g = {.u = u, .location = BUF_INIT, .out = out, .why = why};
    int r = 0;
    if (u->size <= LIMIT_WHOLE_UPLOAD) {
        r = send_whole(&g, ret_status);
    } else {
        for (bool first = true; !go_on(&g, !first, &r, ret_status); first = false) {
            /* there is more to send */
        }
    }
    if (r == -E_CORRUPT) {
        buf_clear(why);
        buf_addz(why, "the broker got something else than was sent");
    }
    buf_release(&g.location);
    return r;
}
