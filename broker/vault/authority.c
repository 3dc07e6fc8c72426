#include "common/base.h"

#include "broker/vault/authority.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"

#define AUTHORITY_LIFE_MS (10ull * 365 * 24 * 3600 * 1000)
/* The clocks of others may be behind; of a short life it is a tenth. */
#define EARLIER_MS  (3600ull * 1000)
#define FILE_LIMIT  (2u * CERT_PEM_MAX)
#define CERT_BEGINS "-----BEGIN CERTIFICATE-----"

struct authority {
    char *dir;
    char *server_path;
    struct buf key;
    struct buf cert;
    char pin[2 * SHA256_BYTES + 1];
    struct cert_facts facts;
    char **names;
    size_t name_count;
    uint64_t worker_life_ms;
    uint64_t server_life_ms;
    struct tls *tls;

    pthread_mutex_t lock; /* guards what follows */
    struct buf server_key;
    struct buf server_cert;
    struct cert_facts server_facts;
    uint64_t serial;
};

static uint64_t begin_ms(uint64_t now_ms, uint64_t until_ms)
{
    uint64_t earlier_ms = MIN(EARLIER_MS, (until_ms - MIN(now_ms, until_ms)) / 10);

    return now_ms > earlier_ms ? now_ms - earlier_ms : 0;
}

/* --- the authority itself --- */

static int write_file(const char *path, struct str text, struct buf *why)
{
    int r = os_write_file(path, text.p, text.n, 0600);

    if (r < 0) {
        buf_addf(why, "cannot write %s: %s", path, err_text(r));
    }
    return r;
}

/* The key first: a start that was cut off in between finds it and goes on. */
static int make_key(struct authority *a, const char *path, struct buf *why)
{
    cert_make_key(&a->key);
    return write_file(path, buf_str(&a->key), why);
}

static int make_cert(struct authority *a, const char *path, struct buf *why)
{
    uint64_t now_ms = os_realtime_ms();
    struct cert_order order = {.use = CERT_AUTHORITY,
                               .label = "Davit authority",
                               .from_ms = begin_ms(now_ms, now_ms + AUTHORITY_LIFE_MS),
                               .until_ms = now_ms + AUTHORITY_LIFE_MS};
    cert_new_serial(order.serial);
    if (cert_make_authority(buf_str(&a->key), &order, &a->cert) < 0) {
        buf_addf(why, "the key beside %s is none", path);
        return -E_CORRUPT;
    }
    return write_file(path, buf_str(&a->cert), why);
}

static int read_or(int (*make)(struct authority *a, const char *path, struct buf *why),
                   struct authority *a, const char *path, struct buf *ret, struct buf *why)
{
    int r = os_read_file(path, FILE_LIMIT, ret);

    if (r == -E_NOT_FOUND) {
        return make(a, path, why);
    }
    if (r < 0) {
        buf_addf(why, "cannot read %s: %s", path, err_text(r));
    }
    return r;
}

static int open_self(struct authority *a, struct buf *why)
{
    char *key_path = os_path_join(a->dir, "ca.key");
    char *cert_path = os_path_join(a->dir, "ca.pem");
    bool orphan = !os_exists(key_path) && os_exists(cert_path);
    int r = orphan ? -E_CORRUPT : read_or(make_key, a, key_path, &a->key, why);

    r = r < 0 ? r : read_or(make_cert, a, cert_path, &a->cert, why);
    if (r == 0 && (cert_read(buf_str(&a->cert), &a->facts) < 0 ||
                   !cert_has_key(buf_str(&a->cert), buf_str(&a->key)))) {
        r = -E_CORRUPT;
    }
    if (r < 0 && why->n == 0) {
        buf_addf(why,
                 "%s and ca.key do not belong together: put them back from a backup, or remove "
                 "both, and let all workers join again",
                 cert_path);
    }
    free(key_path);
    free(cert_path);
    return r;
}

/* --- the server's certificate --- */

static struct tls_config tls_config_of(const struct authority *a)
{
    return (struct tls_config){.side = TLS_SERVER,
                               .authority = buf_str(&a->cert),
                               .certificate = buf_str(&a->server_cert),
                               .key = buf_str(&a->server_key)};
}

static void split_server(struct authority *a, struct str text)
{
    ptrdiff_t at = str_find(text, STR(CERT_BEGINS));
    size_t n = at < 0 ? text.n : (size_t)at;

    buf_add_str(&a->server_key, str_sub(text, 0, n));
    buf_add_str(&a->server_cert, str_sub(text, n, text.n));
}

/* Whether what lies there can be gone on with. */
static bool server_is_good(const struct authority *a, uint64_t now_ms)
{
    struct str cert = buf_str(&a->server_cert);

    for (size_t i = 0; i < a->name_count; i++) {
        if (!cert_is_for(cert, a->names[i])) {
            return false;
        }
    }
    return a->server_facts.until_ms > now_ms && cert_is_by(cert, buf_str(&a->cert)) &&
           cert_has_key(cert, buf_str(&a->server_key));
}

