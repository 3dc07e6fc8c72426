#include "common/base.h"

#include "common/tls_engine.h"

#include <nng/supplemental/tls/engine.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>

/* nng makes the objects of these types for us, zeroed, and gives them back by the pointer. */
struct nng_tls_engine_config {
    struct tls *tls; /* NULL: one that nng made for itself, and that nobody filled in */
};

struct nng_tls_engine_conn {
    SSL *ssl; /* NULL: it never began */
    void *below;
    bool failed;
    char why[sizeof(((struct tls_peer *)NULL)->why)];
};

/* nng's functions take no context of ours: what shall be found on the other side of a call on the
 * same thread stands here. */
static _Thread_local struct tls *config_tls;
static _Thread_local struct tls_peer *wanted_peer;

static BIO_METHOD *below_method;

/* --- records over nng's TCP stream --- */

static int below_write(BIO *bio, const char *p, int n)
{
    size_t count = (size_t)n;
    int r = nng_tls_engine_send(BIO_get_data(bio), (const uint8_t *)p, &count);

    BIO_clear_retry_flags(bio);
    if (r == NNG_EAGAIN) {
        BIO_set_retry_write(bio);
    }
    return r == 0 ? (int)count : -1;
}

static int below_read(BIO *bio, char *p, int n)
{
    size_t count = (size_t)n;
    int r = nng_tls_engine_recv(BIO_get_data(bio), (uint8_t *)p, &count);

    BIO_clear_retry_flags(bio);
    if (r == NNG_EAGAIN) {
        BIO_set_retry_read(bio);
    }
    return r == 0 ? (int)count : -1;
}

static long below_control(BIO *bio, int command, long number, void *p)
{
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_PUSH || command == BIO_CTRL_POP;
}

static BIO *below_new(void *below)
{
    BIO *bio = BIO_new(below_method);

    check(bio != NULL);
    BIO_set_data(bio, below);
    BIO_set_init(bio, 1);
    return bio;
}

/* --- connections --- */

static int conn_init(nng_tls_engine_conn *conn, void *below, nng_tls_engine_config *config)
{
    if (config->tls == NULL) {
        return NNG_ENOTSUP;
    }
    conn->below = below;
    conn->ssl = tls_open(config->tls);
    BIO *bio = below_new(below);
    SSL_set_bio(conn->ssl, bio, bio);
    return 0;
}

static void conn_fini(nng_tls_engine_conn *conn)
{
    SSL_free(conn->ssl);
}

static void conn_close(nng_tls_engine_conn *conn)
{
    if (!conn->failed && SSL_is_init_finished(conn->ssl)) {
        ERR_clear_error();
        (void)SSL_shutdown(conn->ssl);
        ERR_clear_error();
    }
}

/* What a call on the connection came to, for nng. After a failure nothing works any more. */
static int conn_result(nng_tls_engine_conn *conn, int r)
{
    int error = SSL_get_error(conn->ssl, r);

    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return NNG_EAGAIN;
    }
    if (error != SSL_ERROR_ZERO_RETURN && !conn->failed) {
        snprintf(conn->why, sizeof(conn->why), "%s", tls_failure(conn->ssl));
    }
    conn->failed = true;
    ERR_clear_error();
    return error == SSL_ERROR_ZERO_RETURN ? NNG_ECLOSED : NNG_ECRYPTO;
}

/* NNG_EPEERAUTH: after others nng's listeners take a rest or end. */
static int conn_handshake(nng_tls_engine_conn *conn)
{
    if (conn->failed) {
        return NNG_EPEERAUTH;
    }
    ERR_clear_error();
    int r = SSL_do_handshake(conn->ssl);
    if (r == 1) {
        return 0;
    }
    return conn_result(conn, r) == NNG_EAGAIN ? NNG_EAGAIN : NNG_EPEERAUTH;
}

static int conn_recv(nng_tls_engine_conn *conn, uint8_t *p, size_t *n)
{
    size_t got = 0;

    if (conn->failed) {
        return NNG_ECLOSED;
    }
    ERR_clear_error();
    int r = SSL_read_ex(conn->ssl, p, *n, &got);
    if (r != 1) {
        return conn_result(conn, r);
    }
    *n = got;
    return 0;
}

