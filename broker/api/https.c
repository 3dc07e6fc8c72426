#include "common/base.h"

#include "broker/api/https.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/crypto.h"

/* The ticket would let somebody go on with an old certificate. */
#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:%NO_TICKETS"

/* One server certificate. Handshakes may use an older one yet: all stay until the end. */
struct shown {
    struct shown *older;
    uint64_t serial;
    gnutls_pcert_st cert;
    gnutls_privkey_t key;
};

struct https {
    struct authority *authority;
    pthread_mutex_t lock;
    struct shown *shown; /* the newest first; under the lock */
};

static struct https *the_https;

static gnutls_datum_t datum(const struct buf *b)
{
    return (gnutls_datum_t){.data = (unsigned char *)b->p, .size = (unsigned)b->n};
}

/* NULL: GnuTLS does not take it. */
static struct shown *load(struct authority *a)
{
    struct buf cert = BUF_INIT, key = BUF_INIT;
    struct shown *s = xcalloc(1, sizeof(*s));

    s->serial = authority_serial(a); /* first: if it changes meanwhile, it is loaded again */
    authority_server(a, &cert, &key);
    gnutls_datum_t c = datum(&cert), k = datum(&key);
    bool good = gnutls_pcert_import_x509_raw(&s->cert, &c, GNUTLS_X509_FMT_PEM, 0) == 0;
    if (good && (gnutls_privkey_init(&s->key) != 0 ||
                 gnutls_privkey_import_x509_raw(s->key, &k, GNUTLS_X509_FMT_PEM, NULL, 0) != 0)) {
        gnutls_pcert_deinit(&s->cert);
        gnutls_privkey_deinit(s->key);
        good = false;
    }
    crypto_wipe(key.p, key.n);
    buf_release(&key);
    buf_release(&cert);
    if (!good) {
        free(s);
        return NULL;
    }
    return s;
}

static const struct shown *newest(struct https *h)
{
    pthread_mutex_lock(&h->lock);
    if (h->shown == NULL || h->shown->serial != authority_serial(h->authority)) {
        struct shown *s = load(h->authority);
        if (s != NULL) {
            s->older = h->shown;
            h->shown = s;
        }
    }
    struct shown *s = h->shown;
    pthread_mutex_unlock(&h->lock);
    return s;
}

static int on_handshake(gnutls_session_t session, const gnutls_datum_t *authorities, int count,
                        const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                        gnutls_pcert_st **ret_cert, unsigned *ret_cert_count,
                        gnutls_privkey_t *ret_key)
{
    struct shown *s = (struct shown *)(uintptr_t)newest(the_https);

    *ret_cert = &s->cert;
    *ret_cert_count = 1;
    *ret_key = s->key;
    return 0;
}

int https_new(struct authority *a, struct https **ret, struct buf *why)
{
    struct https *h = xcalloc(1, sizeof(*h));

    check(the_https == NULL);
    check(pthread_mutex_init(&h->lock, NULL) == 0);
    h->authority = a;
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES || newest(h) == NULL) {
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
    while (h->shown != NULL) {
        struct shown *older = h->shown->older;
        gnutls_pcert_deinit(&h->shown->cert);
        gnutls_privkey_deinit(h->shown->key);
        free(h->shown);
        h->shown = older;
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
