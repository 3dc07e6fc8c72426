/* The expressions of rules:if: ==, !=, =~, !~, &&, ||, parentheses, null, texts, $variables and
 * /regular expressions/. Comparisons bind stronger than &&, && stronger than ||; all from left to
 * right. As in GitLab, && and || give one of their sides, an empty text holds as a condition inside
 * of an expression, and does not as its result.
 *
 * An expression is a list of tokens in postfix order, so neither reading nor running it recurses.
 * Ownership: all in the arena that was given; the text must live as long. Threads: one at a time.
 */
#ifndef DAVIT_PIPELINE_EXPR_H
#define DAVIT_PIPELINE_EXPR_H

#include "common/err.h"
#include "common/expand.h"

struct expr;

enum expr_kind { EXPR_NULL, EXPR_BOOL, EXPR_TEXT };

struct expr_value {
    enum expr_kind kind;
    bool truth;      /* EXPR_BOOL */
    struct str text; /* EXPR_TEXT */
};

struct expr_error {
    size_t at; /* offset in the text */
    const char *message;
};

/* 0; -E_INVALID with what is wrong, and where. */
int expr_parse(struct arena *arena, struct str text, struct expr **ret,
               struct expr_error *ret_error);

/* 0; -E_LIMIT when a regular expression took too long. */
int expr_evaluate(struct expr *e, const struct vars *vars, struct expr_value *ret);

/* The names of its variables, each once, in their order; at most `max` of them. Gives how many. */
size_t expr_variables(const struct expr *e, struct str *ret, size_t max);

/* Does the result let a rule match: true, or a text that is not blank. */
bool expr_holds(struct expr_value v);

#endif