/* With the lock held, or before there are others. */
static int make_server(struct authority *a, uint64_t now_ms, struct buf *why)
{
    struct buf key = BUF_INIT, request = BUF_INIT, cert = BUF_INIT, both = BUF_INIT;
    struct cert_order order = {.use = CERT_SERVER,
                               .label = a->names[0],
                               .names = (const char *const *)a->names,
                               .name_count = a->name_count,
                               .until_ms = MIN(now_ms + a->server_life_ms, a->facts.until_ms)};
    order.from_ms = begin_ms(now_ms, order.until_ms);
    cert_new_serial(order.serial);
    cert_make_key(&key);
    check(cert_make_request(buf_str(&key), a->names[0], &request) == 0);
    check(cert_issue(buf_str(&a->cert), buf_str(&a->key), buf_str(&request), &order, &cert) == 0);
    buf_add_str(&both, buf_str(&key));
    buf_add_str(&both, buf_str(&cert));
    int r = write_file(a->server_path, buf_str(&both), why);
    crypto_wipe(both.p, both.n);
    buf_release(&both);
    buf_release(&request);
    if (r == 0) {
        crypto_wipe(a->server_key.p, a->server_key.n);
        buf_release(&a->server_key);
        buf_release(&a->server_cert);
        a->server_key = key;
        a->server_cert = cert;
        a->serial++;
        check(cert_read(buf_str(&a->server_cert), &a->server_facts) == 0);
        return 0;
    }
    crypto_wipe(key.p, key.n);
    buf_release(&key);
    buf_release(&cert);
    return r;
}

static int open_server(struct authority *a, struct buf *why)
{
    struct buf text = BUF_INIT;
    uint64_t now_ms = os_realtime_ms();
    int r = os_read_file(a->server_path, FILE_LIMIT, &text);
    bool good = false;

    if (r == 0) {
        split_server(a, buf_str(&text));
        good = cert_read(buf_str(&a->server_cert), &a->server_facts) == 0 &&
               server_is_good(a, now_ms);
    }
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    r = good ? 0 : make_server(a, now_ms, why);
    struct tls_config c = tls_config_of(a);
    return r < 0 ? r : tls_new(&c, &a->tls, why);
}

int authority_open(const struct authority_config *config, struct authority **ret, struct buf *why)
{
    struct authority *a = xcalloc(1, sizeof(*a));

    check(config->name_count > 0 && config->name_count <= LIMIT_CERT_NAMES);
    check(pthread_mutex_init(&a->lock, NULL) == 0);
    a->dir = xstrdup(config->dir);
    a->server_path = os_path_join(a->dir, "server.pem");
    a->names = xcalloc(config->name_count, sizeof(*a->names));
    for (; a->name_count < config->name_count; a->name_count++) {
        a->names[a->name_count] = xstrdup(config->names[a->name_count]);
    }
    a->worker_life_ms = config->worker_life_ms;
    a->server_life_ms = config->server_life_ms;
    int r = os_mkdir_p(a->dir, 0700);
    if (r < 0) {
        buf_addf(why, "cannot make %s: %s", a->dir, err_text(r));
    }
    r = r < 0 ? r : open_self(a, why);
    r = r < 0 ? r : open_server(a, why);
    if (r < 0) {
        authority_close(a);
        return r;
    }
    str_to_hex(a->facts.hash, SHA256_BYTES, a->pin);
    *ret = a;
    return 0;
}

void authority_close(struct authority *a)
{
    if (a == NULL) {
        return;
    }
    tls_free(a->tls);
    crypto_wipe(a->key.p, a->key.n);
    crypto_wipe(a->server_key.p, a->server_key.n);
    buf_release(&a->key);
    buf_release(&a->cert);
    buf_release(&a->server_key);
    buf_release(&a->server_cert);
    for (size_t i = 0; i < a->name_count; i++) {
        free(a->names[i]);
    }
    pthread_mutex_destroy(&a->lock);
    free(a->names);
    free(a->server_path);
    free(a->dir);
    free(a);
}

/* --- what others need of it --- */

struct str authority_certificate(const struct authority *a)
{
    return buf_str(&a->cert);
}

const char *authority_pin(const struct authority *a)
{
    return a->pin;
}

uint64_t authority_until_ms(const struct authority *a)
{
    return a->facts.until_ms;
}

struct tls *authority_tls(struct authority *a)
{
    return a->tls;
}

void authority_server(struct authority *a, struct buf *ret_certificate, struct buf *ret_key)
{
    pthread_mutex_lock(&a->lock);
    buf_add_str(ret_certificate, buf_str(&a->server_cert));
    buf_add_str(ret_key, buf_str(&a->server_key));
    pthread_mutex_unlock(&a->lock);
}

uint64_t authority_serial(struct authority *a)
{
    pthread_mutex_lock(&a->lock);
    uint64_t serial = a->serial;
    pthread_mutex_unlock(&a->lock);
    return serial;
}

int authority_tend(struct authority *a, uint64_t now_ms, struct buf *why)
{
    int r = 0;

    pthread_mutex_lock(&a->lock);
    if (now_ms + a->server_life_ms / 3 >= a->server_facts.until_ms) {
        r = make_server(a, now_ms, why);
        struct tls_config c = tls_config_of(a);
        r = r < 0 ? r : tls_replace(a->tls, &c, why);
        r = r < 0 ? r : 1;
    }
    pthread_mutex_unlock(&a->lock);
    return r;
}

uint64_t authority_worker_until_ms(const struct authority *a, uint64_t now_ms)
{
    return MIN(now_ms + a->worker_life_ms, a->facts.until_ms);
}

int authority_certify_worker(const struct authority *a, struct str request_pem, const char *name,
                             const uint8_t serial[CERT_SERIAL_BYTES], uint64_t now_ms,
                             uint64_t until_ms, struct buf *ret_pem)
{
    struct cert_order order = {.use = CERT_CLIENT,
                               .label = name,
                               .from_ms = begin_ms(now_ms, until_ms),
                               .until_ms = until_ms};
    memcpy(order.serial, serial, CERT_SERIAL_BYTES);
    return cert_issue(buf_str(&a->cert), buf_str(&a->key), request_pem, &order, ret_pem);
}
