#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "worker/engine/auth.h"

/* What the header says, out of its alphabet for URLs. */
static int look(const char *config, const char *registry, struct buf *ret_json)
{
    struct buf header = BUF_INIT;
    struct buf why = BUF_INIT;
    int r = auth_header(str_from(config), str_from(registry), &header, &why);
    for (size_t i = 0; i < header.n; i++) {
        assert_true(header.p[i] != '+' && header.p[i] != '/');
        header.p[i] = header.p[i] == '-' ? '+' : header.p[i] == '_' ? '/' : header.p[i];
    }
    if (r == 0) {
        assert_int_equal(crypto_from_base64(buf_str(&header), ret_json), 0);
    } else {
        assert_int_equal(header.n, 0);
    }
    assert_int_equal(r == -E_INVALID, why.n > 0);
    assert_null(strstr(buf_cstr(&why), "c2VjcmV0")); /* what is in there is nobody's business */
    buf_release(&header);
    buf_release(&why);
    return r;
}

static void assert_found(const char *config, const char *registry, const char *json)
{
    struct buf found = BUF_INIT;
    assert_int_equal(look(config, registry, &found), 0);
    assert_string_equal(buf_cstr(&found), json);
    buf_release(&found);
}

static void the_registry_of_the_image_is_found(void **state)
{
    (void)state;
    /* user:pass:word */
    const char *two = "{\"auths\": {\"other\": {\"auth\": \"eDp5\"}, \"https://host:5000/v2/\": "
                      "{\"auth\": \"dXNlcjpwYXNzOndvcmQ=\"}}}";
    assert_found(two, "host:5000",
                 "{\"username\":\"user\",\"password\":\"pass:word\",\"serveraddress\":\"host:"
                 "5000\"}");
    assert_int_equal(look(two, "host", NULL), -E_NOT_FOUND);
    assert_int_equal(look(two, "docker.io", NULL), -E_NOT_FOUND);
}

static void docker_hub_has_more_than_one_name(void **state)
{
    (void)state;
    assert_found("{\"auths\": {\"https://index.docker.io/v1/\": {\"username\": \"u\", "
                 "\"password\": \"p\"}}}",
                 "docker.io",
                 "{\"username\":\"u\",\"password\":\"p\",\"serveraddress\":\"docker.io\"}");
}

static void a_token_may_stand_for_a_password(void **state)
{
    (void)state;
    assert_found("{\"auths\": {\"h.x\": {\"identitytoken\": \"t\"}}}", "h.x",
                 "{\"identitytoken\":\"t\",\"serveraddress\":\"h.x\"}");
}

static void what_is_wrong_is_said_without_what_is_secret(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{",
        "{\"auths\": {\"h\": {\"auth\": \"c2VjcmV0\"}}}", /* no colon in it */
        "{\"auths\": {\"h\": {\"auth\": \"%\"}}}",
        "{\"auths\": {\"h\": {\"email\": \"x\"}}}",
        "{\"auths\": {\"h\": {\"auth\": 5}}}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(look(bad[i], "h", NULL), -E_INVALID);
    }
    /* As docker leaves it where a helper of the desktop keeps the credentials. */
    assert_int_equal(look("{\"auths\": {\"h\": {}}, \"credsStore\": \"x\"}", "h", NULL),
                     -E_NOT_FOUND);
    assert_int_equal(look("{\"auths\": []}", "h", NULL), -E_NOT_FOUND);
    struct buf big = BUF_INIT;
    buf_space(&big, LIMIT_AUTH_CONFIG + 1);
    memset(big.p, ' ', LIMIT_AUTH_CONFIG + 1);
    buf_advance(&big, LIMIT_AUTH_CONFIG + 1);
    assert_int_equal(look(buf_cstr(&big), "h", NULL), -E_INVALID);
    buf_release(&big);
}

static void assert_helper(const char *config, const char *registry, const char *program)
{
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    assert_int_equal(auth_helper(str_from(config), str_from(registry), &out, &why), 0);
    assert_string_equal(buf_cstr(&out), program);
    buf_release(&out);
    buf_release(&why);
}

static void helpers_are_named_for_registries(void **state)
{
    (void)state;
    const char
        *both = "{\"credsStore\": \"pass\", \"credHelpers\": {\"host:5000\": \"ecr-login\"}}";
    static const char *const bad[] = {"{\"credsStore\": \"../sh\"}", "{\"credsStore\": \"a b\"}",
                                      "{\"credHelpers\": {\"h\": \"x;y\"}}", "[]"};
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    assert_helper(both, "host:5000", "docker-credential-ecr-login");
    assert_helper(both, "docker.io", "docker-credential-pass");
    assert_int_equal(auth_helper(STR("{\"auths\": {}}"), STR("h"), &out, &why), -E_NOT_FOUND);
    assert_int_equal(why.n, 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        buf_clear(&why);
        assert_int_equal(auth_helper(str_from(bad[i]), STR("h"), &out, &why), -E_INVALID);
        assert_true(why.n > 0 && out.n == 0);
    }
    assert_string_equal(auth_server(STR("docker.io")).p, "https://index.docker.io/v1/");
    assert_string_equal(auth_server(STR("h:1")).p, "h:1");
    buf_release(&why);
}

static void what_a_helper_prints_is_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "x", "[]", "{\"Username\": \"u\"}",
                                      "{\"Username\": \"u\", \"Secret\": \"\"}"};
    static const struct {
        const char *answer, *header;
    } good[] = {
        {"{\"ServerURL\": \"h\", \"Username\": \"u\", \"Secret\": \"p\"}\n",
         "{\"username\":\"u\",\"password\":\"p\",\"serveraddress\":\"h\"}"},
        {"{\"Username\": \"<token>\", \"Secret\": \"t\"}",
         "{\"identitytoken\":\"t\",\"serveraddress\":\"h\"}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct buf out = BUF_INIT;
        struct buf why = BUF_INIT;
        assert_int_equal(auth_answer(str_from(bad[i]), STR("h"), &out, &why), -E_INVALID);
        assert_true(why.n > 0 && out.n == 0);
        buf_release(&why);
    }
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct buf out = BUF_INIT;
        struct buf json = BUF_INIT;
        struct buf why = BUF_INIT;
        assert_int_equal(auth_answer(str_from(good[i].answer), STR("h"), &out, &why), 0);
        assert_int_equal(crypto_from_base64(buf_str(&out), &json), 0);
        assert_string_equal(buf_cstr(&json), good[i].header);
        buf_release(&out);
        buf_release(&json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_registry_of_the_image_is_found),
        cmocka_unit_test(helpers_are_named_for_registries),
        cmocka_unit_test(what_a_helper_prints_is_checked),
        cmocka_unit_test(docker_hub_has_more_than_one_name),
        cmocka_unit_test(a_token_may_stand_for_a_password),
        cmocka_unit_test(what_is_wrong_is_said_without_what_is_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
