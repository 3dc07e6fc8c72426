/* Secrets in a stream: found whatever its portions are, and nothing else is hidden or kept back. */
#include "common/base.h"

#include "common/crypto.h"
#include "common/limits.h"
#include "common/mask_forms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct mask *mask_of(const char *const *patterns, size_t n)
{
    struct mask *m = mask_new();
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(mask_add(m, MASK_PLAIN, str_from(patterns[i])), 0);
    }
    return m;
}

static char *fed(struct mask *m, struct str text, size_t portion)
{
    struct buf out = BUF_INIT;
    for (size_t i = 0; i < text.n; i += portion) {
        mask_feed(m, str_sub(text, i, portion), &out);
    }
    mask_end(m, &out);
    buf_cstr(&out);
    return buf_take(&out);
}

static void runs_of_secrets_are_replaced_once(void **state)
{
    static const char *const patterns[] = {"secret", "retro", "abab"};
    static const struct {
        const char *text;
        const char *shown;
    } rows[] = {
        {"", ""},
        {"nothing", "nothing"},
        {"a secret.", "a [MASKED]."},
        {"secretsecret", "[MASKED][MASKED]"},
        {"a secretro b", "a [MASKED] b"},
        {"secre", "secre"},
        {"sesecret", "se[MASKED]"},
        {"ababab!", "[MASKED]!"},
        {"abaab", "abaab"},
        {"secret secre", "[MASKED] secre"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (size_t portion = 1; portion < 14; portion++) {
            struct mask *m = mask_of(patterns, ARRAY_LEN(patterns));
            char *shown = fed(m, str_from(rows[i].text), portion);
            assert_string_equal(shown, rows[i].shown);
            free(shown);
            mask_free(m);
        }
    }
}

static void only_what_may_become_a_secret_is_held_back(void **state)
{
    static const char *const patterns[] = {"hunter2!"};
    struct mask *m = mask_of(patterns, 1);
    struct buf out = BUF_INIT;
    (void)state;
    mask_feed(m, STR("password? "), &out);
    assert_string_equal(buf_cstr(&out), "password? ");
    mask_feed(m, STR("hunt"), &out);
    assert_string_equal(buf_cstr(&out), "password? ");
    mask_feed(m, STR("hunter2"), &out);
    assert_string_equal(buf_cstr(&out), "password? hunt");
    mask_feed(m, STR("!."), &out);
    assert_string_equal(buf_cstr(&out), "password? hunt[MASKED].");
    buf_release(&out);
    mask_free(m);
}

/* What a reader of the definition would write, with all of the text at hand. */
static char *by_definition(struct str text, char patterns[][8], size_t n)
{
    struct buf out = BUF_INIT;
    bool *hidden = xcalloc(text.n + 1, sizeof(*hidden));
    bool *begins = xcalloc(text.n + 1, sizeof(*begins));
    for (size_t at = 0; at < text.n; at++) {
        for (size_t p = 0; p < n; p++) {
            const size_t size = strlen(patterns[p]);
            if (!str_eq(str_sub(text, at, size), str_from(patterns[p]))) {
                continue;
            }
            begins[at] = begins[at] || !hidden[at];
            for (size_t i = 0; i < size; i++) {
                hidden[at + i] = true;
            }
        }
    }
    for (size_t i = 0; i < text.n; i++) {
        if (!hidden[i]) {
            buf_add_char(&out, text.p[i]);
        } else if (begins[i]) {
            buf_addz(&out, MASK_TEXT);
        }
    }
    free(begins);
    free(hidden);
    buf_cstr(&out);
    return buf_take(&out);
}

static uint32_t draw(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

static void the_automaton_does_what_the_definition_says(void **state)
{
    uint32_t random = 7;
    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        char patterns[4][8] = {""};
        char text[64];
        const size_t count = 1 + draw(&random, 4);
        const size_t n = draw(&random, sizeof(text));
        struct mask *m = mask_new();
        for (size_t p = 0; p < count; p++) {
            const size_t size = 1 + draw(&random, 7);
            for (size_t i = 0; i < size; i++) {
                patterns[p][i] = (char)('a' + (char)draw(&random, 2));
            }
            assert_int_equal(mask_add(m, MASK_PLAIN, str_from(patterns[p])), 0);
        }
        for (size_t i = 0; i < n; i++) {
            text[i] = (char)('a' + (char)draw(&random, 2 + round % 2));
        }
        char *want = by_definition(str_of(text, n), patterns, count);
        char *got = fed(m, str_of(text, n), 1 + draw(&random, 9));
        assert_string_equal(got, want);
        free(got);
        free(want);
        mask_free(m);
    }
}

static void ends_of_lines_and_blanks_do_not_part_a_wrapped_form(void **state)
{
    static const char text[] = "x abc\ndef\r\n ghi y ab\n\n\n\ncdefghi a b cdefgh\n";
    (void)state;
    for (size_t portion = 1; portion < sizeof(text); portion++) {
        struct mask *m = mask_new();
        assert_int_equal(mask_add(m, MASK_WRAPPED, STR("abcdefghi")), 0);
        char *shown = fed(m, STR(text), portion);
        assert_string_equal(shown, "x [MASKED] y ab\n\n\n\ncdefghi a b cdefgh\n");
        free(shown);
        mask_free(m);
    }
}

static void assert_hidden(struct str secret, struct str printed, const char *shown)
{
    for (size_t portion = 1; portion < 20; portion += 3) {
        struct mask *m = mask_new();
        assert_int_equal(mask_add_secret(m, secret), 0);
        char *got = fed(m, printed, portion);
        assert_string_equal(got, shown);
        free(got);
        mask_free(m);
    }
}

static void forms_that_programs_make_are_hidden(void **state)
{
    const struct str secret = STR("p\"ss w/rd+'\\&1");
    (void)state;
    assert_hidden(secret, secret, MASK_TEXT);
    assert_hidden(secret, STR("{\"k\":\"p\\\"ss w/rd+'\\\\&1\"}"), "{\"k\":\"[MASKED]\"}");
    assert_hidden(secret, STR("\"p\\\"ss w\\/rd+'\\\\&1\""), "\"[MASKED]\"");
    assert_hidden(secret, STR("\"p\\\"ss w/rd+'\\\\\\u00261\""), "\"[MASKED]\"");
    assert_hidden(secret, STR("?q=p%22ss%20w%2Frd%2B%27%5C%261&"), "?q=[MASKED]&");
    assert_hidden(secret, STR("?q=p%22ss%20w%2frd%2b%27%5c%261&"), "?q=[MASKED]&");
    assert_hidden(secret, STR("p%22ss%20w%2Frd%2B'%5C%261."), "[MASKED].");
    assert_hidden(secret, STR("q=p%22ss+w%2Frd%2B%27%5C%261"), "q=[MASKED]");
    assert_hidden(secret, STR("+ echo 'p\"ss w/rd+'\\''\\&1'"), "+ echo '[MASKED]'");
    assert_hidden(secret, STR("7022737320772f72642b275c2631"), MASK_TEXT);
    assert_hidden(secret, STR("7022737320772F72642B275C2631\n"), "[MASKED]\n");
}

/* What base64 shows of a secret whose neighbours are unknown is between two characters of which
 * each holds bits of a neighbour. */
static void base64_is_hidden_wherever_it_begins(void **state)
{
    const struct str secret = STR("\xff\xfe~s3cr3t>?");
    (void)state;
    for (size_t before = 0; before < 7; before++) {
        for (size_t after = 0; after < 4; after++) {
            struct buf plain = BUF_INIT;
            struct buf text = BUF_INIT;
            struct mask *m = mask_new();
            buf_add(&plain, "abcdefg", before);
            buf_add_str(&plain, secret);
            buf_add(&plain, "xyz", after);
            crypto_to_base64(buf_str(&plain), &text);
            assert_int_equal(mask_add_secret(m, secret), 0);
            char *got = fed(m, buf_str(&text), 5);
            const char *hit = strstr(got, MASK_TEXT);
            assert_non_null(hit);
            assert_true(strlen(got) - strlen(MASK_TEXT) <= (before + 2) / 3 * 4 + 8);
            free(got);
            for (size_t i = 0; i < text.n; i++) {
                text.p[i] = (char)(text.p[i] == '+' ? '-' : text.p[i] == '/' ? '_' : text.p[i]);
            }
            got = fed(m, buf_str(&text), 5);
            assert_non_null(strstr(got, MASK_TEXT));
            free(got);
            mask_free(m);
            buf_release(&plain);
            buf_release(&text);
        }
    }
}

static void lines_of_a_key_are_hidden_each(void **state)
{
    const struct str key = STR("-----BEGIN KEY-----\n  MIIEpAIBAAKCAQEA\nq7\n-----END KEY-----\n");
    (void)state;
    assert_hidden(key, STR("key: MIIEpAIBAAKCAQEA q7"), "key: [MASKED] q7");
    assert_hidden(STR("short"), STR("short"), "short");
}

static void too_many_bytes_are_refused(void **state)
{
    struct mask *m = mask_new();
    const size_t n = LIMIT_MASK_BYTES / 4;
    char *big = xmalloc(n);
    (void)state;
    for (char c = 'a'; c < 'e'; c++) {
        memset(big, c, n);
        assert_int_equal(mask_add(m, MASK_PLAIN, str_of(big, n)), 0);
    }
    assert_int_equal(mask_add(m, MASK_PLAIN, STR("e")), -E_LIMIT);
    free(big);
    mask_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_of_secrets_are_replaced_once),
        cmocka_unit_test(only_what_may_become_a_secret_is_held_back),
        cmocka_unit_test(the_automaton_does_what_the_definition_says),
        cmocka_unit_test(ends_of_lines_and_blanks_do_not_part_a_wrapped_form),
        cmocka_unit_test(forms_that_programs_make_are_hidden),
        cmocka_unit_test(base64_is_hidden_wherever_it_begins),
        cmocka_unit_test(lines_of_a_key_are_hidden_each),
        cmocka_unit_test(too_many_bytes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
