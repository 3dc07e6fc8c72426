/* Keywords of jobs that stand for themselves: coverage, hooks, id_tokens, manual_confirmation. */
#include "common/base.h"

#include "common/regex.h"
#include "pipeline/compile.h"

void coverage_read(struct compile *c, const struct node *n, struct job *job)
{
    struct str text;
    struct str pattern;
    struct str flags;
    struct regex *regex;
    const char *reason;
    size_t at;
    if (!read_name(c, n, "coverage", &text)) {
        return;
    }
    if (!regex_split_literal(text, &pattern, &flags)) {
        report(c, n, "bad-regex", "coverage: '/Coverage: \\d+\\.\\d+%/'",
               "`coverage` must be a regular expression between slashes");
        return;
    }
    if (regex_compile(c->arena, pattern, flags, &regex, &reason, &at) < 0) {
        report(c, n, "bad-regex", NULL, "`" STR_FMT "`: %s", STR_ARG(text), reason);
        return;
    }
    job->plan.coverage = pb_bytes_ref(text);
}

void hooks_read(struct compile *c, const struct node *n, struct job *job)
{
    struct texts t = {0};
    struct read_texts how = {
        .what = "hooks:pre_get_sources_script", .single = true, .depth = SCRIPT_NESTING};
    if (read_keys(c, n, SCOPE_HOOKS, "hooks") && read_texts_of(c, n, how, &t)) {
        job->plan.pre_get_sources = texts_to_bytes(c->arena, t);
        job->plan.n_pre_get_sources = t.count;
    }
}

static Pb__IdTokenSpec *read_id_token(struct compile *c, const struct pair *p)
{
    struct texts t = {0};
    struct read_texts how = {
        .what = "id_tokens:aud", .single = true, .depth = 10, .max = LIMIT_ID_TOKEN_AUDIENCES};
    if (!var_name_valid(p->key->text) || p->key->text.n > LIMIT_NAME) {
        report(c, p->key, "bad-variable-name", NULL,
               "`" STR_FMT "` is no name for a variable: letters, digits and _ only",
               STR_ARG(p->key->text));
        return NULL;
    }
    if (!read_keys(c, p->value, SCOPE_ID_TOKEN, "id_tokens")) {
        return NULL;
    }
    if (!key_of(p->value, "aud")) {
        report(c, p->key, "missing-key", "id_tokens: { NAME: { aud: https://example.org } }",
               "the token `" STR_FMT "` needs an `aud`", STR_ARG(p->key->text));
        return NULL;
    }
    if (!read_texts_of(c, p->value, how, &t)) {
        return NULL;
    }
    Pb__IdTokenSpec *token = arena_alloc(c->arena, sizeof(*token));
    pb__id_token_spec__init(token);
    token->name = arena_strdup(c->arena, p->key->text);
    token->audiences = texts_to_bytes(c->arena, t);
    token->n_audiences = t.count;
    return token;
}

void id_tokens_read(struct compile *c, const struct node *n, struct job *job)
{
    if (n->kind != NODE_MAPPING) {
        report(c, n, "wrong-type", "id_tokens: { NAME: { aud: https://example.org } }",
               "`id_tokens` must be a mapping of names to tokens, found %s", node_what(n));
        return;
    }
    if (n->count > LIMIT_ID_TOKENS) {
        report(c, n, "limit", NULL, "more than %u tokens", LIMIT_ID_TOKENS);
        return;
    }
    job->plan.n_id_tokens = 0;
    job->plan.id_tokens = arena_array(c->arena, n->count + 1, sizeof(Pb__IdTokenSpec *));
    for (uint32_t i = 0; i < n->count; i++) {
        Pb__IdTokenSpec *token = read_id_token(c, &n->pairs[i]);
        if (token) {
            job->plan.id_tokens[job->plan.n_id_tokens++] = token;
        }
    }
}

void manual_confirmation_read(struct compile *c, const struct node *n, struct job *job)
{
    struct str text;
    if (!read_text(c, n, "manual_confirmation", &text)) {
        return;
    }
    if (text.n == 0 || text.n > LIMIT_CONFIRMATION || !str_is_utf8(text, NULL)) {
        report(c, n, "bad-value", NULL, "`manual_confirmation` must have 1 to %u bytes of text",
               LIMIT_CONFIRMATION);
        return;
    }
    job->plan.manual_confirmation = arena_strdup(c->arena, text);
}
