#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "common/crypto.h"

static void any_bytes_come_back_as_they_were(void **state)
{
    uint8_t bytes[256];
    for (size_t n = 0; n < sizeof(bytes); n++) {
        struct buf text = BUF_INIT;
        struct buf back = BUF_INIT;
        bytes[n] = (uint8_t)(n * 7);
        crypto_to_base64(str_of(bytes, n), &text);
        assert_int_equal(text.n, (n + 2) / 3 * 4);
        assert_int_equal(crypto_from_base64(buf_str(&text), &back), 0);
        assert_true(str_eq(buf_str(&back), str_of(bytes, n)));
        buf_release(&text);
        buf_release(&back);
    }
}

static void what_is_no_base64_is_refused(void **state)
{
    const char *const bad[] = {"A", "AB", "ABC", "A===", "AB C", " ABCD", "AB=C", "AB-_", "ABCDE"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct buf out = BUF_INIT;
        buf_addz(&out, "as it was");
        assert_int_equal(crypto_from_base64(str_from(bad[i]), &out), -E_INVALID);
        assert_string_equal(buf_cstr(&out), "as it was");
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_bytes_come_back_as_they_were),
        cmocka_unit_test(what_is_no_base64_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
