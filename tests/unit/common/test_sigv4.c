/* The examples of "Signature Calculations for the Authorization Header" and "Authenticating
 * Requests: Using Query Parameters" of the Amazon S3 API Reference. */
#include "common/base.h"

#include "common/sigv4.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define AT_MS 1369353600000ull /* 2013-05-24T00:00:00Z */
#define DATE  "20130524T000000Z"
#define HOST  "examplebucket.s3.amazonaws.com"

static const struct sigv4_key key = {.access = "AKIAIOSFODNN7EXAMPLE",
                                     .secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                     .region = "us-east-1"};

static void test_requests_are_signed_as_amazon_shows(void **state)
{
    static const char put_hash[] =
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    static const struct {
        const char *method, *path, *query, *payload;
        const char *headers[10];
        const char *signature;
    } rows[] = {
        {"GET",
         "/test.txt",
         "",
         EMPTY,
         {"range", "bytes=0-9", "x-amz-content-sha256", EMPTY, "x-amz-date", DATE},
         "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature="
         "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
        {"PUT",
         "/test%24file.text",
         "",
         put_hash,
         {"date", "Fri, 24 May 2013 00:00:00 GMT", "x-amz-content-sha256", put_hash, "x-amz-date",
          DATE, "x-amz-storage-class", "REDUCED_REDUNDANCY"},
         "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,Signature="
         "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
        {"GET",
         "/",
         "lifecycle=",
         EMPTY,
         {"x-amz-content-sha256", EMPTY, "x-amz-date", DATE},
         "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
        {"GET",
         "/",
         "max-keys=2&prefix=J",
         EMPTY,
         {"x-amz-content-sha256", EMPTY, "x-amz-date", DATE},
         "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = BUF_INIT;
        struct sigv4_request req = {.method = rows[i].method,
                                    .host = HOST,
                                    .path = rows[i].path,
                                    .query = rows[i].query,
                                    .headers = rows[i].headers,
                                    .payload = rows[i].payload,
                                    .time_ms = AT_MS};
        sigv4_authorization(&key, &req, &out);
        assert_true(str_starts(buf_str(&out),
                               STR("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/"
                                   "us-east-1/s3/aws4_request,SignedHeaders=")));
        if (!str_ends(buf_str(&out), str_from(rows[i].signature))) {
            fail_msg("%zu: %s", i, buf_cstr(&out));
        }
        buf_release(&out);
    }
}

static void test_text_is_encoded_as_amazon_says(void **state)
{
    struct buf out = BUF_INIT;
    (void)state;
    sigv4_encode(STR("aZ09-._~/ $+=&\xc3\xa9"), &out);
    assert_string_equal(buf_cstr(&out), "aZ09-._~%2F%20%24%2B%3D%26%C3%A9");
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_are_signed_as_amazon_shows),
        cmocka_unit_test(test_text_is_encoded_as_amazon_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
