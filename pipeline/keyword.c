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

const struct keyword *keyword_find(enum scope scope, struct str name)
{
    for (size_t i = 0; i < keyword_count; i++) {
        if (keywords[i].scope == scope && str_eq(name, keywords[i].name)) {
            return &keywords[i];
        }
    }
    return NULL;
}

enum scope keyword_elsewhere(struct str word)
{
    for (size_t i = 0; i < keyword_count; i++) {
        if (str_eq(word, keywords[i].name)) {
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
