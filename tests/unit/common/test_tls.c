/* TLS beneath nng's streams, against itself and against OpenSSL on a bare socket. */
#include "common/base.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"
#include "common/tls_engine.h"
#include "tests/kit/authority.h"

#define HOUR_MS     3600000
#define PATIENCE_MS 20000

static struct authority ca, other_ca;
static struct holder server, client;

struct world {
    struct tls *server_tls;
    nng_tls_config *server_config;
    nng_stream_listener *listener;
    int port;
    nng_aio *accepting;
    nng_stream *at_server; /* the newest */
    nng_stream *at_client;
};

static int set_up_group(void **state)
{
    struct buf why = BUF_INIT;

    authority_make(&ca);
    authority_make(&other_ca);
    authority_certify(&ca, CERT_SERVER, "broker", HOUR_MS, &server);
    authority_certify(&ca, CERT_CLIENT, "worker", HOUR_MS, &client);
    check(tls_engine_start(&why) == 0);
    buf_release(&why);
    return 0;
}

static int tear_down_group(void **state)
{
    holder_release(&server);
    holder_release(&client);
    authority_release(&ca);
    authority_release(&other_ca);
    nng_fini();
    return 0;
}

static struct tls_config side(enum tls_side which, const struct authority *trusted,
                              const struct holder *own)
{
    return (struct tls_config){.side = which,
                               .authority = buf_str(&trusted->cert),
                               .certificate = own != NULL ? buf_str(&own->cert) : STR_NULL,
                               .key = own != NULL ? buf_str(&own->key) : STR_NULL,
                               .host = "127.0.0.1"};
}

static struct tls *make(const struct tls_config *c)
{
    struct tls *t;
    struct buf why = BUF_INIT;

    assert_int_equal(tls_new(c, &t, &why), 0);
    buf_release(&why);
    return t;
}

static void listen_with(struct world *w, enum tls_side which, const struct holder *own)
{
    struct tls_config c = side(which, &ca, own);

    w->server_tls = make(&c);
    assert_int_equal(tls_engine_config(w->server_tls, &w->server_config), 0);
    assert_int_equal(nng_stream_listener_alloc(&w->listener, "tls+tcp://127.0.0.1:0"), 0);
    assert_int_equal(nng_stream_listener_set_ptr(w->listener, NNG_OPT_TLS_CONFIG, w->server_config),
                     0);
    assert_int_equal(nng_stream_listener_set_bool(w->listener, NNG_OPT_TCP_NODELAY, true), 0);
    assert_int_equal(nng_stream_listener_listen(w->listener), 0);
    assert_int_equal(nng_stream_listener_get_int(w->listener, NNG_OPT_TCP_BOUND_PORT, &w->port), 0);
    assert_int_equal(nng_aio_alloc(&w->accepting, NULL, NULL), 0);
    nng_aio_set_timeout(w->accepting, PATIENCE_MS);
    nng_stream_listener_accept(w->listener, w->accepting);
}

static int set_up(void **state)
{
    *state = xcalloc(1, sizeof(struct world));
    return 0;
}

static void drop(nng_stream **stream)
{
    if (*stream != NULL) {
        nng_stream_close(*stream);
        nng_stream_free(*stream);
        *stream = NULL;
    }
}

static int tear_down(void **state)
{
    struct world *w = *state;

    drop(&w->at_client);
    drop(&w->at_server);
    if (w->listener != NULL) {
        nng_stream_listener_close(w->listener);
        nng_aio_stop(w->accepting);
        nng_aio_free(w->accepting);
        nng_stream_listener_free(w->listener);
        nng_tls_config_free(w->server_config);
        tls_free(w->server_tls);
    }
    free(w);
    return 0;
}

static void take_accepted(struct world *w)
{
    nng_aio_wait(w->accepting);
    assert_int_equal(nng_aio_result(w->accepting), 0);
    w->at_server = nng_aio_get_output(w->accepting, 0);
    nng_stream_listener_accept(w->listener, w->accepting);
}

