#include "common/base.h"

#include "broker/api/https.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/crypto.h"
#include "common/limits.h"

/* The ticket would let somebody go on with an old certificate. */
#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:%NO_TICKETS"

/* One server certificate with those that lead to its authority. Handshakes may use an older one
 * yet: all stay until the end. */
struct https_shown {
    struct https_shown *older;
    uint64_t serial;   /* of the authority's own */
    uint64_t until_ms; /* of a given one */
    char hash[2 * SHA256_BYTES + 1];
    gnutls_pcert_st certs[LIMIT_CERT_CHAIN];
    unsigned count;
    gnutls_privkey_t key;
};

struct https {
    struct authority *authority;
    pthread_mutex_t lock;
    struct https_shown *all; /* what follows is under the lock */
    struct https_shown *own;
    struct https_shown *given; /* NULL: none */
};

static struct https *the_https;

static gnutls_datum_t datum(struct str text)
{
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)text.p, .size = (unsigned)text.n};
}

static void free_shown(struct https_shown *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        gnutls_pcert_deinit(&s->certs[i]);
    }
    gnutls_privkey_deinit(s->key);
    free(s);
}

void https_shown_free(struct https_shown *s)
{
    if (s != NULL) {
        free_shown(s);
    }
}

/* NULL: GnuTLS does not take it. */
static struct https_shown *import(struct str chain, struct str key)
{
    struct https_shown *s = xcalloc(1, sizeof(*s));
    gnutls_datum_t c = datum(chain), k = datum(key);
    unsigned count = LIMIT_CERT_CHAIN;

    check(gnutls_privkey_init(&s->key) == 0);
    bool good = gnutls_pcert_list_import_x509_raw(s->certs, &count, &c, GNUTLS_X509_FMT_PEM, 0) ==
                0;
    s->count = good ? count : 0;
    good = good && count > 0 &&
           gnutls_privkey_import_x509_raw(s->key, &k, GNUTLS_X509_FMT_PEM, NULL, 0) == 0;
    if (!good) {
        free_shown(s);
        return NULL;
    }
    return s;
}

static struct https_shown *load_own(struct authority *a)
{
    struct buf cert = BUF_INIT, key = BUF_INIT;
    uint64_t serial = authority_serial(a); /* first: if it changes meanwhile, it is loaded again */

    authority_server(a, &cert, &key);
    struct https_shown *s = import(buf_str(&cert), buf_str(&key));
    crypto_wipe(key.p, key.n);
    buf_release(&key);
    buf_release(&cert);
    if (s != NULL) {
        s->serial = serial;
    }
    return s;
}

static void keep(struct https *h, struct https_shown *s)
{
    s->older = h->all;
    h->all = s;
}

static struct https_shown *newest_own(struct https *h)
{
    pthread_mutex_lock(&h->lock);
    if (h->own == NULL || h->own->serial != authority_serial(h->authority)) {
        struct https_shown *s = load_own(h->authority);
        if (s != NULL) {
            keep(h, s);
            h->own = s;
        }
    }
    struct https_shown *s = h->own;
    pthread_mutex_unlock(&h->lock);
    return s;
}

static struct https_shown *given(struct https *h)
{
    pthread_mutex_lock(&h->lock);
    struct https_shown *s = h->given;
    pthread_mutex_unlock(&h->lock);
    return s;
}

/* Workers trust our own authority alone, and say so by the name that they ask for. */
static bool wants_own(gnutls_session_t session)
{
    char name[sizeof(CERT_BROKER_NAME)];
    size_t n = sizeof(name);
    unsigned type = 0;

    return gnutls_server_name_get(session, name, &n, &type, 0) == 0 && type == GNUTLS_NAME_DNS &&
           n == strlen(CERT_BROKER_NAME) && memcmp(name, CERT_BROKER_NAME, n) == 0;
}

static int on_handshake(gnutls_session_t session, const gnutls_datum_t *authorities, int count,
                        const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                        gnutls_pcert_st **ret_cert, unsigned *ret_cert_count,
                        gnutls_privkey_t *ret_key)
{
    struct https_shown *s = wants_own(session) ? NULL : given(the_https);

    s = s != NULL ? s : newest_own(the_https);
    *ret_cert = s->certs;
    *ret_cert_count = s->count;
    *ret_key = s->key;
    return 0;
}

int https_load(const struct served *from, struct https_shown **ret, struct buf *why)
{
    uint8_t hash[SHA256_BYTES];
    struct https_shown *s = import(buf_str(&from->chain), buf_str(&from->key));

    if (s == NULL) {
        buf_addz(why, "GnuTLS does not take the certificate of tls-cert with the key of tls-key\n");
        return -E_INVALID;
    }
    crypto_sha256(from->chain.p, from->chain.n, hash);
    str_to_hex(hash, sizeof(hash), s->hash);
    s->until_ms = from->until_ms;
    *ret = s;
    return 0;
}

bool https_show(struct https *h, struct https_shown *s)
{
    pthread_mutex_lock(&h->lock);
    bool same = s == NULL || h->given == NULL ? s == h->given
                                              : strcmp(s->hash, h->given->hash) == 0;
    if (!same) {
        if (s != NULL) {
            keep(h, s);
        }
        h->given = s;
    }
    pthread_mutex_unlock(&h->lock);
    if (same) {
        https_shown_free(s);
    }
    return !same;
}

uint64_t https_given_until_ms(struct https *h)
{
    struct https_shown *s = given(h);
    return s != NULL ? s->until_ms : 0;
}

int https_new(struct authority *a, struct https **ret, struct buf *why)
{
    struct https *h = xcalloc(1, sizeof(*h));

    check(the_https == NULL);
    check(pthread_mutex_init(&h->lock, NULL) == 0);
    h->authority = a;
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES || newest_own(h) == NULL) {
        buf_addz(why, "libmicrohttpd cannot do TLS with this certificate here");
        https_free(h);
        return -E_UNSUPPORTED;
    }
    the_https = h;
    *ret = h;
    return 0;
}

void https_free(struct https *h)
{
    if (h == NULL) {
        return;
    }
    while (h->all != NULL) {
        struct https_shown *older = h->all->older;
        free_shown(h->all);
        h->all = older;
    }
    pthread_mutex_destroy(&h->lock);
    the_https = the_https == h ? NULL : the_https;
    free(h);
}

void https_options(struct https *h, struct MHD_OptionItem ret[HTTPS_OPTIONS])
{
    check(the_https == h);
    ret[0] = (struct MHD_OptionItem){.option = MHD_OPTION_HTTPS_CERT_CALLBACK,
                                     .ptr_value = (void *)(uintptr_t)on_handshake};
    ret[1] = (struct MHD_OptionItem){.option = MHD_OPTION_HTTPS_PRIORITIES,
                                     .ptr_value = (void *)(uintptr_t)PRIORITIES};
    ret[2] = (struct MHD_OptionItem){.option = MHD_OPTION_END};
}
