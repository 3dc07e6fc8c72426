#include "common/base.h"

#include "common/address.h"
#include "common/cert.h"
#include "common/http.h"
#include "common/http_transfer.h"
#include "common/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define HTTPS                        "https://"
#define LOOK_MS                      200 /* how often `stop` and the idle time are looked at */

#define set_option(t, option, value) check(curl_easy_setopt((t)->easy, option, value) == CURLE_OK)

/* What http_trust said; heap. */
static char *trusted_url;
static char *trusted_path;
static bool trusted_broker;

void http_trust(const char *url, const char *authority_path)
{
    free(trusted_url);
    free(trusted_path);
    trusted_url = xstrdup(url);
    trusted_path = xstrdup(authority_path);
    trusted_broker = false;
}

void http_trust_broker(const char *url, const char *authority_path)
{
    http_trust(url, authority_path);
    trusted_broker = str_starts(str_from(url), STR(HTTPS));
}

static bool is_at(const char *url, const char *server)
{
    size_t n = strlen(server);

    return strncmp(url, server, n) == 0 && (url[n] == '/' || url[n] == '\0');
}

/* The name goes into the URL, as it is what libcurl asks for by SNI and checks; the connection and
 * the head of the request are those of the real host. */
static void ask_for_broker(struct transfer *t, const char *url)
{
    struct str rest = str_sub(str_from(url), strlen(HTTPS), strlen(url));
    ptrdiff_t slash = str_find(rest, STR("/"));
    struct str host = str_sub(rest, 0, slash < 0 ? rest.n : (size_t)slash);
    struct str path = str_sub(rest, host.n, rest.n);
    size_t n = host.n;
    struct buf text = BUF_INIT;

    while (n > 0 && host.p[n - 1] != ':' && host.p[n - 1] != ']') {
        n--;
    }
    struct str port = n > 0 && host.p[n - 1] == ':' ? str_sub(host, n - 1, host.n) : STR("");
    buf_addf(&text, HTTPS CERT_BROKER_NAME STR_FMT STR_FMT, STR_ARG(port), STR_ARG(path));
    set_option(t, CURLOPT_URL, buf_cstr(&text));
    buf_clear(&text);
    buf_addf(&text, "::" STR_FMT "%s", STR_ARG(host), port.n == 0 ? ":" : "");
    t->connect_to = curl_slist_append(NULL, buf_cstr(&text));
    check(t->connect_to != NULL);
    set_option(t, CURLOPT_CONNECT_TO, t->connect_to);
    buf_clear(&text);
    buf_add_str(&text, host);
    t->failed = transfer_header(t, "Host", buf_cstr(&text)); /* it ends at once, then */
    buf_release(&text);
}