/* Both ends of a connection; no handshake yet. */
static void dial(struct world *w, struct tls *t)
{
    nng_stream_dialer *dialer;
    nng_tls_config *config;
    nng_aio *aio;
    char url[64];

    snprintf(url, sizeof(url), "tls+tcp://127.0.0.1:%d", w->port);
    assert_int_equal(nng_stream_dialer_alloc(&dialer, url), 0);
    assert_int_equal(tls_engine_config(t, &config), 0);
    assert_int_equal(nng_stream_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config), 0);
    assert_int_equal(nng_stream_dialer_set_bool(dialer, NNG_OPT_TCP_NODELAY, true), 0);
    nng_tls_config_free(config);
    assert_int_equal(nng_aio_alloc(&aio, NULL, NULL), 0);
    nng_stream_dialer_dial(dialer, aio);
    nng_aio_wait(aio);
    assert_int_equal(nng_aio_result(aio), 0);
    w->at_client = nng_aio_get_output(aio, 0);
    nng_aio_free(aio);
    nng_stream_dialer_free(dialer);
    take_accepted(w);
}

static void dial_as(struct world *w, const struct tls_config *c)
{
    struct tls *t = make(c);

    dial(w, t);
    tls_free(t);
}

static nng_aio *begin(nng_stream *stream, void (*transfer)(nng_stream *, nng_aio *), void *p,
                      size_t n)
{
    nng_iov iov = {.iov_buf = p, .iov_len = n};
    nng_aio *aio;

    assert_int_equal(nng_aio_alloc(&aio, NULL, NULL), 0);
    nng_aio_set_timeout(aio, PATIENCE_MS);
    assert_int_equal(nng_aio_set_iov(aio, 1, &iov), 0);
    transfer(stream, aio);
    return aio;
}

static int end(nng_aio *aio)
{
    nng_aio_wait(aio);
    int r = nng_aio_result(aio);
    nng_aio_free(aio);
    assert_int_not_equal(r, NNG_ETIMEDOUT);
    return r;
}

/* Bytes from one end to the other. What receiving came to; the sender may have been refused. */
static int pass(nng_stream *from, nng_stream *to)
{
    char out[] = "0123456789";
    char in[sizeof(out)] = "";
    nng_aio *receiving = begin(to, nng_stream_recv, in, sizeof(in));
    nng_aio *sending = begin(from, nng_stream_send, out, sizeof(out));
    int sent = end(sending);
    int r = end(receiving);

    if (r == 0) {
        assert_int_equal(sent, 0);
        assert_string_equal(in, out);
    }
    return r;
}

/* Bytes both ways: 0, or the first failure of the two. */
static int talk(struct world *w)
{
    int r = pass(w->at_client, w->at_server);

    return r != 0 ? r : pass(w->at_server, w->at_client);
}

static struct tls_peer peer_of(nng_stream *stream)
{
    struct tls_peer peer;

    assert_true(tls_engine_peer(stream, &peer));
    return peer;
}

static void assert_why(nng_stream *stream, const char *part)
{
    struct tls_peer peer = peer_of(stream);

    if (strstr(peer.why, part) == NULL) {
        fail_msg("`%s` does not say `%s`", peer.why, part);
    }
    assert_false(peer.certified);
}

static void both_ends_know_each_other(void **state)
{
    struct world *w = *state;
    struct tls_config c = side(TLS_CLIENT, &ca, &client);

    listen_with(w, TLS_SERVER_MUTUAL, &server);
    dial_as(w, &c);
    assert_int_equal(talk(w), 0);
    assert_true(peer_of(w->at_server).certified);
    assert_memory_equal(peer_of(w->at_server).serial, client.facts.serial, CERT_SERIAL_BYTES);
    assert_memory_equal(peer_of(w->at_client).serial, server.facts.serial, CERT_SERIAL_BYTES);
}

static void nng_names_our_engine(void **state)
{
    assert_string_equal(nng_tls_engine_name(), "davit-openssl");
}

