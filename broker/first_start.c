#include "common/base.h"

#include "broker/first_start.h"

#include <stdlib.h>

#include "broker/core/query.h"
#include "common/crypto.h"
#include "common/log.h"
#include "common/os.h"

#define TOKEN_FILE_LIMIT 256u

static int submit(struct turn *turn, struct post *p, struct buf *why)
{
    struct reply reply;
    int r = turn_call(turn, p, &reply);

    if (r < 0) {
        buf_addf(why, "first start: %s", err_text(r));
    }
    return r;
}

static int init_store(struct turn *turn, struct buf *why)
{
    struct post *p = post_new("davitd");
    Pb__InitStore *init = arena_alloc(post_arena(p), sizeof(*init));
    uint8_t id[16];
    uint8_t key[32];

    os_random(id, sizeof(id));
    os_random(key, sizeof(key));
    pb__init_store__init(init);
    init->store_id = pb_bytes(post_arena(p), str_of(id, sizeof(id)));
    init->job_token_key = pb_bytes(post_arena(p), str_of(key, sizeof(key)));
    crypto_wipe(key, sizeof(key));
    post_command(p)->body_case = PB__COMMAND__BODY_INIT_STORE;
    post_command(p)->init_store = init;
    return submit(turn, p, why);
}

static int add_token(struct turn *turn, const char *role, struct str token, struct buf *why)
{
    struct post *p = post_new("davitd");
    Pb__TokenAdd *add = arena_alloc(post_arena(p), sizeof(*add));
    uint8_t hash[SHA256_BYTES];

    crypto_sha256(token.p, token.n, hash);
    pb__token_add__init(add);
    add->hash = pb_bytes(post_arena(p), str_of(hash, sizeof(hash)));
    add->name = arena_strdup(post_arena(p), str_from(role));
    add->role = arena_strdup(post_arena(p), str_from(role));
    post_command(p)->body_case = PB__COMMAND__BODY_TOKEN_ADD;
    post_command(p)->token_add = add;
    return submit(turn, p, why);
}

static bool has_role(struct tx *tx, const char *role)
{
    struct cursor c;
    bool found = false;

    for (tx_seek(&c, tx, T_TOKEN, STR_NULL, NULL); c.valid && !found; tx_next(&c)) {
        const Pb__TokenRecord *record = token_get(tx, (const uint8_t *)c.key.p);
        found = record != NULL && str_eqz(str_from(record->role), role);
    }
    cursor_end(&c);
    return found;
}

/* The file is written before the store knows the token: a start that was cut off in between finds
 * the file and goes on with it. */
static int token_text(const char *path, const char *role, struct buf *out, struct buf *why)
{
    int r = os_read_file(path, TOKEN_FILE_LIMIT, out);

    if (r == 0) {
        return 0;
    }
    char prefix[] = "dv?_";
    prefix[2] = role[0];
    char *token = crypto_token(prefix);
    buf_clear(out);
    buf_addf(out, "%s\n", token);
    r = os_write_file(path, out->p, out->n, 0600);
    crypto_wipe(token, strlen(token));
    free(token);
    if (r < 0) {
        buf_addf(why, "cannot write %s: %s", path, err_text(r));
    }
    return r;
}

static int make_token(const char *dir, const char *role, struct turn *turn, struct buf *why)
{
    struct buf name = BUF_INIT;
    struct buf text = BUF_INIT;

    buf_addf(&name, "%s.token", role);
    char *path = os_path_join(dir, buf_cstr(&name));
    int r = token_text(path, role, &text, why);
    if (r == 0) {
        r = add_token(turn, role, str_trim(buf_str(&text)), why);
    }
    if (r == 0) {
        log_info("main: the %s token is in %s", role, path);
    }
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    buf_release(&name);
    free(path);
    return r;
}

int first_start(const char *dir, struct store *store, struct turn *turn, struct buf *why)
{
    struct tx *tx;
    int r = turn_fresh(turn);

    r = r < 0 ? r : tx_begin(store, false, &tx);
    if (r < 0) {
        buf_addf(why, "cannot read the store: %s", err_text(r));
        return r;
    }
    bool initialised = meta_get(tx) != NULL;
    static const char *const roles[] = {"admin", "user", "worker"};
    bool there[ARRAY_LEN(roles)];
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
        there[i] = has_role(tx, roles[i]);
    }
    r = tx_error(tx);
    tx_abort(tx);
    if (r == 0 && !initialised) {
        r = init_store(turn, why);
    }
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(roles); i++) {
        r = there[i] ? 0 : make_token(dir, roles[i], turn, why);
    }
    return r;
}
