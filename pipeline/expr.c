#include "common/base.h"

#include <stdlib.h>

#include "common/limits.h"
#include "common/regex.h"
#include "pipeline/expr.h"

enum token_kind {
    TOKEN_TEXT,
    TOKEN_VARIABLE,
    TOKEN_NULL,
    TOKEN_PATTERN,
    TOKEN_EQUALS,
    TOKEN_DIFFERS,
    TOKEN_MATCHES,
    TOKEN_MATCHES_NOT,
    TOKEN_AND,
    TOKEN_OR,
    TOKEN_OPEN,
    TOKEN_CLOSE,
};

struct token {
    enum token_kind kind;
    size_t at;
    struct str text; /* without quotes, without $; of a pattern with its slashes */
    struct regex *regex;
};

struct expr {
    struct arena *arena;
    struct token *items; /* postfix */
    size_t count;
    struct expr_value *stack;
    struct token **patterns; /* beside the stack: where a value is a literal pattern */
};

struct lexer {
    struct arena *arena;
    struct str text;
    size_t at;
    struct expr_error *error;
};

static int refuse(struct expr_error *error, size_t at, const char *message)
{
    *error = (struct expr_error){.at = at, .message = message};
    return -E_INVALID;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static int lex_quoted(struct lexer *l, struct token *t, char quote)
{
    ptrdiff_t end = str_chr(str_sub(l->text, l->at + 1, l->text.n), quote);
    if (end < 0) {
        return refuse(l->error, l->at, "this quote is never closed");
    }
    t->kind = TOKEN_TEXT;
    t->text = str_sub(l->text, l->at + 1, (size_t)end);
    l->at += (size_t)end + 2;
    return 0;
}

/* From a slash to the next one without a backslash before it, and the flags. */
static int lex_pattern(struct lexer *l, struct token *t)
{
    size_t end = l->at + 1;
    while (end < l->text.n && (l->text.p[end] != '/' || l->text.p[end - 1] == '\\')) {
        end++;
    }
    if (end >= l->text.n) {
        return refuse(l->error, l->at, "this regular expression is never closed by `/`");
    }
    for (end++; end < l->text.n && l->text.p[end] != '\0' && strchr("ismU", l->text.p[end]);
         end++) {
    }
    struct str pattern;
    struct str flags;
    const char *reason = NULL;
    size_t wrong_at = 0;
    t->kind = TOKEN_PATTERN;
    t->text = str_sub(l->text, l->at, end - l->at);
    if (!regex_split_literal(t->text, &pattern, &flags)) {
        return refuse(l->error, l->at, "this regular expression is empty");
    }
    if (regex_compile(l->arena, pattern, flags, &t->regex, &reason, &wrong_at) < 0) {
        return refuse(l->error, l->at + 1 + wrong_at, reason);
    }
    l->at = end;
    return 0;
}

static int lex_variable(struct lexer *l, struct token *t)
{
    size_t end = l->at + 1;
    while (end < l->text.n && is_word(l->text.p[end])) {
        end++;
    }
    if (end == l->at + 1) {
        bool brace = end < l->text.n && l->text.p[end] == '{';
        return refuse(l->error, l->at,
                      brace ? "in an expression a variable is written $NAME, without braces"
                            : "a variable's name must follow the `$`");
    }
    t->kind = TOKEN_VARIABLE;
    t->text = str_sub(l->text, l->at + 1, end - l->at - 1);
    l->at = end;
    return 0;
}

static bool is_the_word(struct str rest, const char *word)
{
    size_t n = strlen(word);
    return str_starts(rest, str_from(word)) && (rest.n == n || !is_word(rest.p[n]));
}

/* What people write who think of another language. */
static const char *why_no_operator(struct str rest)
{
    static const struct {
        const char *word;
        const char *message;
    } words[] = {
        {"and", "write `&&`"},
        {"or", "write `||`"},
        {"not", "there is no negation: write `$A == null`, `!=` or `!~`"},
        {"true", "a text stands in quotes: write `\"true\"`"},
        {"false", "a text stands in quotes: write `\"false\"`"},
    };
    static const struct {
        const char *start;
        const char *message;
    } signs[] = {
        {"=", "one `=` compares nothing: write `==`"},
        {"&", "one `&` means nothing: write `&&`"},
        {"|", "one `|` means nothing: write `||`"},
        {"!", "there is no negation: write `$A == null`, `!=` or `!~`"},
        {"<", "values are texts and cannot be ordered: only `==`, `!=`, `=~`, `!~`"},
        {">", "values are texts and cannot be ordered: only `==`, `!=`, `=~`, `!~`"},
        {"^", "a regular expression stands between slashes: `/^.../`"},
        {"\xe2\x80\x9c", "a typographic quote: write `\"`"},
        {"\xe2\x80\x9d", "a typographic quote: write `\"`"},
        {"\xe2\x80\x98", "a typographic quote: write `'`"},
        {"\xe2\x80\x99", "a typographic quote: write `'`"},
        {"\xc2\xa0", "a no-break space: write a plain one"},
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (is_the_word(rest, words[i].word)) {
            return words[i].message;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(signs); i++) {
        if (str_starts(rest, str_from(signs[i].start))) {
            return signs[i].message;
        }
    }
    return is_word(rest.p[0]) ? "texts stand in quotes, variables begin with `$`"
                              : "this is no part of an expression";
}

static int lex_operator(struct lexer *l, struct token *t)
{
    static const struct {
        struct str text;
        enum token_kind kind;
    } operators[] = {
        {{"==", 2}, TOKEN_EQUALS},      {{"!=", 2}, TOKEN_DIFFERS}, {{"=~", 2}, TOKEN_MATCHES},
        {{"!~", 2}, TOKEN_MATCHES_NOT}, {{"&&", 2}, TOKEN_AND},     {{"||", 2}, TOKEN_OR},
        {{"(", 1}, TOKEN_OPEN},         {{")", 1}, TOKEN_CLOSE},    {{"null", 4}, TOKEN_NULL},
    };
    struct str rest = str_sub(l->text, l->at, l->text.n);
    for (size_t i = 0; i < ARRAY_LEN(operators); i++) {
        if (str_starts(rest, operators[i].text)) {
            t->kind = operators[i].kind;
            l->at += operators[i].text.n;
            return 0;
        }
    }
    return refuse(l->error, l->at, why_no_operator(rest));
}

/* 1: a token; 0: the end. */
static int lex(struct lexer *l, struct token *t)
{
    while (l->at < l->text.n && strchr(" \t\r\n\f\v", l->text.p[l->at])) {
        l->at++;
    }
    if (l->at >= l->text.n) {
        return 0;
    }
    char c = l->text.p[l->at];
    *t = (struct token){.at = l->at};
    int r = c == '"' || c == '\'' ? lex_quoted(l, t, c)
            : c == '/'            ? lex_pattern(l, t)
            : c == '$'            ? lex_variable(l, t)
                                  : lex_operator(l, t);
    return r < 0 ? r : 1;
}

static bool is_value(enum token_kind kind)
{
    return kind <= TOKEN_PATTERN;
}

static int binding(enum token_kind kind)
{
    return kind == TOKEN_OR ? 1 : kind == TOKEN_AND ? 2 : kind == TOKEN_OPEN ? 0 : 3;
}

/* Dijkstra's shunting yard: operators wait until a weaker one comes. */
struct yard {
    struct token *waiting;
    size_t waiting_count;
    struct token *out;
    size_t out_count;
    bool want_value;
};

static void release_operators(struct yard *y, int stronger_than)
{
    while (y->waiting_count > 0) {
        struct token *top = &y->waiting[y->waiting_count - 1];
        if (top->kind == TOKEN_OPEN || binding(top->kind) < stronger_than) {
            return;
        }
        y->out[y->out_count++] = *top;
        y->waiting_count--;
    }
}

static int add_token(struct yard *y, const struct token *t, struct expr_error *error)
{
    bool starts_value = is_value(t->kind) || t->kind == TOKEN_OPEN;
    if (starts_value != y->want_value) {
        return refuse(error, t->at,
                      y->want_value ? "a value is missing before this"
                                    : "an operator is missing before this");
    }
    if (is_value(t->kind)) {
        y->out[y->out_count++] = *t;
        y->want_value = false;
    } else if (t->kind == TOKEN_CLOSE) {
        release_operators(y, 0);
        if (y->waiting_count == 0) {
            return refuse(error, t->at, "this parenthesis was never opened");
        }
        y->waiting_count--;
    } else {
        if (t->kind != TOKEN_OPEN) {
            release_operators(y, binding(t->kind));
        }
        y->waiting[y->waiting_count++] = *t;
        y->want_value = true;
    }
    return 0;
}

static int parse_tokens(struct lexer *l, struct yard *y)
{
    struct token t;
    int r;
    while ((r = lex(l, &t)) > 0) {
        r = add_token(y, &t, l->error);
        if (r < 0) {
            return r;
        }
    }
    if (r < 0) {
        return r;
    }
    if (y->want_value) {
        return refuse(l->error, l->text.n,
                      l->at == 0 ? "the expression is empty" : "a value is missing at the end");
    }
    release_operators(y, 0);
    if (y->waiting_count > 0) {
        return refuse(l->error, y->waiting[y->waiting_count - 1].at,
                      "this parenthesis is never closed");
    }
    return 0;
}

int expr_parse(struct arena *arena, struct str text, struct expr **ret,
               struct expr_error *ret_error)
{
    if (text.n > LIMIT_EXPRESSION) {
        return refuse(ret_error, LIMIT_EXPRESSION, "the expression is too long");
    }
    struct lexer l = {.arena = arena, .text = text, .error = ret_error};
    struct yard y = {.waiting = xmalloc((text.n + 1) * sizeof(struct token)),
                     .out = xmalloc((text.n + 1) * sizeof(struct token)),
                     .want_value = true};
    int r = parse_tokens(&l, &y);
    if (r == 0) {
        struct expr *e = arena_alloc(arena, sizeof(*e));
        *e = (struct expr){.arena = arena, .count = y.out_count};
        e->items = arena_array(arena, e->count, sizeof(*e->items));
        memcpy(e->items, y.out, e->count * sizeof(*e->items));
        e->stack = arena_array(arena, e->count, sizeof(*e->stack));
        e->patterns = arena_array(arena, e->count, sizeof(*e->patterns));
        *ret = e;
    }
    free(y.waiting);
    free(y.out);
    return r;
}

static struct expr_value truth(bool b)
{
    return (struct expr_value){.kind = EXPR_BOOL, .truth = b};
}

static bool equal(struct expr_value a, struct expr_value b)
{
    return a.kind == b.kind &&
           (a.kind == EXPR_NULL ||
            (a.kind == EXPR_BOOL ? a.truth == b.truth : str_eq(a.text, b.text)));
}

/* Ruby's idea of true: everything but nil and false. */
static bool is_true(struct expr_value v)
{
    return v.kind == EXPR_TEXT || (v.kind == EXPR_BOOL && v.truth);
}

/* The right side is a pattern, or a text that holds one ("/^v/"), or else it is searched for the
 * left side: GitLab's "abc" =~ "b" asks if "b" contains "abc". */
static int search(struct expr *e, struct expr_value left, struct expr_value right,
                  const struct token *literal, bool *ret_found)
{
    struct str text = left.kind == EXPR_TEXT ? left.text : STR("");
    struct str pattern;
    struct str flags;
    struct regex *re = literal ? literal->regex : NULL;
    const char *reason;
    size_t at;
    *ret_found = false;
    if (left.kind == EXPR_BOOL) {
        text = left.truth ? STR("true") : STR("false");
    }
    if (!literal && right.kind != EXPR_TEXT) {
        return 0;
    }
    if (!literal && (!regex_split_literal(right.text, &pattern, &flags) ||
                     regex_compile(e->arena, pattern, flags, &re, &reason, &at) < 0)) {
        *ret_found = text.n == 0 || str_find(right.text, text) >= 0;
        return 0;
    }
    return regex_search(re, text, ret_found);
}

static int apply(struct expr *e, const struct token *t, size_t depth)
{
    struct expr_value *left = &e->stack[depth - 2];
    struct expr_value right = e->stack[depth - 1];
    struct token *pattern = e->patterns[depth - 1];
    struct token **result_pattern = &e->patterns[depth - 2];
    bool found;
    int r;
    switch (t->kind) {
    case TOKEN_EQUALS:
        *left = truth(equal(*left, right));
        break;
    case TOKEN_DIFFERS:
        *left = truth(!equal(*left, right));
        break;
    case TOKEN_MATCHES:
    case TOKEN_MATCHES_NOT:
        r = search(e, *left, right, pattern, &found);
        if (r < 0) {
            return r;
        }
        *left = truth(found == (t->kind == TOKEN_MATCHES));
        break;
    case TOKEN_AND:
    case TOKEN_OR:
        if (is_true(*left) == (t->kind == TOKEN_AND)) {
            *left = right;
            *result_pattern = pattern;
        }
        return 0;
    case TOKEN_TEXT:
    case TOKEN_VARIABLE:
    case TOKEN_NULL:
    case TOKEN_PATTERN:
    case TOKEN_OPEN:
    case TOKEN_CLOSE:
        check(false);
    }
    *result_pattern = NULL;
    return 0;
}

static struct expr_value value_of(const struct token *t, const struct vars *vars)
{
    struct str text = t->text;
    if (t->kind == TOKEN_VARIABLE) {
        const struct var *var = vars_get(vars, t->text);
        if (!var) {
            return (struct expr_value){.kind = EXPR_NULL};
        }
        text = var->value;
    }
    return (struct expr_value){.kind = t->kind == TOKEN_NULL ? EXPR_NULL : EXPR_TEXT, .text = text};
}

int expr_evaluate(struct expr *e, const struct vars *vars, struct expr_value *ret)
{
    size_t depth = 0;
    for (size_t i = 0; i < e->count; i++) {
        struct token *t = &e->items[i];
        if (is_value(t->kind)) {
            e->patterns[depth] = t->kind == TOKEN_PATTERN ? t : NULL;
            e->stack[depth++] = value_of(t, vars);
            continue;
        }
        check(depth >= 2);
        int r = apply(e, t, depth);
        if (r < 0) {
            return r;
        }
        depth--;
    }
    check(depth == 1);
    *ret = e->stack[0];
    return 0;
}

bool expr_holds(struct expr_value v)
{
    return v.kind == EXPR_BOOL ? v.truth : v.kind == EXPR_TEXT && str_trim(v.text).n > 0;
}

size_t expr_variables(const struct expr *e, struct str *ret, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < e->count && count < max; i++) {
        bool known = e->items[i].kind != TOKEN_VARIABLE;
        for (size_t k = 0; k < count && !known; k++) {
            known = str_eq(ret[k], e->items[i].text);
        }
        if (!known) {
            ret[count++] = e->items[i].text;
        }
    }
    return count;
}
