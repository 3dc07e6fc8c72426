#include "common/base.h"

#include "pipeline/yaml_problem.h"

/* The problem with the lines around it. */
struct scene {
    const struct yaml_problem *p;
    struct diags *diags;
    struct str line;   /* of the problem */
    size_t at;         /* the problem's offset in it */
    struct str before; /* the last line above that is not empty and no comment */
};

static struct str line_of(struct str text, uint32_t number)
{
    struct str line = STR_NULL;
    for (uint32_t i = 0; i < number; i++) {
        if (!str_split(&text, '\n', &line)) {
            return STR_NULL;
        }
    }
    return line.n > 0 && line.p[line.n - 1] == '\r' ? str_sub(line, 0, line.n - 1) : line;
}

static size_t offset_of(struct str line, uint32_t column)
{
    size_t at = 0;
    for (uint32_t i = 1; i < column && at < line.n; i++) {
        at += str_char_length(str_sub(line, at, line.n));
    }
    return at;
}

static struct str line_before(const struct yaml_problem *p)
{
    for (uint32_t i = p->at.line; i > 1; i--) {
        struct str line = line_of(p->text, i - 1);
        struct str trimmed = str_trim(line);
        if (trimmed.n > 0 && trimmed.p[0] != '#') {
            return line;
        }
    }
    return STR_NULL;
}

static size_t indent_of(struct str line)
{
    size_t n = 0;
    while (n < line.n && line.p[n] == ' ') {
        n++;
    }
    return n;
}

/* "key: value" or "key:", possibly behind a `- `. */
static bool has_key(struct str line)
{
    struct str s = str_trim(line);
    return str_find(s, STR(": ")) > 0 || (s.n > 1 && s.p[s.n - 1] == ':');
}

static bool says(const struct scene *s, const char *words)
{
    return strstr(s->p->problem, words) != NULL;
}

static bool within(const struct scene *s, const char *words)
{
    return s->p->context && strstr(s->p->context, words) != NULL;
}

static char char_at(const struct scene *s)
{
    return s->at < s->line.n ? s->line.p[s->at] : '\0';
}

static struct diag_at place_of(const struct scene *s, struct yaml_mark mark, uint32_t length)
{
    return (struct diag_at){
        .file = s->p->file, .line = mark.line, .column = mark.column, .length = length};
}

PRINTF_LIKE(5, 6)
static bool say(const struct scene *s, struct yaml_mark at, uint32_t length, const char *hint,
                const char *fmt, ...)
{
    struct buf text = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&text, fmt, ap);
    va_end(ap);
    diag_add(s->diags, DIAG_ERROR, "yaml-syntax", place_of(s, at, length), hint, "%s",
             buf_cstr(&text));
    buf_release(&text);
    return true;
}

static void note_begin(const struct scene *s, const char *what)
{
    if (s->diags->count > 0 && s->p->begin.line > 0) {
        diag_note(s->diags, &s->diags->items[s->diags->count - 1], place_of(s, s->p->begin, 0),
                  "%s", what);
    }
}

static bool say_start(const struct scene *s)
{
    char c = char_at(s);
    if (c == '\t') {
        return say(s, s->p->at, 1, "YAML is indented with spaces alone",
                   "a tab in the indentation");
    }
    if (c == '`') {
        return say(s, s->p->at, 1, "put the whole text in quotes: '`date`'",
                   "a text that begins with a backtick needs quotes");
    }
    return say(s, s->p->at, 1, "put the whole text in quotes",
               "a text that begins with `%c` needs quotes", c);
}

/* A `:` where no key can be. */
static bool say_colon(const struct scene *s)
{
    struct str left = str_sub(s->line, 0, s->at);
    if (has_key(str_trim(left)) || str_find(left, STR(": ")) > 0) {
        return say(s, s->p->at, 1, "put the text behind the first colon in quotes",
                   "a second `: ` in one line: YAML reads it as one more key");
    }
    if (s->before.n > 0 && !has_key(s->before) && s->before.p[0] != '-' &&
        str_chr(str_trim(s->before), '-') != 0) {
        return say(s, s->p->at, 1, "is the colon missing there: `key:` or `key: value`?",
                   "no key can stand here: the line before is no key, but a text");
    }
    if (indent_of(s->line) > indent_of(s->before)) {
        return say(s, s->p->at, 1, "indent it as the line before it",
                   "this line is indented below one that has its value already");
    }
    return say(s, s->p->at, 1, "a text with `: ` in it needs quotes; look at the indentation, too",
               "no key can stand here");
}