static void set_trust(struct transfer *t, const char *url)
{
    if (trusted_url != NULL && is_at(url, trusted_url)) {
        set_option(t, CURLOPT_CAINFO, trusted_path);
        set_option(t, CURLOPT_CAPATH, NULL);
        set_option(t, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
        if (trusted_broker) {
            ask_for_broker(t, url);
        }
    }
}

void transfer_any_server(struct transfer *t)
{
    set_option(t, CURLOPT_SSL_VERIFYPEER, 0L);
    set_option(t, CURLOPT_SSL_VERIFYHOST, 0L);
}

int transfer_init(struct transfer *t, const char *url, const char *token)
{
    *t = (struct transfer){.easy = curl_easy_init()};
    check(t->easy != NULL);
    set_option(t, CURLOPT_NOSIGNAL, 1L);
    set_option(t, CURLOPT_ERRORBUFFER, t->error);
    set_option(t, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    set_option(t, CURLOPT_PROXY, "");
    set_option(t, CURLOPT_FOLLOWLOCATION, 0L);
    set_option(t, CURLOPT_PROTOCOLS_STR, "http,https");
    set_option(t, CURLOPT_TCP_KEEPALIVE, 1L);
    set_option(t, CURLOPT_USERAGENT, "davit/" DAVIT_VERSION);
    set_option(t, CURLOPT_URL, url);
    set_trust(t, url);
    transfer_touch(t);
    if (token == NULL) {
        return 0;
    }
    struct buf bearer = BUF_INIT;
    buf_addf(&bearer, "Bearer %s", token);
    int r = transfer_header(t, "Authorization", bearer.p);
    buf_release(&bearer);
    return r;
}

void transfer_release(struct transfer *t)
{
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    curl_slist_free_all(t->connect_to);
}

int transfer_header(struct transfer *t, const char *name, const char *value)
{
    struct buf line = BUF_INIT;
    for (const char *at = value; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            return -E_INVALID;
        }
    }
    buf_addf(&line, "%s: %s", name, value);
    t->headers = curl_slist_append(t->headers, line.p);
    check(t->headers != NULL);
    buf_release(&line);
    return 0;
}

void transfer_redirects(struct transfer *t, const char *url, uint32_t count)
{
    bool secure = str_starts(str_from(url), STR("https://"));
    set_option(t, CURLOPT_FOLLOWLOCATION, 1L);
    set_option(t, CURLOPT_MAXREDIRS, (long)count);
    set_option(t, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
}

/* libcurl's CURLOPT_OPENSOCKETFUNCTION: the address is the one that it is about to connect to, so
 * no name can come to another one afterwards. */
static curl_socket_t open_public(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *t = ctx;
    (void)purpose;
    if (!address_is_public(&address->addr)) {
        t->failed = -E_FORBIDDEN;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

void transfer_public_only(struct transfer *t)
{
    set_option(t, CURLOPT_OPENSOCKETFUNCTION, open_public);
    set_option(t, CURLOPT_OPENSOCKETDATA, t);
}

void transfer_touch(struct transfer *t)
{
    t->last_ms = os_monotonic_ms();
}

int transfer_status(const struct transfer *t)
{
    long status = 0;
    check(curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK);
    return (int)status;
}

static int result_of(CURLcode code)
{
    switch ((int)code) {
    case CURLE_OK:
        return 0;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return -E_INVALID;
    case CURLE_OPERATION_TIMEDOUT:
        return -E_TIMEOUT;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_READ_ERROR:
    case CURLE_WRITE_ERROR:
        return -E_IO;
    case CURLE_WEIRD_SERVER_REPLY:
        return -E_PROTOCOL;
    default:
        return -E_UNREACHABLE;
    }
}

int transfer_result(struct transfer *t, CURLcode code, struct buf *why)
{
    /* A server may answer, 413 say, and close before it has read the whole body. */
    bool answered = code == CURLE_SEND_ERROR && transfer_status(t) >= 200;
    if (t->finished || answered) {
        return 0;
    }
    int r = t->failed < 0 ? t->failed : result_of(code);
    if (r == -E_TOO_BIG) {
        buf_addz(why, "the answer is too big");
    } else if (r == -E_FORBIDDEN) {
        buf_addz(why, "the host has no public address, and others are not allowed");
    } else if (r < 0) {
        buf_addz(why, t->error[0] != '\0' ? t->error : curl_easy_strerror(code));
    }
    return r;
}

/* True when the loop must end before libcurl says so. */
static bool must_end(struct transfer *t)
{
    if (t->stop != NULL && *t->stop) {
        t->finished = true;
    } else if (t->cancel != NULL && atomic_load(t->cancel)) {
        snprintf(t->error, sizeof(t->error), "this program ends");
        t->failed = -E_SHUTDOWN;
    } else if (t->idle_ms > 0 && os_monotonic_ms() - t->last_ms > t->idle_ms) {
        snprintf(t->error, sizeof(t->error), "no answer for %" PRIu64 " ms", t->idle_ms);
        t->failed = -E_TIMEOUT;
    } else if (t->end_ms > 0 && os_monotonic_ms() > t->end_ms) {
        snprintf(t->error, sizeof(t->error), "it took too long");
        t->failed = -E_TIMEOUT;
    }
    return t->finished || t->failed < 0;
}

/* How long to wait before the next look: not past the end. */
static int look_ms(const struct transfer *t)
{
    uint64_t now_ms = os_monotonic_ms();
    uint64_t left_ms = t->end_ms > now_ms ? t->end_ms - now_ms : 0;
    return t->end_ms > 0 && left_ms < LOOK_MS ? (int)left_ms + 1 : LOOK_MS;
}

int transfer_run(struct transfer *t, struct buf *why)
{
    CURLM *multi = curl_multi_init();
    CURLcode code = CURLE_OK;
    int running = 1;
    check(multi != NULL);
    set_option(t, CURLOPT_HTTPHEADER, t->headers);
    check(curl_multi_add_handle(multi, t->easy) == CURLM_OK);
    while (running > 0 && !must_end(t)) {
        int left;
        check(curl_multi_perform(multi, &running) == CURLM_OK);
        CURLMsg *message = curl_multi_info_read(multi, &left);
        if (message != NULL && message->msg == CURLMSG_DONE) {
            code = message->data.result;
        } else if (running > 0) {
            check(curl_multi_poll(multi, NULL, 0, look_ms(t), NULL) == CURLM_OK);
        }
    }
    curl_multi_remove_handle(multi, t->easy);
    curl_multi_cleanup(multi);
    return transfer_result(t, code, why);
}
