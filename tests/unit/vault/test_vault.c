/* The signing key, and id tokens as their holders check them. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include "broker/vault/id_token.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"
#include "tests/kit/world.h"

#define ISSUER "http://127.0.0.1:7080"
#define NOW_MS 1700000000000u

static char *dir;
static char *path;

static int make_dir(void **state)
{
    dir = os_make_temp_dir("davit-vault");
    path = os_path_join(dir, "jwt.key");
    return dir == NULL;
}

static int remove_dir(void **state)
{
    int r = os_remove_tree(dir);
    free(path);
    free(dir);
    return r;
}

static struct signer *open_signer(void)
{
    struct buf why = BUF_INIT;
    struct signer *s;
    if (signer_open(path, &s, &why) < 0) {
        fail_msg("%s", buf_cstr(&why));
    }
    buf_release(&why);
    return s;
}

static void from_base64url(struct str text, struct buf *out)
{
    char *copy = xcalloc(1, text.n + 4);
    for (size_t i = 0; i < text.n; i++) {
        copy[i] = (char)(text.p[i] == '-' ? '+' : text.p[i] == '_' ? '/' : text.p[i]);
    }
    for (size_t n = text.n; n % 4 != 0; n++) {
        copy[n] = '=';
    }
    assert_int_equal(crypto_from_base64(str_from(copy), out), 0);
    free(copy);
}

static json_t *part_as_json(struct str part)
{
    struct buf text = BUF_INIT;
    from_base64url(part, &text);
    json_t *o = json_loadb(buf_cstr(&text), text.n, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    buf_release(&text);
    return o;
}

static BIGNUM *number_of(const json_t *key, const char *name)
{
    struct buf bytes = BUF_INIT;
    from_base64url(str_from(json_string_value(json_object_get(key, name))), &bytes);
    BIGNUM *n = BN_bin2bn((const uint8_t *)bytes.p, (int)bytes.n, NULL);
    buf_release(&bytes);
    return n;
}

/* The first key of the set, as a holder makes it. */
static EVP_PKEY *published_key(const struct signer *s)
{
    struct buf text = BUF_INIT;
    EVP_PKEY *pkey = NULL;
    signer_key_set(s, &text);
    json_t *set = json_loadb(buf_cstr(&text), text.n, 0, NULL);
    const json_t *key = json_array_get(json_object_get(set, "keys"), 0);
    assert_string_equal(json_string_value(json_object_get(key, "kid")), signer_key_id(s));
    BIGNUM *n = number_of(key, "n");
    BIGNUM *e = number_of(key, "e");
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    assert_true(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n));
    assert_true(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e));
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    assert_int_equal(EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params), 1);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);
    json_decref(set);
    buf_release(&text);
    return pkey;
}

static bool is_signed(const struct signer *s, struct str said, struct str signature)
{
    struct buf bytes = BUF_INIT;
    EVP_PKEY *key = published_key(s);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    from_base64url(signature, &bytes);
    assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    bool good = EVP_DigestVerify(ctx, (const uint8_t *)bytes.p, bytes.n, (const uint8_t *)said.p,
                                 said.n) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    buf_release(&bytes);
    return good;
}

/* The claims of a token whose signature holds. */
static json_t *verified(const struct signer *s, struct str token)
{
    struct str rest = token;
    struct str header, claims, signature;
    assert_true(str_split(&rest, '.', &header));
    assert_true(str_split(&rest, '.', &claims));
    assert_true(str_split(&rest, '.', &signature));
    assert_false(str_split(&rest, '.', &rest));
    json_t *head = part_as_json(header);
    assert_string_equal(json_string_value(json_object_get(head, "alg")), "RS256");
    assert_string_equal(json_string_value(json_object_get(head, "kid")), signer_key_id(s));
    json_decref(head);
    assert_true(is_signed(s, str_sub(token, 0, header.n + 1 + claims.n), signature));
    return part_as_json(claims);
}

static void the_key_is_made_once_and_stays(void **state)
{
    struct stat st;
    struct signer *first = open_signer();
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    struct signer *second = open_signer();
    assert_string_equal(signer_key_id(first), signer_key_id(second));
    assert_int_equal(strlen(signer_key_id(first)), 43);
    signer_close(first);
    signer_close(second);
}

