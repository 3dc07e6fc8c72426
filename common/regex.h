/* Regular expressions as GitLab's RE2 takes them, run by pcre2 with limits: what RE2 refuses
 * (lookaround, backreferences, recursion, possessive and atomic groups) is refused here, so that a
 * file means the same in both places.
 * Ownership: all in the arena. Threads: a compiled pattern belongs to one thread. */
#ifndef DAVIT_REGEX_H
#define DAVIT_REGEX_H

#include "common/arena.h"
#include "common/err.h"

struct regex;

/* "/pattern/flags" with flags of [ismU] and `\/` for a slash. False: it is no such literal. */
bool regex_split_literal(struct str literal, struct str *ret_pattern, struct str *ret_flags);

/* 0; -E_INVALID with the reason and, where known, the offset of the mistake in the pattern. */
int regex_compile(struct arena *arena, struct str pattern, struct str flags, struct regex **ret,
                  const char **ret_reason, size_t *ret_at);

/* 0; -E_LIMIT when matching takes too long, the answer is then unknown. */
int regex_search(struct regex *re, struct str text, bool *ret_found);

/* The next match from an offset on, for all of a text one after the other: *ret_from is where to
 * look for the next. *ret_match is its last group, STR_NULL where that took no part; without groups
 * the whole match. 0, -E_NOT_FOUND, -E_LIMIT. */
int regex_find(struct regex *re, struct str text, size_t from, struct str *ret_match,
               size_t *ret_from);

#endif
