#include "common/base.h"

#include "broker/vault/keyring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "broker/vault/transit.h"
#include "common/crypto.h"
#include "common/os.h"

#define TEXT_LIMIT     (16u * KIB)
#define COMMAND_MS     60000u
#define ID_TEXT        "davit master key"
#define TRANSIT_PREFIX "transit:"

static const char head[] =
    "# Master keys of a davitd: they open its stored variables. The first one is in use.\n"
    "# Keep a copy apart from the backups of the store: neither is of use without the other.\n";

static void set_id(struct master_key *k)
{
    uint8_t mac[SHA256_BYTES];

    crypto_hmac_sha256(str_of(k->bytes, sizeof(k->bytes)), STR(ID_TEXT), mac);
    memcpy(k->id, mac, sizeof(k->id));
}

/* The name of the Vault's key; NULL: the keys stand in the clear. */
static const char *transit_key(const struct keyring *k)
{
    return str_starts(str_from(k->source), STR(TRANSIT_PREFIX)) ? k->source + strlen(TRANSIT_PREFIX)
                                                                : NULL;
}

/* For messages: a command may hold what it is not to tell. */
static const char *label(const struct keyring *k)
{
    return str_starts(str_from(k->source), STR("command:")) ? "the command" : k->source;
}

/* --- the text --- */

static int read_line(struct keyring *k, struct str line, struct buf *why)
{
    struct buf bytes = BUF_INIT;
    const char *transit = transit_key(k);
    struct master_key *key = &k->keys[k->count];
    int r = transit != NULL ? transit_decrypt(transit, line, &bytes, why)
                            : crypto_from_base64(line, &bytes);

    if (r == 0 && bytes.n != MASTER_KEY_BYTES) {
        r = -E_CORRUPT;
    }
    if (r == 0) {
        memcpy(key->bytes, bytes.p, MASTER_KEY_BYTES);
        set_id(key);
        k->count++;
    } else if (transit == NULL || why->n == 0) {
        buf_addf(why, "%s: key %zu is not the base64 of %u bytes", label(k), k->count + 1,
                 MASTER_KEY_BYTES);
        r = -E_CORRUPT;
    }
    crypto_wipe(bytes.p, bytes.n);
    buf_release(&bytes);
    return r;
}

static int read_text(struct keyring *k, struct str text, struct buf *why)
{
    struct str line;

    while (str_split(&text, '\n', &line)) {
        line = str_trim(line);
        if (line.n == 0 || line.p[0] == '#') {
            continue;
        }
        if (k->count == LIMIT_MASTER_KEYS) {
            buf_addf(why, "%s: more than %u keys", label(k), LIMIT_MASTER_KEYS);
            return -E_LIMIT;
        }
        int r = read_line(k, line, why);
        if (r < 0) {
            return r;
        }
        if (keyring_find(k, str_of(k->keys[k->count - 1].id, MASTER_KEY_ID_BYTES)) !=
            &k->keys[k->count - 1]) {
            buf_addf(why, "%s: key %zu stands twice", label(k), k->count);
            return -E_CORRUPT;
        }
    }
    if (k->count == 0) {
        buf_addf(why, "%s: there is no key in it", label(k));
        return -E_CORRUPT;
    }
    return 0;
}

static int write_key(const struct keyring *k, const struct master_key *key, struct buf *out,
                     struct buf *why)
{
    const struct str bytes = str_of(key->bytes, sizeof(key->bytes));
    int r = 0;

    if (transit_key(k) != NULL) {
        r = transit_encrypt(transit_key(k), bytes, out, why);
    } else {
        crypto_to_base64(bytes, out);
    }
    buf_add_char(out, '\n');
    return r;
}

/* The file is replaced as a whole, or stays as it was. */
static int write_file(const struct keyring *k, const struct master_key *keys, size_t count,
                      struct buf *why)
{
    struct buf text = BUF_INIT;
    int r = 0;

    buf_addz(&text, head);
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = write_key(k, &keys[i], &text, why);
    }
    if (r == 0) {
        r = os_write_file(k->path, text.p, text.n, 0600);
        if (r < 0) {
            buf_addf(why, "cannot write %s: %s", k->path, err_text(r));
        }
    }
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    return r;
}

/* --- the sources --- */

static int read_file(struct keyring *k, struct buf *text, struct buf *why)
{
    struct stat st;
    int r = os_read_file(k->path, TEXT_LIMIT, text);

    if (r == -E_NOT_FOUND) {
        r = keyring_add(k, why);
        return r;
    }
    if (r < 0) {
        buf_addf(why, "cannot read the master keys in %s: %s", k->path, err_text(r));
        return r;
    }
    if (stat(k->path, &st) == 0 && (st.st_mode & 077) != 0) {
        buf_addf(why, "%s: others may read the master keys: chmod 600", k->path);
        return -E_FORBIDDEN;
    }
    return read_text(k, buf_str(text), why);
}

