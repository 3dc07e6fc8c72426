#include "common/base.h"

#include "common/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define CHAIN_MAX 16384 /* bytes of the certificates that a peer may send */

struct tls {
    atomic_uint holds;
    enum tls_side side;
    pthread_mutex_t lock; /* guards what follows */
    SSL_CTX *ctx;
    char *host;
};

static BIO *reader(struct str pem)
{
    BIO *bio = BIO_new_mem_buf(pem.n > 0 ? pem.p : "", (int)MIN(pem.n, CERT_PEM_MAX));

    check(bio != NULL);
    return bio;
}

static bool trust(SSL_CTX *ctx, struct str pem)
{
    BIO *bio = reader(pem);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    size_t count = 0;
    X509 *cert;

    while ((cert = PEM_read_bio_X509(bio, NULL, NULL, (void *)"")) != NULL) {
        count += X509_STORE_add_cert(store, cert) == 1;
        /* Tells clients whose certificates are wanted. */
        (void)SSL_CTX_add_client_CA(ctx, cert);
        X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    return count > 0;
}

static bool show(SSL_CTX *ctx, const struct tls_config *c)
{
    BIO *bio = reader(c->certificate);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, (void *)"");
    BIO_free(bio);
    bio = reader(c->key);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"");
    BIO_free(bio);
    bool good = cert != NULL && key != NULL && SSL_CTX_use_certificate(ctx, cert) == 1 &&
                SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;

    X509_free(cert);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return good;
}

static int verify_mode(enum tls_side side)
{
    return side == TLS_SERVER_MUTUAL ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                                     : SSL_VERIFY_PEER;
}

static SSL_CTX *new_context(enum tls_side side)
{
    SSL_CTX *ctx = SSL_CTX_new(side == TLS_CLIENT ? TLS_client_method() : TLS_server_method());

    check(ctx != NULL);
    check(SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1);
    check(SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    check(SSL_CTX_set_num_tickets(ctx, 0) == 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_max_cert_list(ctx, CHAIN_MAX);
    SSL_CTX_set_verify(ctx, verify_mode(side), NULL);
    return ctx;
}

static int make_context(const struct tls_config *c, SSL_CTX **ret, struct buf *why)
{
    const char *fault = NULL;
    SSL_CTX *ctx = new_context(c->side);

    if (!trust(ctx, c->authority)) {
        fault = "there is no certificate of an authority";
    } else if (c->certificate.n > 0 || c->side != TLS_CLIENT) {
        fault = show(ctx, c) ? NULL : "certificate and key are damaged, or of different owners";
    }
    if (fault != NULL) {
        buf_addz(why, fault);
        SSL_CTX_free(ctx);
        return -E_INVALID;
    }
    *ret = ctx;
    return 0;
}

int tls_new(const struct tls_config *config, struct tls **ret, struct buf *why)
{
    SSL_CTX *ctx;
    int r = make_context(config, &ctx, why);

    if (r < 0) {
        return r;
    }
    check(config->side != TLS_CLIENT || config->host != NULL);
    struct tls *t = xcalloc(1, sizeof(*t));
    atomic_init(&t->holds, 1);
    check(pthread_mutex_init(&t->lock, NULL) == 0);
    t->side = config->side;
    t->ctx = ctx;
    t->host = config->host != NULL ? xstrdup(config->host) : NULL;
    *ret = t;
    return 0;
}

int tls_replace(struct tls *t, const struct tls_config *config, struct buf *why)
{
    SSL_CTX *ctx;
    int r = make_context(config, &ctx, why);

    if (r < 0) {
        return r;
    }
    check(config->side == t->side);
    pthread_mutex_lock(&t->lock);
    SSL_CTX *old = t->ctx;
    t->ctx = ctx;
    pthread_mutex_unlock(&t->lock);
    SSL_CTX_free(old); /* its connections hold it */
    return 0;
}

struct tls *tls_hold(struct tls *t)
{
    atomic_fetch_add(&t->holds, 1);
    return t;
}

void tls_free(struct tls *t)
{
    if (t == NULL || atomic_fetch_sub(&t->holds, 1) > 1) {
        return;
    }
    SSL_CTX_free(t->ctx);
    pthread_mutex_destroy(&t->lock);
    free(t->host);
    free(t);
}

static bool is_address(const char *host)
{
    struct in6_addr any;

    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

static void expect_host(SSL *ssl, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

    if (is_address(host)) {
        check(X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1);
        return;
    }
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    check(SSL_set1_host(ssl, host) == 1);
    (void)SSL_set_tlsext_host_name(ssl, host);
}

SSL *tls_open(struct tls *t)
{
    pthread_mutex_lock(&t->lock);
    SSL *ssl = SSL_new(t->ctx);
    pthread_mutex_unlock(&t->lock);
    check(ssl != NULL);
    if (t->side == TLS_CLIENT) {
        expect_host(ssl, t->host);
        SSL_set_connect_state(ssl);
    } else {
        SSL_set_accept_state(ssl);
    }
    return ssl;
}

void tls_read_peer(SSL *ssl, struct tls_peer *ret)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);
    BIGNUM *serial = NULL;

    *ret = (struct tls_peer){.connected = SSL_is_init_finished(ssl) == 1};
    if (cert == NULL || SSL_get_verify_result(ssl) != X509_V_OK || !ret->connected) {
        return;
    }
    serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    ret->certified = serial != NULL && !BN_is_negative(serial) &&
                     BN_bn2binpad(serial, ret->serial, CERT_SERIAL_BYTES) == (int)CERT_SERIAL_BYTES;
    BN_free(serial);
    ERR_clear_error();
}

/* The first error of the queue is the one that the others follow from. */
const char *tls_failure(SSL *ssl)
{
    long verified = SSL_get_verify_result(ssl);
    unsigned long code = ERR_peek_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;

    if (verified != X509_V_OK) {
        return X509_verify_cert_error_string(verified);
    }
    return reason != NULL ? reason : "the connection was closed";
}