static void megabytes_arrive_as_they_were_sent(void **state)
{
    struct world *w = *state;
    struct tls_config c = side(TLS_CLIENT, &ca, &client);
    enum { BYTES = 1 << 20 };
    uint8_t *out = xmalloc(BYTES), *in = xmalloc(BYTES);
    size_t sent = 0, got = 0;

    os_random(out, BYTES);
    listen_with(w, TLS_SERVER_MUTUAL, &server);
    dial_as(w, &c);
    while (got < BYTES) {
        nng_aio *sending = begin(w->at_client, nng_stream_send, out + sent, BYTES - sent);
        nng_aio *receiving = begin(w->at_server, nng_stream_recv, in + got, BYTES - got);
        nng_aio_wait(sending);
        sent += nng_aio_count(sending);
        assert_int_equal(end(sending), 0);
        for (;;) {
            nng_aio_wait(receiving);
            got += nng_aio_count(receiving);
            assert_int_equal(end(receiving), 0);
            if (got == sent) {
                break;
            }
            receiving = begin(w->at_server, nng_stream_recv, in + got, sent - got);
        }
    }
    assert_memory_equal(in, out, BYTES);
    free(out);
    free(in);
}

static void a_client_without_a_certificate_is_refused_where_one_is_needed(void **state)
{
    struct world *w = *state;
    struct tls_config c = side(TLS_CLIENT, &ca, NULL);

    listen_with(w, TLS_SERVER_MUTUAL, &server);
    dial_as(w, &c);
    assert_int_not_equal(talk(w), 0);
    assert_why(w->at_server, "peer did not return a certificate");
}

static void a_client_without_a_certificate_is_nobody_elsewhere(void **state)
{
    struct world *w = *state;
    struct tls_config c = side(TLS_CLIENT, &ca, NULL);

    listen_with(w, TLS_SERVER, &server);
    dial_as(w, &c);
    assert_int_equal(talk(w), 0);
    assert_true(peer_of(w->at_server).connected);
    assert_false(peer_of(w->at_server).certified);
}

/* What a certificate that is not good comes to, with a server that needs one and with one that does
 * not. */
static void assert_client_refused(struct world *w, const struct holder *bad, const char *why)
{
    struct tls_config c = side(TLS_CLIENT, &ca, bad);

    listen_with(w, TLS_SERVER, &server);
    dial_as(w, &c);
    assert_int_not_equal(talk(w), 0);
    assert_why(w->at_server, why);
}

static void a_client_of_another_authority_is_refused(void **state)
{
    struct holder stranger;

    authority_certify(&other_ca, CERT_CLIENT, "worker", HOUR_MS, &stranger);
    assert_client_refused(*state, &stranger, "unable to get local issuer certificate");
    holder_release(&stranger);
}

static void a_certificate_that_has_expired_is_refused(void **state)
{
    struct holder old;

    authority_certify(&ca, CERT_CLIENT, "worker", -60000, &old);
    assert_client_refused(*state, &old, "certificate has expired");
    holder_release(&old);
}

static void a_servers_certificate_makes_no_client(void **state)
{
    assert_client_refused(*state, &server, "unsuitable certificate purpose");
}

static void a_clients_certificate_makes_no_server(void **state)
{
    struct world *w = *state;
    struct tls_config c = side(TLS_CLIENT, &ca, &client);

    listen_with(w, TLS_SERVER, &client);
    dial_as(w, &c);
    assert_int_not_equal(talk(w), 0);
    assert_why(w->at_client, "unsuitable certificate purpose");
}

static void a_server_of_another_authority_is_refused(void **state)
{
    struct world *w = *state;
    struct tls_config c = side(TLS_CLIENT, &other_ca, &client);

    listen_with(w, TLS_SERVER, &server);
    dial_as(w, &c);
    assert_int_not_equal(talk(w), 0);
    assert_why(w->at_client, "unable to get local issuer certificate");
}

static void a_server_of_another_name_is_refused(void **state)
{
    struct world *w = *state;
    struct tls_config c = side(TLS_CLIENT, &ca, &client);

    c.host = "127.0.0.2";
    listen_with(w, TLS_SERVER, &server);
    dial_as(w, &c);
    assert_int_not_equal(talk(w), 0);
    assert_why(w->at_client, "IP address mismatch");
    drop(&w->at_client);
    drop(&w->at_server);
    c.host = "broker.example";
    dial_as(w, &c);
    assert_int_not_equal(talk(w), 0);
    assert_why(w->at_client, "hostname mismatch");
}