static int conn_send(nng_tls_engine_conn *conn, const uint8_t *p, size_t *n)
{
    size_t sent = 0;

    if (conn->failed) {
        return NNG_ECLOSED;
    }
    ERR_clear_error();
    int r = SSL_write_ex(conn->ssl, p, *n, &sent);
    if (r != 1) {
        return conn_result(conn, r);
    }
    *n = sent;
    return 0;
}

static bool conn_verified(nng_tls_engine_conn *conn)
{
    struct tls_peer peer = {.connected = false};

    if (conn->ssl != NULL) {
        tls_read_peer(conn->ssl, &peer);
        memcpy(peer.why, conn->why, sizeof(peer.why));
    }
    if (wanted_peer != NULL) {
        *wanted_peer = peer;
    }
    return peer.certified;
}

/* --- configurations --- */

static int config_init(nng_tls_engine_config *config, nng_tls_mode mode)
{
    config->tls = config_tls != NULL ? tls_hold(config_tls) : NULL;
    return 0;
}

static void config_fini(nng_tls_engine_config *config)
{
    tls_free(config->tls);
}

/* nng names the host of every URL that is dialed; ours stands in struct tls. */
static int config_server(nng_tls_engine_config *config, const char *name)
{
    return 0;
}

/* All of these are struct tls's: whoever tries another way shall hear of it. */
static int config_auth(nng_tls_engine_config *config, nng_tls_auth_mode mode)
{
    return NNG_ENOTSUP;
}

static int config_authority(nng_tls_engine_config *config, const char *certs, const char *crl)
{
    return NNG_ENOTSUP;
}

static int config_own(nng_tls_engine_config *config, const char *cert, const char *key,
                      const char *passphrase)
{
    return NNG_ENOTSUP;
}

static int config_version(nng_tls_engine_config *config, nng_tls_version min, nng_tls_version max)
{
    return min <= NNG_TLS_1_3 && max >= NNG_TLS_1_3 ? 0 : NNG_ENOTSUP;
}

static nng_tls_engine_config_ops config_ops = {
    .size = sizeof(nng_tls_engine_config),
    .init = config_init,
    .fini = config_fini,
    .server = config_server,
    .auth = config_auth,
    .ca_chain = config_authority,
    .own_cert = config_own,
    .version = config_version,
};

static nng_tls_engine_conn_ops conn_ops = {
    .size = sizeof(nng_tls_engine_conn),
    .init = conn_init,
    .fini = conn_fini,
    .close = conn_close,
    .handshake = conn_handshake,
    .recv = conn_recv,
    .send = conn_send,
    .verified = conn_verified,
};

static const nng_tls_engine engine = {
    .version = NNG_TLS_ENGINE_V1,
    .config_ops = &config_ops,
    .conn_ops = &conn_ops,
    .name = "davit-openssl",
    .description = "OpenSSL, TLS 1.3",
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int registered;

/* An aio first: what starts nng registers nng's own engine, and would do so over ours. */
static void start_once(void)
{
    nng_aio *aio = NULL;

    below_method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "nng");
    check(below_method != NULL);
    BIO_meth_set_write(below_method, below_write);
    BIO_meth_set_read(below_method, below_read);
    BIO_meth_set_ctrl(below_method, below_control);
    registered = nng_aio_alloc(&aio, NULL, NULL);
    nng_aio_free(aio);
    registered = registered != 0 ? registered : nng_tls_engine_register(&engine);
}

int tls_engine_start(struct buf *why)
{
    pthread_once(&once, start_once);
    if (registered != 0) {
        buf_addf(why, "no TLS: %s", nng_strerror(registered));
        return -E_UNSUPPORTED;
    }
    return 0;
}

int tls_engine_config(struct tls *t, nng_tls_config **ret)
{
    check(registered == 0 && below_method != NULL);
    config_tls = t;
    /* The mode is of no meaning to us: struct tls knows its side. */
    int r = nng_tls_config_alloc(ret, NNG_TLS_MODE_SERVER);
    config_tls = NULL;
    return r == 0 ? 0 : -E_INTERNAL;
}

bool tls_engine_peer(nng_stream *stream, struct tls_peer *ret)
{
    bool verified;
    struct tls_peer peer = {.connected = false};

    wanted_peer = &peer;
    int r = nng_stream_get_bool(stream, NNG_OPT_TLS_VERIFIED, &verified);
    wanted_peer = NULL;
    *ret = peer;
    return r == 0;
}
