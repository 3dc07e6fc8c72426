/* test-scene [--bless] SCENE...: plays each scene and compares its trace with the one written in
 * it;
 * --bless writes the trace that came. */
#include "common/base.h"

#include "tests/scene/scene.h"

#include "common/limits.h"
#include "common/os.h"

#include <stdio.h>
#include <stdlib.h>

/* What a scene's file is when its traces are those that came. Comments, empty lines and commands
 * stay as they are. False: it holds a line that is no command. */
static bool play(struct str text, struct buf *out)
{
    struct stage s;
    struct str line;
    bool ok = true;

    stage_init(&s, out);
    while (ok && text.n > 0 && str_split(&text, '\n', &line)) {
        struct buf plan = BUF_INIT;
        if (line.n == 0 || line.p[0] == '#') {
            buf_add_str(out, line);
            buf_add_char(out, '\n');
        } else if (line.p[0] == '>') {
            const struct str command = str_trim(str_sub(line, 1, line.n));
            buf_add_str(out, line);
            buf_add_char(out, '\n');
            while (text.n > 0 && text.p[0] == '|' && str_split(&text, '\n', &line)) {
                buf_add_str(out, line);
                buf_add_char(out, '\n');
                buf_add_str(&plan, str_trim(str_sub(line, 1, line.n)));
                buf_add_char(&plan, '\n');
            }
            ok = stage_play(&s, command, buf_str(&plan)) == 0;
        }
        buf_release(&plan);
    }
    stage_release(&s);
    return ok;
}

/* The first line in which they differ. */
static void show_difference(const char *path, struct str want, struct str have)
{
    struct str w = STR_NULL, h = STR_NULL;
    unsigned line = 0;

    do {
        line++;
        w = h = STR_NULL;
        if (want.n > 0) {
            str_split(&want, '\n', &w);
        }
        if (have.n > 0) {
            str_split(&have, '\n', &h);
        }
    } while (str_eq(w, h) && (want.n > 0 || have.n > 0));
    printf("%s:%u:\n  expected " STR_FMT "\n  came     " STR_FMT "\n", path, line, STR_ARG(w),
           STR_ARG(h));
}

static bool run_scene(const char *path, bool bless)
{
    struct buf text = BUF_INIT, out = BUF_INIT;
    bool ok = os_read_file(path, MIB, &text) == 0;

    if (!ok) {
        printf("%s: cannot be read\n", path);
    } else if (!play(buf_str(&text), &out)) {
        printf("%s: " STR_FMT, path, STR_ARG(buf_str(&out)));
        ok = false;
    } else if (!str_eq(buf_str(&text), buf_str(&out))) {
        show_difference(path, buf_str(&text), buf_str(&out));
        ok = bless && os_write_file(path, out.p, out.n, 0644) == 0;
    }
    buf_release(&text);
    buf_release(&out);
    return ok;
}

int main(int argc, char **argv)
{
    const bool bless = argc > 1 && strcmp(argv[1], "--bless") == 0;
    int failed = 0;

    for (int i = bless ? 2 : 1; i < argc; i++) {
        failed += !run_scene(argv[i], bless);
    }
    return failed > 0 ? 1 : 0;
}
