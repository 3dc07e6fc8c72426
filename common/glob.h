/* Shell-like patterns on paths. Two dialects, both with `*`, `?`, `[a-z]`, `[!a]`, `\x`:
 *   GLOB_RUBY  as Ruby's File.fnmatch with PATHNAME | DOTMATCH | EXTGLOB: `**` + `/` crosses
 * folders,
 *              `{a,b}` alternatives. GitLab uses it for rules:changes and rules:exists.
 *   GLOB_STAR  as the doublestar library: the same, and `**` at the end matches everything below.
 *              gitlab-runner uses it for artifacts:paths and cache:paths.
 * Time is bounded: alternatives are limited to 1,024 expansions. Threads: pure. */
#ifndef DAVIT_GLOB_H
#define DAVIT_GLOB_H

#include "common/str.h"

enum glob_dialect { GLOB_RUBY, GLOB_STAR };

/* False, too, where finding out would take more than LIMIT_GLOB_STEPS steps: only for patterns that
 * are made so. */
bool glob_match(enum glob_dialect dialect, struct str pattern, struct str path);
/* The same, but with so many steps, which are counted down. */
bool glob_match_within(enum glob_dialect dialect, struct str pattern, struct str path,
                       size_t *steps);

#endif
