/* Names of environments, and what is made of them: slugs and tiers as GitLab makes them. */
#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void slug_is(const char *name, const char *want)
{
    struct arena a;

    arena_init(&a, 0);
    assert_string_equal(environment_slug(&a, name), want);
    arena_release(&a);
}

/* A slug that begins so, and ends in a hyphen and six letters or digits. */
static void slug_begins(const char *name, const char *want)
{
    struct arena a;
    const char *slug;
    const size_t n = strlen(want);

    arena_init(&a, 0);
    slug = environment_slug(&a, name);
    if (strncmp(slug, want, n) != 0 || strlen(slug) != n + 6 || slug[n - 1] != '-' ||
        strspn(slug + n, "abcdefghijklmnopqrstuvwxyz0123456789") != 6) {
        fail_msg("%s: %s instead of %s......", name, slug, want);
    }
    arena_release(&a);
}

static void a_name_that_is_a_slug_stays(void **state)
{
    slug_is("production", "production");
    slug_is("staging-1234567890123456", "staging-1234567890123456");
    slug_is("review-", "review");
}

static void other_names_get_a_suffix_of_their_own(void **state)
{
    slug_begins("Production", "production-");
    slug_begins("review/feature", "review-feature-");
    slug_begins("staging-12345678901234567", "staging-123456789-");
    slug_begins("9-staging-123456789012345", "env-9-staging-123-");
    slug_begins("_x", "env-x-");
    slug_begins("a..b", "a-b-");
    /* The last six digits to the base 36 of the SHA-256 of the name, reckoned apart. */
    slug_is("review/one", "review-one-sbi7zf");
    slug_is("A", "a-cnlqf1");
}

static void tier_is(const char *name, const char *want)
{
    struct arena a;

    arena_init(&a, 0);
    assert_string_equal(environment_tier_guess(&a, name), want);
    assert_true(environment_tier_ok(want));
    arena_release(&a);
}

static void the_tier_is_guessed_from_the_name(void **state)
{
    tier_is("review/feature", "development");
    tier_is("DEV", "development");
    tier_is("trunk", "development");
    tier_is("QA", "testing");
    tier_is("acceptance", "testing");
    tier_is("Test Env", "testing");
    tier_is("staging", "staging");
    tier_is("pre-prod", "staging");
    tier_is("Production", "production");
    tier_is("live", "production");
    tier_is("customer", "other");
}

static void names_have_the_characters_that_are_allowed(void **state)
{
    char long_name[LIMIT_NAME + 2] = {0};

    assert_true(environment_name_ok("review/some.thing-1_2 {x}$"));
    assert_false(environment_name_ok(""));
    assert_false(environment_name_ok("/review"));
    assert_false(environment_name_ok("review/"));
    assert_false(environment_name_ok("a:b"));
    assert_false(environment_name_ok("a\nb"));
    memset(long_name, 'a', LIMIT_NAME);
    assert_true(environment_name_ok(long_name));
    long_name[LIMIT_NAME] = 'a';
    assert_false(environment_name_ok(long_name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_that_is_a_slug_stays),
        cmocka_unit_test(other_names_get_a_suffix_of_their_own),
        cmocka_unit_test(the_tier_is_guessed_from_the_name),
        cmocka_unit_test(names_have_the_characters_that_are_allowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
