#include "common/base.h"

#include "cli/dotenv_file.h"

#include "common/err.h"
#include "common/limits.h"

struct reader {
    struct str text;
    size_t at;
    uint32_t line;
    const char *why;
};

static char look(const struct reader *r)
{
    return r->at < r->text.n ? r->text.p[r->at] : '\0';
}

static void step(struct reader *r)
{
    r->line += look(r) == '\n';
    r->at++;
}

static void skip_blanks(struct reader *r)
{
    while (look(r) == ' ' || look(r) == '\t' || look(r) == '\r') {
        step(r);
    }
}

static void skip_line(struct reader *r)
{
    while (r->at < r->text.n && look(r) != '\n') {
        step(r);
    }
}

static struct str read_name(struct reader *r)
{
    size_t from = r->at;
    while (r->at < r->text.n && strchr("= \t\r\n", look(r)) == NULL) {
        step(r);
    }
    return str_sub(r->text, from, r->at - from);
}

static void read_single(struct reader *r, struct buf *out)
{
    step(r);
    while (r->at < r->text.n && look(r) != '\'') {
        buf_add_char(out, look(r));
        step(r);
    }
}

static void read_escape(struct reader *r, struct buf *out)
{
    step(r);
    switch (look(r)) {
    case 'n':
        buf_add_char(out, '\n');
        break;
    case 'r':
        buf_add_char(out, '\r');
        break;
    case 't':
        buf_add_char(out, '\t');
        break;
    case '"':
    case '\\':
    case '$':
    case '`':
        buf_add_char(out, look(r));
        break;
    default:
        buf_add_char(out, '\\');
        buf_add_char(out, look(r));
        break;
    }
}

static void read_double(struct reader *r, struct buf *out)
{
    step(r);
    while (r->at < r->text.n && look(r) != '"') {
        if (look(r) == '\\' && r->at + 1 < r->text.n) {
            read_escape(r, out);
        } else {
            buf_add_char(out, look(r));
        }
        step(r);
    }
}

static void read_bare(struct reader *r, struct buf *out)
{
    size_t from = r->at;
    skip_line(r);
    struct str value = str_sub(r->text, from, r->at - from);
    const ptrdiff_t comment = str_find(value, STR(" #"));
    buf_add_str(out, str_trim(comment >= 0 ? str_sub(value, 0, (size_t)comment) : value));
}

static void read_value(struct reader *r, struct buf *out)
{
    const char quote = look(r);
    if (quote != '"' && quote != '\'') {
        read_bare(r, out);
        return;
    }
    if (quote == '"') {
        read_double(r, out);
    } else {
        read_single(r, out);
    }
    if (look(r) != quote) {
        r->why = "the quote at its value has no end";
        return;
    }
    step(r);
    skip_blanks(r);
    if (r->at < r->text.n && look(r) != '\n' && look(r) != '#') {
        r->why = "something stands behind the closing quote";
    }
    skip_line(r);
}

static void read_variable(struct reader *r, struct vars *vars)
{
    struct buf value = BUF_INIT;
    struct str name = read_name(r);
    skip_blanks(r);
    if (str_eqz(name, "export") && look(r) != '=') {
        name = read_name(r);
        skip_blanks(r);
    }
    if (look(r) != '=') {
        r->why = "this is not NAME=VALUE";
        return;
    }
    if (!var_name_valid(name)) {
        r->why = "before the `=` stands no name of a variable";
        return;
    }
    step(r);
    skip_blanks(r);
    read_value(r, &value);
    if (value.n > LIMIT_VARIABLE_VALUE) {
        r->why = "the value is too long";
    }
    if (r->why == NULL) {
        vars_set(vars, (struct var){.name = name, .value = buf_str(&value), .raw = true});
    }
    buf_release(&value);
}

int dotenv_file_read(struct str text, struct vars *vars, uint32_t *ret_line, const char **ret_why)
{
    struct reader r = {.text = text, .line = 1};
    uint32_t line = 1;
    if (str_starts(text, STR("\xef\xbb\xbf"))) {
        r.at = 3;
    }
    if (!str_is_utf8(text, NULL)) {
        r.why = "the file is not UTF-8 text";
    }
    while (r.why == NULL && r.at < text.n) {
        skip_blanks(&r);
        line = r.line;
        if (look(&r) == '#') {
            skip_line(&r);
        } else if (r.at < text.n && look(&r) != '\n') {
            read_variable(&r, vars);
        }
        if (r.why == NULL && r.at < text.n) {
            step(&r); /* the end of the line */
        }
    }
    if (r.why != NULL) {
        *ret_line = line;
        *ret_why = r.why;
        return -E_INVALID;
    }
    return 0;
}

char *dotenv_file_scope(const char *path)
{
    static const char prefix[] = ".env.";
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    if (strncmp(name, prefix, strlen(prefix)) != 0 || name[strlen(prefix)] == '\0') {
        return NULL;
    }
    return xstrdup(name + strlen(prefix));
}

void dotenv_file_add(struct buf *out, struct str name, struct str value)
{
    buf_add_str(out, name);
    buf_addz(out, "=\"");
    for (size_t i = 0; i < value.n; i++) {
        const char c = value.p[i];
        if (c == '\n') {
            buf_addz(out, "\\n");
        } else if (c == '\r') {
            buf_addz(out, "\\r");
        } else {
            if (strchr("\"\\$`", c) != NULL) {
                buf_add_char(out, '\\');
            }
            buf_add_char(out, c);
        }
    }
    buf_addz(out, "\"\n");
}
