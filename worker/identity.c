#include "common/base.h"

#include "worker/identity.h"

#include <stdlib.h>

#include "common/os.h"

#define FILE_LIMIT  (2u * CERT_PEM_MAX)
#define CERT_BEGINS "-----BEGIN CERTIFICATE-----"

static int read_file(const struct identity *id, const char *name, struct buf *out, struct buf *why)
{
    char *path = os_path_join(id->dir, name);
    int r = os_read_file(path, FILE_LIMIT, out);

    if (r < 0) {
        buf_addf(why, "cannot read %s: %s", path, err_text(r));
    }
    free(path);
    return r;
}

static int write_file(const struct identity *id, const char *name, struct str text, struct buf *why)
{
    char *path = os_path_join(id->dir, name);
    int r = os_write_file(path, text.p, text.n, 0600);

    if (r < 0) {
        buf_addf(why, "cannot write %s: %s", path, err_text(r));
    }
    free(path);
    return r;
}

static void read_joined(struct identity *id, struct str text)
{
    const struct {
        const char *name;
        char **field;
    } fields[] = {{"name=", &id->name},
                  {"pool=", &id->pool},
                  {"fleet=", &id->fleet_url},
                  {"api=", &id->api_url}};
    struct str line;

    while (str_split(&text, '\n', &line)) {
        for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
            struct str name = str_from(fields[i].name);
            if (str_starts(line, name) && *fields[i].field == NULL) {
                *fields[i].field = str_dup(str_sub(line, name.n, line.n));
            }
        }
    }
}

static int read_pem(struct identity *id, struct buf *why)
{
    struct buf both = BUF_INIT;
    int r = read_file(id, "identity.pem", &both, why);
    ptrdiff_t at = r < 0 ? -1 : str_find(buf_str(&both), STR(CERT_BEGINS));

    if (at > 0) {
        buf_add(&id->key, both.p, (size_t)at);
        buf_add(&id->certificate, both.p + at, both.n - (size_t)at);
    }
    crypto_wipe(both.p, both.n);
    buf_release(&both);
    return r;
}

static int check_all(struct identity *id, struct buf *why)
{
    if (cert_read(buf_str(&id->certificate), &id->facts) < 0 ||
        !cert_has_key(buf_str(&id->certificate), buf_str(&id->key)) || id->name == NULL ||
        id->pool == NULL || id->fleet_url == NULL || id->api_url == NULL) {
        buf_addf(why, "what lies in %s is damaged: remove it and join again", id->dir);
        return -E_CORRUPT;
    }
    if (id->facts.until_ms <= os_realtime_ms()) {
        char text[32];
        buf_addf(why, "the certificate of this worker has expired (%s): join again",
                 str_time(id->facts.until_ms, text, sizeof(text)));
        return -E_UNAUTHORIZED;
    }
    return 0;
}

int identity_load(const char *state, struct identity *ret, struct buf *why)
{
    struct identity id = {.dir = os_path_join(state, "tls")};
    struct buf joined = BUF_INIT;
    char *path = os_path_join(id.dir, "identity.pem");
    int r = os_exists(path) ? 0 : -E_NOT_FOUND;

    free(path);
    id.ca_path = os_path_join(id.dir, "ca.pem");
    if (r == 0) {
        r = read_pem(&id, why);
        r = r < 0 ? r : read_file(&id, "ca.pem", &id.authority, why);
        r = r < 0 ? r : read_file(&id, "joined", &joined, why);
        read_joined(&id, buf_str(&joined));
        r = r < 0 ? r : check_all(&id, why);
        if (r == -E_NOT_FOUND) { /* one of the files: that is another thing */
            r = -E_CORRUPT;
        }
    }
    buf_release(&joined);
    if (r < 0) {
        identity_release(&id);
        return r;
    }
    *ret = id;
    return 0;
}

static int write_pem(const struct identity *id, struct str key, struct str certificate,
                     struct buf *why)
{
    struct buf both = BUF_INIT;

    buf_add_str(&both, key);
    buf_add_str(&both, certificate);
    int r = write_file(id, "identity.pem", buf_str(&both), why);
    crypto_wipe(both.p, both.n);
    buf_release(&both);
    return r;
}

int identity_save(const struct identity *id, struct buf *why)
{
    struct buf joined = BUF_INIT;
    int r = os_mkdir_p(id->dir, 0700);

    if (r < 0) {
        buf_addf(why, "cannot make %s: %s", id->dir, err_text(r));
    }
    buf_addf(&joined, "name=%s\npool=%s\nfleet=%s\napi=%s\n", id->name, id->pool, id->fleet_url,
             id->api_url);
    r = r < 0 ? r : write_file(id, "ca.pem", buf_str(&id->authority), why);
    r = r < 0 ? r : write_file(id, "joined", buf_str(&joined), why);
    r = r < 0 ? r : write_pem(id, buf_str(&id->key), buf_str(&id->certificate), why);
    buf_release(&joined);
    return r;
}

static void set(struct buf *b, struct str text)
{
    crypto_wipe(b->p, b->n);
    buf_clear(b);
    buf_add_str(b, text);
}

int identity_renew(struct identity *id, struct str key, struct str certificate, struct buf *why)
{
    struct cert_facts facts;

    if (cert_read(certificate, &facts) < 0 || !cert_has_key(certificate, key) ||
        !cert_is_by(certificate, buf_str(&id->authority))) {
        buf_addz(why, "the broker sent a certificate that is not for our key, or by another");
        return -E_INVALID;
    }
    int r = write_pem(id, key, certificate, why);
    if (r < 0) {
        return r;
    }
    set(&id->key, key);
    set(&id->certificate, certificate);
    id->facts = facts;
    return 0;
}

void identity_release(struct identity *id)
{
    crypto_wipe(id->key.p, id->key.n);
    buf_release(&id->key);
    buf_release(&id->certificate);
    buf_release(&id->authority);
    free(id->dir);
    free(id->ca_path);
    free(id->name);
    free(id->pool);
    free(id->fleet_url);
    free(id->api_url);
    *id = (struct identity){.dir = NULL};
}

struct tls_config identity_tls(const struct identity *id, const char *host)
{
    return (struct tls_config){.side = TLS_CLIENT,
                               .authority = buf_str(&id->authority),
                               .certificate = buf_str(&id->certificate),
                               .key = buf_str(&id->key),
                               .host = host};
}

uint64_t identity_renew_ms(const struct identity *id)
{
    const struct cert_facts *f = &id->facts;

    return f->from_ms + (f->until_ms - f->from_ms) / 3 * 2;
}
