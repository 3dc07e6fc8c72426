#include "common/base.h"

#include "broker/core/apply.h"
#include "common/crypto.h"
#include "common/limits.h"

#define SLUG_BYTES    24u
#define SUFFIX_BYTES  6u
#define SUFFIX_BASE   36u
#define SUFFIX_MODULO 2176782336u /* 36 to the 6th */

bool environment_name_ok(const char *name)
{
    return str_is_environment_name(str_from(name));
}

static const char *const tiers[] = {"production", "staging", "testing", "development", "other"};

bool environment_tier_ok(const char *tier)
{
    for (size_t i = 0; i < ARRAY_LEN(tiers); i++) {
        if (strcmp(tiers[i], tier) == 0) {
            return true;
        }
    }
    return false;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Whether the name holds one of the words, which are divided by blanks. */
static bool holds_one_of(struct str name, const char *words)
{
    struct str rest = str_from(words), word;

    while (rest.n > 0 && str_split(&rest, ' ', &word)) {
        if (str_find(name, word) >= 0) {
            return true;
        }
    }
    return false;
}

const char *environment_tier_guess(struct arena *a, const char *name)
{
    static const struct {
        const char *words;
        const char *tier;
    } guesses[] = {
        {"dev review trunk", "development"},
        {"test tst int acpt accept qa qc control quality", "testing"},
        {"stg stag model modl pre demo non", "staging"},
        {"prod prd live", "production"},
    };
    char *low = arena_strdup(a, str_from(name));

    for (size_t i = 0; low[i] != '\0'; i++) {
        low[i] = lower(low[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(guesses); i++) {
        if (holds_one_of(str_from(low), guesses[i].words)) {
            return guesses[i].tier;
        }
    }
    return "other";
}

/* The last six digits of the name's SHA-256, written as a number to the base 36. */
static void add_suffix(struct buf *slug, const char *name)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    uint8_t hash[SHA256_BYTES];
    char suffix[SUFFIX_BYTES];
    uint64_t n = 0;

    crypto_sha256(name, strlen(name), hash);
    for (size_t i = 0; i < sizeof(hash); i++) {
        n = (n * 256 + hash[i]) % SUFFIX_MODULO;
    }
    for (size_t i = SUFFIX_BYTES; i-- > 0;) {
        suffix[i] = digits[n % SUFFIX_BASE];
        n /= SUFFIX_BASE;
    }
    buf_add(slug, suffix, sizeof(suffix));
}

/* Letters, digits and single hyphens, a letter first. */
static void add_plain(struct buf *slug, const char *name)
{
    if (!(lower(name[0]) >= 'a' && lower(name[0]) <= 'z')) {
        buf_addz(slug, "env-");
    }
    for (; *name != '\0'; name++) {
        const char c = lower(*name);
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
            buf_add_char(slug, c);
        } else if (slug->p[slug->n - 1] != '-') {
            buf_add_char(slug, '-');
        }
    }
}

/* Names that differ must not come to one slug: where it is not the name itself it gets a suffix
 * that the whole name decides. */
const char *environment_slug(struct arena *a, const char *name)
{
    struct buf slug = BUF_INIT;
    const char *copy;

    add_plain(&slug, name);
    if (slug.n > SLUG_BYTES || !str_eqz(buf_str(&slug), name)) {
        buf_truncate(&slug, MIN(slug.n, SLUG_BYTES - SUFFIX_BYTES - 1));
        if (slug.p[slug.n - 1] != '-') {
            buf_add_char(&slug, '-');
        }
        add_suffix(&slug, name);
    } else if (slug.p[slug.n - 1] == '-') {
        buf_truncate(&slug, slug.n - 1);
    }
    copy = arena_strdup(a, buf_str(&slug));
    buf_release(&slug);
    return copy;
}