static void the_published_key_checks_what_was_signed_and_nothing_else(void **state)
{
    struct signer *s = open_signer();
    struct buf token = BUF_INIT;
    signer_sign(s, STR("{\"sub\":\"me\"}"), &token);
    json_t *claims = verified(s, buf_str(&token));
    assert_string_equal(json_string_value(json_object_get(claims, "sub")), "me");
    json_decref(claims);
    struct str all = buf_str(&token);
    size_t said = token.n;
    while (all.p[said - 1] != '.') {
        said--;
    }
    token.p[said - 2] ^= 1; /* of the claims */
    assert_false(is_signed(s, str_sub(all, 0, said - 1), str_sub(all, said, all.n)));
    buf_release(&token);
    signer_close(s);
}

static void a_file_that_is_no_key_is_refused_and_kept(void **state)
{
    struct buf why = BUF_INIT;
    struct buf text = BUF_INIT;
    struct signer *s;
    char *other = os_path_join(dir, "other.key");
    assert_int_equal(os_write_file(other, "hello\n", 6, 0600), 0);
    assert_int_equal(signer_open(other, &s, &why), -E_CORRUPT);
    assert_non_null(strstr(buf_cstr(&why), other));
    assert_int_equal(os_read_file(other, 100, &text), 0);
    assert_string_equal(buf_cstr(&text), "hello\n");
    buf_release(&why);
    buf_release(&text);
    free(other);
}

/* --- id tokens --- */

/* A running job of a pipeline on main, and its spec. */
static Pb__JobSpec *spec_of_job(struct world *w)
{
    Pb__JobSpec *spec;
    Pb__Plan *plan = plan_from_text(tx_arena(w->tx), "deploy: stage=deploy timeout=60s\n");
    Pb__EnvironmentSpec *e = arena_alloc(tx_arena(w->tx), sizeof(*e));
    pb__environment_spec__init(e);
    e->name = (char *)"production";
    plan->jobs[0]->environment = e;
    assert_int_equal(world_submit(w, plan, "main", "0123456789012345678901234567890123456789"), 0);
    uint64_t job_id = world_job_id(w, w->reply.pipeline_id, "deploy");
    uint64_t worker = world_worker(w, "w", "", "shell", 1, true);
    assert_int_equal(world_assign(w, job_id, worker), 0);
    assert_int_equal(core_job_spec(w->tx, job_id, "token", &spec), 0);
    return spec;
}

static void want_token(struct world *w, Pb__JobSpec *spec, const char *const *audiences, size_t n)
{
    struct arena *a = tx_arena(w->tx);
    Pb__IdTokenSpec *t = arena_alloc(a, sizeof(*t));
    pb__id_token_spec__init(t);
    t->name = (char *)"ID_TOKEN";
    t->n_audiences = n;
    t->audiences = arena_array(a, n, sizeof(*t->audiences));
    for (size_t i = 0; i < n; i++) {
        t->audiences[i] = pb_bytes(a, str_from(audiences[i]));
    }
    spec->n_id_tokens = 1;
    spec->id_tokens = arena_array(a, 1, sizeof(*spec->id_tokens));
    spec->id_tokens[0] = t;
}

static const char *claim(const json_t *claims, const char *name)
{
    const char *text = json_string_value(json_object_get(claims, name));
    return text != NULL ? text : "";
}

static void check_claims(const json_t *claims, const Pb__JobSpec *spec)
{
    char id[32];
    snprintf(id, sizeof(id), "%" PRIu64, spec->key->job_id);
    assert_string_equal(claim(claims, "iss"), ISSUER);
    assert_string_equal(claim(claims, "job_id"), id);
    assert_string_equal(claim(claims, "project_path"), spec->project);
    assert_string_equal(claim(claims, "ref"), "main");
    assert_string_equal(claim(claims, "ref_type"), "branch");
    assert_string_equal(claim(claims, "ref_path"), "refs/heads/main");
    assert_string_equal(claim(claims, "ref_protected"), "false");
    assert_string_equal(claim(claims, "environment"), "production");
    assert_string_equal(claim(claims, "environment_action"), "start");
    struct buf sub = BUF_INIT;
    buf_addf(&sub, "project_path:%s:ref_type:branch:ref:main", spec->project);
    assert_string_equal(claim(claims, "sub"), buf_cstr(&sub));
    buf_release(&sub);
    json_int_t now = NOW_MS / 1000;
    assert_int_equal(json_integer_value(json_object_get(claims, "iat")), now);
    assert_in_range(json_integer_value(json_object_get(claims, "nbf")), now - 60, now);
    assert_int_equal(json_integer_value(json_object_get(claims, "exp")), now + 60 + 300);
    assert_int_equal(strlen(claim(claims, "jti")), 32);
    /* Every claim is one of those that are announced. */
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)claims, name, value)
    {
        const char *const *known = id_token_claims;
        while (*known != NULL && strcmp(*known, name) != 0) {
            known++;
        }
        assert_non_null(*known);
    }
}

