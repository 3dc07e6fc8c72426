/* Which tag `~latest`, `1` or `1.2` means. */
#include "common/base.h"

#include "pipeline/fetch/inside.h"

#define PARTS       3u
#define PART_DIGITS 9u

/* "1.2.3" or "1.2" into parts; how many there are, 0: it is none. No pre-releases: `~latest` and
 * the like do not mean them. */
static size_t read_parts(struct str s, uint64_t parts[PARTS])
{
    size_t n = 0;
    struct str part;
    while (str_split(&s, '.', &part)) {
        if (n == PARTS || part.n == 0 || part.n > PART_DIGITS || str_to_u64(part, &parts[n]) < 0) {
            return 0;
        }
        n++;
    }
    return n;
}

bool semver_is_partial(struct str wanted)
{
    uint64_t parts[PARTS];
    size_t n = read_parts(wanted, parts);
    return str_eqz(wanted, "~latest") || n == 1 || n == 2;
}

static bool is_higher(const uint64_t a[PARTS], const uint64_t b[PARTS])
{
    for (size_t i = 0; i < PARTS; i++) {
        if (a[i] != b[i]) {
            return a[i] > b[i];
        }
    }
    return false;
}

bool semver_pick(struct str tags, struct str wanted, struct str *ret)
{
    uint64_t want[PARTS] = {0};
    uint64_t best[PARTS] = {0};
    size_t fixed = read_parts(wanted, want);
    struct str line;
    bool found = false;
    while (str_split(&tags, '\n', &line)) {
        uint64_t parts[PARTS] = {0};
        ptrdiff_t at = str_find(line, STR("refs/tags/"));
        struct str tag = at >= 0 ? str_trim(str_sub(line, (size_t)at + 10, line.n)) : STR_NULL;
        struct str number = str_starts(tag, STR("v")) ? str_sub(tag, 1, tag.n) : tag;
        bool fits = read_parts(number, parts) == PARTS;
        for (size_t i = 0; fits && i < fixed; i++) {
            fits = parts[i] == want[i];
        }
        if (fits && (!found || is_higher(parts, best))) {
            memcpy(best, parts, sizeof(best));
            *ret = tag;
            found = true;
        }
    }
    return found;
}