static bool follows_quote(const struct scene *s)
{
    struct str left = str_trim(str_sub(s->line, 0, s->at));
    return left.n > 1 && (left.p[left.n - 1] == '"' || left.p[left.n - 1] == '\'');
}

/* The parser wanted another line of the list or mapping, and found something else. */
static bool say_next(const struct scene *s)
{
    struct str left = str_trim(str_sub(s->line, 0, s->at));
    if (follows_quote(s)) {
        bool single = left.p[left.n - 1] == '\'';
        return say(s, s->p->at, 1,
                   single ? "quotes go around the whole text; inside of them write '' for '"
                          : "quotes go around the whole text; inside of them write \\\" for \"",
                   "the text goes on behind its closing quote");
    }
    if (left.n > 0) {
        say(s, s->p->at, 1, "look at quotes and brackets in this line",
            "this is not expected here");
        note_begin(s, "in what begins here");
        return true;
    }
    say(s, s->p->at, 1, "lines of one list or mapping begin in the same column",
        "this line is indented by %" PRIu32 ", which fits nothing above it", s->p->at.column - 1);
    note_begin(s, within(s, "collection") ? "the list that is still open begins here"
                                          : "the mapping that is still open begins here");
    return true;
}

static bool say_bracket(const struct scene *s)
{
    struct str line = line_of(s->p->text, s->p->begin.line);
    size_t at = offset_of(line, s->p->begin.column);
    char open = at < line.n ? line.p[at] : '[';
    const char *name = open == '{' ? "`{`" : "`[`";
    say(s, s->p->begin, 1,
        open == '{' ? "divide the pairs by `,`, close it by `}`"
                    : "divide the items by `,`, close it by `]`",
        "this %s is not closed", name);
    if (s->diags->count > 0 && s->line.n > 0) {
        diag_note(s->diags, &s->diags->items[s->diags->count - 1], place_of(s, s->p->at, 0),
                  "this is no part of it");
    }
    return true;
}

static bool say_scanned(const struct scene *s)
{
    if (says(s, "unexpected end of stream") && within(s, "quoted")) {
        return say(s, s->p->begin, 1, NULL, "this quote is never closed");
    }
    if (says(s, "document indicator") && within(s, "quoted")) {
        return say(s, s->p->begin, 1, NULL, "this quote is not closed before the `---`");
    }
    if (says(s, "unknown escape character")) {
        return say(s, s->p->at, 1, "in single quotes a backslash is a character as any other",
                   "`\\%c` means nothing inside of double quotes", char_at(s));
    }
    if (says(s, "could not find expected ':'")) {
        return say(s, s->p->begin, 1, "write `key: value`, with a blank behind the colon",
                   "this is no key: its colon is missing");
    }
    if (says(s, "block sequence entries are not allowed")) {
        return say(s, s->p->at, 1, "begin each `- item` on a line of its own, or write [a, b]",
                   "a list cannot begin here");
    }
    if (says(s, "tab character")) {
        return say(s, s->p->at, 1, "YAML is indented with spaces alone",
                   "a tab in the indentation");
    }
    if (says(s, "undefined tag handle") || within(s, "a tag")) {
        return say(s, s->p->at, 1, "put the whole text in quotes",
                   "a text that begins with `!` needs quotes");
    }
    if (within(s, "an anchor") || within(s, "an alias")) {
        return say(s, s->p->at, 1, "put the whole text in quotes, if it is one",
                   "`&` and `*` begin names of anchors");
    }
    return false;
}

void yaml_problem_report(const struct yaml_problem *p, struct diags *diags)
{
    struct scene s = {.p = p, .diags = diags, .line = line_of(p->text, p->at.line)};
    s.at = offset_of(s.line, p->at.column);
    s.before = line_before(p);
    bool said = says(&s, "cannot start any token")                               ? say_start(&s)
                : says(&s, "mapping values are not allowed")                     ? say_colon(&s)
                : says(&s, "expected ',' or")                                    ? say_bracket(&s)
                : says(&s, "expected key") || says(&s, "expected '-' indicator") ? say_next(&s)
                                                                                 : say_scanned(&s);
    if (!said) {
        say(&s, p->at, 1, "look at the indentation of this line and at quotes before it", "%s%s%s",
            p->problem, p->context ? " " : "", p->context ? p->context : "");
        note_begin(&s, "in what begins here");
    }
}
