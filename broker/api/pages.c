/* Published pages: static files for everybody, under /pages/PROJECT/[PREFIX/]PATH. */
#include "common/base.h"

#include <unistd.h>

#include "broker/api/answer.h"
#include "broker/api/file.h"
#include "broker/api/handlers.h"
#include "broker/api/server.h"
#include "broker/core/query.h"

#define PROJECT_PARTS 32u /* of a path that may be the project's name */

/* What a request's path leads to. */
struct site {
    uint8_t digest[SHA256_BYTES];
    struct str path;  /* below what is published */
    bool needs_slash; /* the address of the site itself, without the slash at its end */
};

static bool take_row(const Pb__PagesRecord *row, struct site *ret)
{
    if (!row || row->digest.len != SHA256_BYTES) {
        return false;
    }
    memcpy(ret->digest, row->digest.data, SHA256_BYTES);
    return true;
}

/* A prefix goes before the site without one. `rest` starts behind the project's name. */
static bool find_in_project(struct tx *tx, uint64_t project_id, struct str rest, struct site *ret)
{
    struct str below = str_sub(rest, 1, rest.n);
    ptrdiff_t slash = str_chr(below, '/');
    struct str prefix = str_sub(below, 0, slash < 0 ? below.n : (size_t)slash);
    if (prefix.n > 0 && take_row(pages_get(tx, project_id, prefix), ret)) {
        ret->needs_slash = slash < 0;
        ret->path = str_sub(below, prefix.n + 1, below.n);
        return true;
    }
    if (take_row(pages_get(tx, project_id, STR("")), ret)) {
        ret->needs_slash = rest.n == 0;
        ret->path = below;
        return true;
    }
    return false;
}

/* Projects have names of several parts, and one may begin like another: the longest counts. */
static bool find_site(struct tx *tx, struct str path, struct site *ret)
{
    size_t ends[PROJECT_PARTS];
    size_t count = 0;
    for (size_t i = 1; i <= path.n && count < PROJECT_PARTS; i++) {
        if (i == path.n || path.p[i] == '/') {
            ends[count++] = i;
        }
    }
    while (count > 0) {
        size_t end = ends[--count];
        char *name = arena_strdup(tx_arena(tx), str_sub(path, 0, end));
        const Pb__ProjectRecord *project = project_by_name(tx, name);
        if (project && find_in_project(tx, project->id, str_sub(path, end, path.n), ret)) {
            return true;
        }
    }
    return false;
}

static int read_site(struct request *rq, struct site *ret)
{
    struct tx *tx;
    *ret = (struct site){.needs_slash = false};
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    bool found = find_site(tx, rq->args.rest, ret);
    r = tx_error(tx);
    tx_abort(tx);
    return r < 0 || found ? r : request_fail(rq, -E_NOT_FOUND, "nothing is published here");
}

/* The pages are foreign: no cookies, no storage, no frames of ours. Their own scripts may load what
 * is published, which is for everybody anyway. */
static void add_headers(struct MHD_Response *response, const struct site *site)
{
    if (!response) {
        return;
    }
    file_etag(response, site->digest);
    MHD_add_response_header(response, "Cache-Control", "no-cache");
    MHD_add_response_header(response, "Content-Security-Policy", "sandbox allow-scripts");
    MHD_add_response_header(response, "Access-Control-Allow-Origin", "*");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
}

static struct MHD_Response *empty_response(void)
{
    return MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
}

/* To the same address with a slash behind it, so that relative links work. */
static int redirect(struct request *rq, const struct site *site)
{
    struct buf to = BUF_INIT;
    struct str path = rq->args.rest;
    buf_addz(&to, "/pages/");
    for (size_t i = 0; i < path.n; i++) {
        unsigned char c = (unsigned char)path.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("/-._~", c);
        buf_addf(&to, plain ? "%c" : "%%%02X", c);
    }
    buf_add_char(&to, '/');
    struct MHD_Response *response = empty_response();
    add_headers(response, site);
    if (response) {
        MHD_add_response_header(response, "Location", buf_cstr(&to));
    }
    buf_release(&to);
    return answer_response(rq, MHD_HTTP_FOUND, response);
}

static bool is_known(struct request *rq, const struct site *site)
{
    char hex[2 * SHA256_BYTES + 1];
    const char *known = request_header(rq, "If-None-Match");
    str_to_hex(site->digest, SHA256_BYTES, hex);
    return known && strstr(known, hex);
}

static int answer_page(struct request *rq, const struct site *site, const struct page *page,
                       unsigned status)
{
    struct MHD_Response *response;
    unsigned as_asked;
    int r = file_response(rq, page->fd, page->size, site->digest, page->type, &as_asked, &response);
    if (r < 0) {
        return r;
    }
    add_headers(response, site);
    return answer_response(rq, status == MHD_HTTP_OK ? as_asked : status, response);
}

/* A site may have its own words for what is not there. */
static int answer_missing(struct request *rq, const struct site *site)
{
    struct page page;
    if (!request_header(rq, "Range") &&
        page_open(rq->api->config.pages, site->digest, STR("404.html"), &page, &rq->why) == 0 &&
        !page.is_folder) {
        return answer_page(rq, site, &page, MHD_HTTP_NOT_FOUND);
    }
    return request_fail(rq, -E_NOT_FOUND, "nothing is published at this path");
}

static int serve(struct request *rq)
{
    struct site site;
    struct page page;
    struct buf why = BUF_INIT;
    if (rq->result < 0) {
        return rq->result;
    }
    int r = read_site(rq, &site);
    if (r < 0) {
        return r;
    }
    if (site.needs_slash) {
        return redirect(rq, &site);
    }
    r = page_open(rq->api->config.pages, site.digest, site.path, &page, &why);
    if (r == -E_GONE) {
        request_fail(rq, r, "what was published cannot be unpacked: %s", buf_cstr(&why));
    }
    buf_release(&why);
    if (r < 0) {
        return r == -E_NOT_FOUND ? answer_missing(rq, &site) : r;
    }
    if (page.is_folder) {
        return redirect(rq, &site);
    }
    if (is_known(rq, &site)) {
        close(page.fd);
        struct MHD_Response *response = empty_response();
        add_headers(response, &site);
        return answer_response(rq, MHD_HTTP_NOT_MODIFIED, response);
    }
    return answer_page(rq, &site, &page, MHD_HTTP_OK);
}

/* On a work thread, the first time that somebody asks. */
static int unpack(struct request *rq)
{
    struct site site;
    struct buf why = BUF_INIT;
    int r = read_site(rq, &site);
    if (r == 0) {
        r = pages_unpack(rq->api->config.pages, site.digest, &why);
    }
    if (r == -E_NOT_FOUND && rq->why.n == 0) {
        request_fail(rq, r, "what was published is gone");
    } else if (r < 0 && why.n > 0) {
        request_fail(rq, r, "%s", buf_cstr(&why));
    }
    buf_release(&why);
    return r;
}

int get_page(struct request *rq)
{
    struct site site;
    int r = read_site(rq, &site);
    if (r < 0) {
        return r;
    }
    if (!site.needs_slash && !pages_ready(rq->api->config.pages, site.digest)) {
        return request_work(rq, unpack, serve);
    }
    return serve(rq);
}