static void new_certificates_are_for_new_connections(void **state)
{
    struct world *w = *state;
    struct world after = {0};
    struct tls_config c = side(TLS_CLIENT, &ca, &client);
    struct holder renewed;
    struct buf why = BUF_INIT;

    authority_certify(&ca, CERT_SERVER, "broker", HOUR_MS, &renewed);
    listen_with(w, TLS_SERVER_MUTUAL, &server);
    dial_as(w, &c);
    assert_int_equal(talk(w), 0);
    after.at_client = w->at_client;
    after.at_server = w->at_server;

    struct tls_config changed = side(TLS_SERVER_MUTUAL, &ca, &renewed);
    assert_int_equal(tls_replace(w->server_tls, &changed, &why), 0);
    dial_as(w, &c); /* though it was accepted by a call from before */
    assert_int_equal(talk(w), 0);
    assert_memory_equal(peer_of(w->at_client).serial, renewed.facts.serial, CERT_SERIAL_BYTES);
    assert_int_equal(talk(&after), 0);
    assert_memory_equal(peer_of(after.at_client).serial, server.facts.serial, CERT_SERIAL_BYTES);

    changed.key = buf_str(&server.key); /* of another certificate */
    assert_int_equal(tls_replace(w->server_tls, &changed, &why), -E_INVALID);
    assert_true(why.n > 0);
    assert_int_equal(talk(w), 0);
    drop(&after.at_client);
    drop(&after.at_server);
    holder_release(&renewed);
    buf_release(&why);
}

static void what_is_no_certificate_is_said_to_be_none(void **state)
{
    struct tls_config c = side(TLS_CLIENT, &ca, &client);
    struct buf why = BUF_INIT;
    struct tls *t;

    c.authority = STR("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_int_equal(tls_new(&c, &t, &why), -E_INVALID);
    assert_string_equal(buf_cstr(&why), "there is no certificate of an authority");
    c = side(TLS_CLIENT, &ca, &client);
    c.key = buf_str(&server.key);
    buf_clear(&why);
    assert_int_equal(tls_new(&c, &t, &why), -E_INVALID);
    assert_string_equal(buf_cstr(&why), "certificate and key are damaged, or of different owners");
    c = side(TLS_SERVER, &ca, NULL);
    assert_int_equal(tls_new(&c, &t, &why), -E_INVALID);
    buf_release(&why);
}

/* --- a peer byte by byte --- */

static int bare_connect(struct world *w)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)w->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    take_accepted(w);
    return fd;
}

static SSL *bare_open(int fd, int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    SSL *ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    assert_int_equal(SSL_set_fd(ssl, fd), 1);
    return ssl;
}

static void older_versions_are_refused(void **state)
{
    struct world *w = *state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_1_VERSION};

    listen_with(w, TLS_SERVER, &server);
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        char byte;
        int fd = bare_connect(w);
        SSL *ssl = bare_open(fd, versions[i]);
        nng_aio *receiving = begin(w->at_server, nng_stream_recv, &byte, 1);
        assert_int_not_equal(SSL_connect(ssl), 1);
        SSL_free(ssl);
        close(fd);
        assert_int_not_equal(end(receiving), 0);
        assert_false(peer_of(w->at_server).connected);
        drop(&w->at_server);
    }
}

static void garbage_ends_the_connection(void **state)
{
    struct world *w = *state;
    char in[16];

    listen_with(w, TLS_SERVER, &server);
    for (size_t n = 1; n < 3000; n = 3 * n + 1) {
        uint8_t garbage[4096];
        int fd = bare_connect(w);
        nng_aio *receiving = begin(w->at_server, nng_stream_recv, in, sizeof(in));
        os_random(garbage, n);
        assert_int_equal(os_write_all(fd, garbage, n), 0);
        shutdown(fd, SHUT_WR);
        assert_int_not_equal(end(receiving), 0);
        close(fd);
        drop(&w->at_server);
    }
}

static void half_a_greeting_waits_and_ends(void **state)
{
    struct world *w = *state;
    static const uint8_t begun[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00};
    char in[16];

    listen_with(w, TLS_SERVER, &server);
    int fd = bare_connect(w);
    nng_aio *receiving = begin(w->at_server, nng_stream_recv, in, sizeof(in));
    assert_int_equal(os_write_all(fd, begun, sizeof(begun)), 0);
    os_sleep_ms(50);
    assert_false(peer_of(w->at_server).connected);
    close(fd);
    assert_int_not_equal(end(receiving), 0);
}

