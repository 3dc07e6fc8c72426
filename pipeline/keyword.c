#include "common/base.h"

#include "pipeline/keyword.h"

const struct keyword keywords[] = {
#define SCOPE(name, text)
#define KEYWORD(scope, name, support) {SCOPE_##scope, {#name, sizeof(#name) - 1}, support},
#include "pipeline/keywords.def"
#undef SCOPE
#undef KEYWORD
};
const size_t keyword_count = ARRAY_LEN(keywords);
_Static_assert(ARRAY_LEN(keywords) <= KEYWORDS_MAX, "suggest_keyword has room for all");

enum {
#define SCOPE(name, text)
#define KEYWORD(scope, name, support) PLACE_##scope##_##name,
#include "pipeline/keywords.def"
#undef SCOPE
#undef KEYWORD
};

/* The place of each scope's last keyword: of the entries for one scope the last counts. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
static const uint16_t last_places[SCOPE_COUNT] = {
#define SCOPE(name, text)
#define KEYWORD(scope, name, support) [SCOPE_##scope] = PLACE_##scope##_##name,
#include "pipeline/keywords.def"
#undef SCOPE
#undef KEYWORD
};
#pragma GCC diagnostic pop
_Static_assert(KEYWORDS_MAX <= UINT16_MAX, "last_places holds any place");

/* The keywords of a scope stand together (a test sees to it), and few have the same length. */
const struct keyword *keyword_find(enum scope scope, struct str name)
{
    for (const struct keyword *k = &keywords[last_places[scope]]; k->scope == scope; k--) {
        if (k->name.n == name.n && memcmp(k->name.p, name.p, name.n) == 0) {
            return k;
        }
        if (k == keywords) {
            break;
        }
    }
    return NULL;
}

/* Nobody who writes `steps` or `group` somewhere else means these. */
static bool is_of_rollouts(enum scope scope)
{
    return scope == SCOPE_ROLLOUT || scope == SCOPE_ROLLOUT_STEP ||
           scope == SCOPE_ROLLOUT_APPROVE || scope == SCOPE_ROLLOUT_METRIC ||
           scope == SCOPE_ROLLOUT_WAVES;
}

enum scope keyword_elsewhere(struct str word)
{
    static const enum scope usual[] = {SCOPE_JOB, SCOPE_RULE, SCOPE_ARTIFACTS, SCOPE_TOP};
    for (size_t i = 0; i < ARRAY_LEN(usual); i++) {
        if (keyword_find(usual[i], word)) {
            return usual[i];
        }
    }
    for (size_t i = 0; i < keyword_count; i++) {
        if (str_eq(word, keywords[i].name) && !is_of_rollouts(keywords[i].scope)) {
            return keywords[i].scope;
        }
    }
    return SCOPE_COUNT;
}

const char *scope_text(enum scope scope)
{
    static const char *const texts[] = {
#define SCOPE(name, text) text,
#define KEYWORD(scope, name, support)
#include "pipeline/keywords.def"
#undef SCOPE
#undef KEYWORD
    };
    check(scope < SCOPE_COUNT);
    return texts[scope];
}