static void a_token_says_what_the_store_knows_of_the_job(void **state)
{
    struct signer *s = open_signer();
    struct world w;
    world_init(&w);
    Pb__JobSpec *spec = spec_of_job(&w);
    size_t before = spec->n_variables;
    want_token(&w, spec, (const char *[]){"https://$CI_JOB_NAME.example"}, 1);
    assert_int_equal(id_tokens_issue(s, w.tx, ISSUER, NOW_MS, spec), 0);
    assert_int_equal(spec->n_id_tokens, 0);
    assert_int_equal(spec->n_variables, before + 1);
    const Pb__Variable *v = spec->variables[before];
    assert_string_equal(v->name, "ID_TOKEN");
    assert_true(v->raw && v->masked && !v->file);
    json_t *claims = verified(s, pb_str(v->value));
    assert_string_equal(claim(claims, "aud"), "https://deploy.example");
    assert_string_equal(claim(claims, "deployment_tier"), "production"); /* by its name */
    check_claims(claims, spec);
    json_decref(claims);
    world_release(&w);
    signer_close(s);
}

static void several_audiences_are_a_list(void **state)
{
    struct signer *s = open_signer();
    struct world w;
    world_init(&w);
    Pb__JobSpec *spec = spec_of_job(&w);
    want_token(&w, spec, (const char *[]){"a", "b"}, 2);
    assert_int_equal(id_tokens_issue(s, w.tx, ISSUER, NOW_MS, spec), 0);
    json_t *claims = verified(s, pb_str(spec->variables[spec->n_variables - 1]->value));
    const json_t *aud = json_object_get(claims, "aud");
    assert_int_equal(json_array_size(aud), 2);
    assert_string_equal(json_string_value(json_array_get(aud, 1)), "b");
    json_decref(claims);
    world_release(&w);
    signer_close(s);
}

static void an_audience_without_end_is_refused(void **state)
{
    struct signer *s = open_signer();
    struct world w;
    char *long_text = xcalloc(1, LIMIT_ID_TOKEN_AUDIENCE + 2);
    memset(long_text, 'a', LIMIT_ID_TOKEN_AUDIENCE + 1);
    world_init(&w);
    Pb__JobSpec *spec = spec_of_job(&w);
    size_t before = spec->n_variables;
    want_token(&w, spec, (const char *[]){"ok", long_text}, 2);
    assert_int_equal(id_tokens_issue(s, w.tx, ISSUER, NOW_MS, spec), -E_LIMIT);
    assert_int_equal(spec->n_variables, before);
    want_token(&w, spec, (const char *[]){"\xff"}, 1);
    assert_int_equal(id_tokens_issue(s, w.tx, ISSUER, NOW_MS, spec), -E_INVALID);
    free(long_text);
    world_release(&w);
    signer_close(s);
}

/* Variables make a short audience long, so the plan alone does not tell. */
static void tokens_that_do_not_fit_the_message_are_refused(void **state)
{
    struct signer *s = open_signer();
    struct world w;
    char long_text[LIMIT_ID_TOKEN_AUDIENCE + 1] = "";
    const char *audiences[LIMIT_ID_TOKEN_AUDIENCES];
    world_init(&w);
    memset(long_text, 'a', LIMIT_ID_TOKEN_AUDIENCE);
    Pb__JobSpec *spec = spec_of_job(&w);
    for (size_t i = 0; i < ARRAY_LEN(audiences); i++) {
        audiences[i] = long_text;
    }
    want_token(&w, spec, audiences, ARRAY_LEN(audiences));
    Pb__IdTokenSpec *many[LIMIT_ID_TOKENS];
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        many[i] = spec->id_tokens[0];
    }
    spec->id_tokens = many;
    spec->n_id_tokens = ARRAY_LEN(many);
    size_t before = spec->n_variables;
    assert_int_equal(id_tokens_issue(s, w.tx, ISSUER, NOW_MS, spec), -E_TOO_BIG);
    assert_int_equal(spec->n_variables, before);
    assert_int_equal(spec->n_id_tokens, LIMIT_ID_TOKENS);
    world_release(&w);
    signer_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_key_is_made_once_and_stays),
        cmocka_unit_test(the_published_key_checks_what_was_signed_and_nothing_else),
        cmocka_unit_test(a_file_that_is_no_key_is_refused_and_kept),
        cmocka_unit_test(a_token_says_what_the_store_knows_of_the_job),
        cmocka_unit_test(several_audiences_are_a_list),
        cmocka_unit_test(an_audience_without_end_is_refused),
        cmocka_unit_test(tokens_that_do_not_fit_the_message_are_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