static void a_half_closed_peer_still_hears(void **state)
{
    struct world *w = *state;
    char in[16], out[] = "hello", heard[sizeof(out)];

    listen_with(w, TLS_SERVER, &server);
    int fd = bare_connect(w);
    SSL *ssl = bare_open(fd, TLS1_3_VERSION);
    nng_aio *receiving = begin(w->at_server, nng_stream_recv, in, sizeof(in));
    assert_int_equal(SSL_connect(ssl), 1);
    assert_int_equal(SSL_write(ssl, "x", 1), 1);
    assert_int_equal(end(receiving), 0);
    nng_aio *sending = begin(w->at_server, nng_stream_send, out, sizeof(out));
    assert_int_equal(end(sending), 0);
    assert_int_equal(SSL_shutdown(ssl), 0); /* says that no more comes */
    receiving = begin(w->at_server, nng_stream_recv, in, sizeof(in));
    assert_int_not_equal(end(receiving), 0);
    assert_int_equal(SSL_read(ssl, heard, sizeof(heard)), sizeof(heard));
    assert_string_equal(heard, out);
    SSL_free(ssl);
    close(fd);
}

/* Without a word of TLS, as when a machine dies or somebody cuts the connection. */
static void a_cut_connection_ends(void **state)
{
    struct world *w = *state;
    char in[16];

    listen_with(w, TLS_SERVER, &server);
    int fd = bare_connect(w);
    SSL *ssl = bare_open(fd, TLS1_3_VERSION);
    nng_aio *receiving = begin(w->at_server, nng_stream_recv, in, sizeof(in));
    assert_int_equal(SSL_connect(ssl), 1);
    assert_int_equal(SSL_write(ssl, "x", 1), 1);
    assert_int_equal(end(receiving), 0);
    receiving = begin(w->at_server, nng_stream_recv, in, sizeof(in));
    shutdown(fd, SHUT_WR);
    assert_int_not_equal(end(receiving), 0);
    SSL_free(ssl);
    close(fd);
}

/* Leaks are found at the end of the process. */
static void many_handshakes(void **state)
{
    struct world *w = *state;
    struct tls_config c = side(TLS_CLIENT, &ca, &client);
    const char *wanted = getenv("DAVIT_TLS_HANDSHAKES");
    uint64_t count = 200;

    assert_true(wanted == NULL || str_to_u64(str_from(wanted), &count) == 0);
    struct tls *t = make(&c);
    listen_with(w, TLS_SERVER_MUTUAL, &server);
    uint64_t start_us = os_monotonic_us();
    for (uint64_t i = 0; i < count; i++) {
        dial(w, t);
        assert_int_equal(talk(w), 0);
        drop(&w->at_client);
        drop(&w->at_server);
    }
    print_message("%" PRIu64 " handshakes, %.2f ms each\n", count,
                  (double)(os_monotonic_us() - start_us) / 1e3 / (double)count);
    tls_free(t);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(both_ends_know_each_other),
        TEST(nng_names_our_engine),
        TEST(megabytes_arrive_as_they_were_sent),
        TEST(a_client_without_a_certificate_is_refused_where_one_is_needed),
        TEST(a_client_without_a_certificate_is_nobody_elsewhere),
        TEST(a_client_of_another_authority_is_refused),
        TEST(a_certificate_that_has_expired_is_refused),
        TEST(a_servers_certificate_makes_no_client),
        TEST(a_clients_certificate_makes_no_server),
        TEST(a_server_of_another_authority_is_refused),
        TEST(a_server_of_another_name_is_refused),
        TEST(new_certificates_are_for_new_connections),
        TEST(what_is_no_certificate_is_said_to_be_none),
        TEST(older_versions_are_refused),
        TEST(garbage_ends_the_connection),
        TEST(half_a_greeting_waits_and_ends),
        TEST(a_half_closed_peer_still_hears),
        TEST(a_cut_connection_ends),
        TEST(many_handshakes),
    };
    return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
