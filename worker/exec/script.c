#include "common/base.h"

#include "worker/exec/script.h"

#include "common/err.h"

void script_quote(struct str text, struct buf *out)
{
    buf_add_char(out, '\'');
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\'') {
            buf_addz(out, "'\\''");
        } else {
            buf_add_char(out, text.p[i]);
        }
    }
    buf_add_char(out, '\'');
}

static void add_preamble(struct script_style style, struct buf *out)
{
    if (style.trace) {
        buf_addz(out, "set -o xtrace\n");
    }
    if (style.bash) {
        buf_addz(out, "set -o errexit -o pipefail\n");
    } else {
        buf_addz(out, "set -o errexit\n(set -o pipefail) 2>/dev/null && set -o pipefail\n");
    }
    buf_addz(out, "set +o noclobber\n");
    if (style.after) {
        buf_addz(out, "export CI_JOB_STATUS=\"$DAVIT_JOB_STATUS\"\n");
    }
}

/* Shows a line before it runs; of several lines the first, and that there are more. */
static void add_echo(struct str line, struct buf *out)
{
    struct buf shown = BUF_INIT;
    ptrdiff_t end = str_chr(line, '\n');
    buf_addz(&shown, "\033[32;1m$ ");
    buf_add_str(&shown, end < 0 ? line : str_sub(line, 0, (size_t)end));
    buf_addz(&shown, end < 0 ? "" : " # collapsed multi-line command");
    buf_addz(&shown, "\033[0;m");
    buf_addz(out, "printf '%s\\n' ");
    script_quote(buf_str(&shown), out);
    buf_add_char(out, '\n');
    buf_release(&shown);
}

int script_write(const ProtobufCBinaryData *lines, size_t count, struct script_style style,
                 struct buf *out)
{
    add_preamble(style, out);
    for (size_t i = 0; i < count; i++) {
        struct str line = str_trim(pb_str(lines[i]));
        if (str_chr(line, '\0') >= 0) {
            return -E_INVALID;
        }
        if (line.n > 0) {
            add_echo(line, out);
            buf_add_str(out, line);
            buf_add_char(out, '\n');
        }
    }
    /* Nothing comes after the last line: its exit code is the script's also where errexit lets it
     * pass, as in `make test && make lint`. */
    return 0;
}