static int read_environment(struct keyring *k, const char *name, struct buf *text, struct buf *why)
{
    char *value = getenv(name);

    if (value == NULL) {
        buf_addf(why, "the master key is to be in the environment's %s, which is not set", name);
        return -E_NOT_FOUND;
    }
    for (const char *p = value; *p != '\0'; p++) {
        buf_add_char(text, *p == ' ' || *p == ',' ? '\n' : *p);
    }
    crypto_wipe(value, strlen(value)); /* /proc/PID/environ shows it, too */
    unsetenv(name);
    return read_text(k, buf_str(text), why);
}

static int read_command(struct keyring *k, const char *command, struct buf *text, struct buf *why)
{
    const char *argv[] = {"/bin/sh", "-c", command, NULL};
    struct os_spawn spawn = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .new_session = true};
    int status = 0;
    int r = os_run_within(&spawn, COMMAND_MS, NULL, TEXT_LIMIT, text, &status);

    if (r == 0 && status != 0) {
        r = -E_FAILED;
    }
    if (r < 0) {
        buf_addf(why, "the command that is to print the master key failed: %s", err_text(r));
        return r;
    }
    return read_text(k, buf_str(text), why);
}

static int read_source(struct keyring *k, const char *default_path, struct buf *text,
                       struct buf *why)
{
    struct str rest = str_from(k->source);
    struct str kind = STR_NULL;

    str_split(&rest, ':', &kind);
    const char *value = rest.n > 0 ? rest.p : ""; /* the end of a C string */
    if (str_eqz(kind, "file") && rest.n > 0) {
        k->path = xstrdup(value);
        return read_file(k, text, why);
    }
    if (str_eqz(kind, "transit") && rest.n > 0) {
        k->path = xstrdup(default_path);
        return read_file(k, text, why);
    }
    if (str_eqz(kind, "env") && rest.n > 0) {
        return read_environment(k, value, text, why);
    }
    if (str_eqz(kind, "command") && rest.n > 0) {
        return read_command(k, value, text, why);
    }
    buf_addz(why, "a master key comes from file:PATH, env:NAME, command:TEXT or transit:NAME");
    return -E_USAGE;
}

int keyring_open(const char *source, const char *default_path, struct keyring *ret, struct buf *why)
{
    struct buf text = BUF_INIT;
    struct buf usual = BUF_INIT;
    struct keyring k = {.count = 0};

    buf_addf(&usual, "file:%s", default_path);
    k.source = xstrdup(source != NULL ? source : usual.p);
    int r = read_source(&k, default_path, &text, why);
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    buf_release(&usual);
    if (r < 0) {
        keyring_close(&k);
        return r;
    }
    *ret = k;
    crypto_wipe(k.keys, sizeof(k.keys));
    return 0;
}

void keyring_close(struct keyring *k)
{
    crypto_wipe(k->keys, sizeof(k->keys));
    free(k->source);
    free(k->path);
    *k = (struct keyring){.count = 0};
}

const struct master_key *keyring_find(const struct keyring *k, struct str id)
{
    for (size_t i = 0; i < k->count; i++) {
        if (str_eq(str_of(k->keys[i].id, MASTER_KEY_ID_BYTES), id)) {
            return &k->keys[i];
        }
    }
    return NULL;
}

bool keyring_is_ours(const struct keyring *k)
{
    return k->path != NULL;
}

/* Takes the keys over once they are on the disk. */
static int replace(struct keyring *k, struct master_key *keys, size_t count, struct buf *why)
{
    int r = write_file(k, keys, count, why);

    if (r == 0) {
        crypto_wipe(k->keys, sizeof(k->keys));
        memcpy(k->keys, keys, count * sizeof(*keys));
        k->count = count;
    }
    return r;
}

int keyring_add(struct keyring *k, struct buf *why)
{
    struct master_key keys[LIMIT_MASTER_KEYS];

    if (!keyring_is_ours(k)) {
        buf_addf(why,
                 "the master key comes from %s: let that give a new key before the old one, and "
                 "start davitd again",
                 label(k));
        return -E_UNSUPPORTED;
    }
    if (k->count == LIMIT_MASTER_KEYS) {
        buf_addf(why, "there are %u master keys already", LIMIT_MASTER_KEYS);
        return -E_LIMIT;
    }
    os_random(keys[0].bytes, sizeof(keys[0].bytes));
    set_id(&keys[0]);
    memcpy(keys + 1, k->keys, k->count * sizeof(*keys));
    int r = replace(k, keys, k->count + 1, why);
    crypto_wipe(keys, sizeof(keys));
    return r;
}

int keyring_keep(struct keyring *k, const bool *keep, struct buf *why)
{
    struct master_key keys[LIMIT_MASTER_KEYS];
    size_t n = 0;
    int r = 0;

    for (size_t i = 0; i < k->count; i++) {
        if (i == 0 || keep[i]) {
            keys[n++] = k->keys[i];
        }
    }
    if (n < k->count && keyring_is_ours(k)) {
        r = replace(k, keys, n, why);
    }
    crypto_wipe(keys, sizeof(keys));
    return r;
}
