#include "common/base.h"

#include "broker/config/served.h"

#include <sys/stat.h>

#include "common/cert.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"

static int read_part(enum option_id which, const char *path, size_t limit, struct buf *out,
                     struct buf *why)
{
    int r = os_read_file(path, limit, out);

    if (r < 0) {
        buf_addf(why, "%s: %s: cannot read it: %s\n", option_info(which)->name, path, err_text(r));
    }
    return r;
}

/* A group may: that is how a key of root's is given to davitd. */
static int check_mode(const char *path, struct buf *why)
{
    struct stat st;

    if (stat(path, &st) == 0 && (st.st_mode & S_IRWXO) != 0) {
        buf_addf(why, "%s: %s: everybody on this machine may use it (mode %04o): chmod o= %s\n",
                 option_info(OPTION_tls_key)->name, path, (unsigned)(st.st_mode & 07777), path);
        return -E_FORBIDDEN;
    }
    return 0;
}

static int read_both(const struct options *o, struct served *s, struct buf *why)
{
    enum cert_part part;
    struct buf what = BUF_INIT;
    int r = read_part(OPTION_tls_cert, o->tls_cert, LIMIT_CERT_CHAIN * CERT_PEM_MAX, &s->chain,
                      why);

    r = r < 0 ? r : check_mode(o->tls_key, why);
    r = r < 0 ? r : read_part(OPTION_tls_key, o->tls_key, CERT_PEM_MAX, &s->key, why);
    if (r < 0) {
        return r;
    }
    r = cert_check_chain(buf_str(&s->chain), buf_str(&s->key), os_realtime_ms(), &s->until_ms,
                         &part, &what);
    if (r < 0) {
        const bool chain = part == CERT_PART_CHAIN;
        buf_addf(why, "%s: %s: %s\n", option_info(chain ? OPTION_tls_cert : OPTION_tls_key)->name,
                 chain ? o->tls_cert : o->tls_key, buf_cstr(&what));
    }
    buf_release(&what);
    return r;
}

int served_load(const struct options *o, struct served *ret, struct buf *why)
{
    struct served s = {0};

    if (o->tls_cert == NULL && o->tls_key == NULL) {
        *ret = s;
        return 0;
    }
    if (o->tls_cert == NULL || o->tls_key == NULL) {
        buf_addz(why, o->tls_cert == NULL ? "tls-key needs tls-cert beside it\n"
                                          : "tls-cert needs tls-key beside it\n");
        return -E_USAGE;
    }
    if (!str_starts(str_from(o->http), STR("https://"))) {
        buf_addf(why, "tls-cert: nobody would see it, as the API is at %s: http needs https://\n",
                 o->http);
        return -E_USAGE;
    }
    int r = read_both(o, &s, why);
    if (r < 0) {
        served_release(&s);
        return r;
    }
    *ret = s;
    return 0;
}

void served_release(struct served *s)
{
    if (s->key.n > 0) {
        crypto_wipe(s->key.p, s->key.n);
    }
    buf_release(&s->key);
    buf_release(&s->chain);
}
