#include "common/base.h"

#include <limits.h>
#include <stdlib.h>

#include "common/os.h"
#include "worker/keep/keep.h"

#define STATE_MAX 512u

static const char *const whats[] = {"running", "waiting", "stopping", "stopped"};
static const char *const ends[] = {"none", "exit", "signal", "error"};

static bool word_of(struct str *rest, const char *const *words, size_t count, size_t *ret)
{
    struct str word;

    if (!str_split(rest, ' ', &word)) {
        return false;
    }
    for (*ret = 0; *ret < count; (*ret)++) {
        if (str_eqz(word, words[*ret])) {
            return true;
        }
    }
    return false;
}

static bool number_of(struct str *rest, uint64_t max, uint64_t *ret)
{
    struct str word;

    return str_split(rest, ' ', &word) && str_to_u64(word, ret) == 0 && *ret <= max;
}

/* "WHAT CHILD RESTARTS END CODE SINCE_MS\n" */
int keep_state_read(const char *folder, struct keep_state *ret)
{
    char *path = os_path_join(folder, "state");
    struct buf text = BUF_INIT;
    uint64_t child = 0, restarts = 0, code = 0, since_ms = 0;
    size_t what = 0, end = 0;
    int r = os_read_file(path, STATE_MAX, &text);

    free(path);
    if (r == 0) {
        struct str rest = buf_str(&text);
        const bool whole = rest.n > 0 && rest.p[rest.n - 1] == '\n';
        rest = str_sub(rest, 0, rest.n - whole);
        r = whole && word_of(&rest, whats, ARRAY_LEN(whats), &what) &&
                    number_of(&rest, INT_MAX, &child) && number_of(&rest, UINT32_MAX, &restarts) &&
                    word_of(&rest, ends, ARRAY_LEN(ends), &end) &&
                    number_of(&rest, INT_MAX, &code) && number_of(&rest, INT64_MAX, &since_ms) &&
                    rest.n == 0
                ? 0
                : -E_CORRUPT;
    }
    buf_release(&text);
    if (r == 0) {
        *ret = (struct keep_state){.what = (enum keep_what)what,
                                   .child = (pid_t)child,
                                   .restarts = restarts,
                                   .end = (enum keep_end)end,
                                   .code = (int)code,
                                   .since_ms = since_ms};
    }
    return r == -E_TOO_BIG ? -E_CORRUPT : r;
}

int keep_state_write(const char *folder, const struct keep_state *s)
{
    char *path = os_path_join(folder, "state");
    struct buf text = BUF_INIT;

    buf_addf(&text, "%s %d %" PRIu64 " %s %d %" PRIu64 "\n", whats[s->what], (int)s->child,
             MIN(s->restarts, UINT32_MAX), ends[s->end], s->code, s->since_ms);
    int r = os_put_file(path, text.p, text.n, 0600);
    free(path);
    buf_release(&text);
    return r;
}
