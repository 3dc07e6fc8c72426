/* The `spec:` header of a file: the inputs it takes, with type, default, options and regex; and
 * their values. */
#include "common/base.h"

#include "pipeline/front.h"
#include "pipeline/yaml.h"

enum input_type { INPUT_STRING, INPUT_NUMBER, INPUT_BOOLEAN, INPUT_ARRAY };

static const char *const type_names[] = {"string", "number", "boolean", "array"};

struct input {
    struct str name;
    const struct node *at;
    enum input_type type;
    const struct node *fallback; /* of `default`; NULL: the input must be given */
    const struct node *rules;    /* that give default and options; NULL: none */
    const struct node *options;  /* NULL: any value */
    struct regex *regex;         /* NULL: any text */
    bool loose;                  /* what is given is not written in a file */
};

static bool has_type(const struct node *n, enum input_type type)
{
    switch (type) {
    case INPUT_STRING:
        return node_is_string(n);
    case INPUT_NUMBER:
        return n->kind == NODE_SCALAR && (n->type == SCALAR_INT || n->type == SCALAR_FLOAT);
    case INPUT_BOOLEAN:
        return n->kind == NODE_SCALAR && n->type == SCALAR_BOOL;
    case INPUT_ARRAY:
        return n->kind == NODE_LIST;
    }
    return false;
}

static bool check_type(struct compile *c, const struct input *in, const struct node *value,
                       const char *which)
{
    if (has_type(value, in->type)) {
        return true;
    }
    bool quotes = in->type == INPUT_STRING && value->kind == NODE_SCALAR;
    bool unquoted = !in->loose && in->type != INPUT_STRING && in->type != INPUT_ARRAY &&
                    node_is_string(value);
    report(c, value, "input-type",
           quotes     ? "put the value in quotes, or give the input its `type`"
           : unquoted ? "write it without quotes"
                      : NULL,
           "input `" STR_FMT "`: the %s must be %s %s, found %s", STR_ARG(in->name), which,
           in->type == INPUT_ARRAY ? "an" : "a", type_names[in->type], node_what(value));
    return false;
}

static bool same_value(const struct node *a, const struct node *b)
{
    if (a->kind != NODE_SCALAR || b->kind != NODE_SCALAR || a->type != b->type) {
        return false;
    }
    return a->type == SCALAR_INT ? a->integer == b->integer : str_eq(a->text, b->text);
}

static bool check_options(struct compile *c, const struct input *in, const struct node *value,
                          const char *which)
{
    if (!in->options) {
        return true;
    }
    const char **names = arena_array(c->arena, in->options->count + 1, sizeof(*names));
    struct buf list = BUF_INIT;
    for (uint32_t i = 0; i < in->options->count; i++) {
        const struct node *option = in->options->items[i];
        if (same_value(option, value)) {
            buf_release(&list);
            return true;
        }
        names[i] = arena_strdup(c->arena, option->text);
        buf_addf(&list, "%s`%.64s`", i == 0 ? "" : ", ", names[i]);
    }
    report(c, value, "input-value", suggest(c, value->text, names, in->options->count),
           "input `" STR_FMT "`: the %s `" STR_FMT "` is none of the options: %.300s",
           STR_ARG(in->name), which, STR_ARG(value->text), buf_cstr(&list));
    buf_release(&list);
    return false;
}

static bool check_regex(struct compile *c, const struct input *in, const struct node *value,
                        const char *which)
{
    bool found = false;
    if (!in->regex || c->slow_regex) {
        return true;
    }
    if (regex_search(in->regex, value->text, &found) < 0) {
        c->slow_regex = true;
        report(c, in->at, "regex-limit", NULL,
               "the regular expression of input `" STR_FMT "` takes too long", STR_ARG(in->name));
        return false;
    }
    if (!found) {
        report(c, value, "input-value", NULL,
               "input `" STR_FMT "`: the %s `" STR_FMT "` does not match its `regex`",
               STR_ARG(in->name), which, STR_ARG(value->text));
    }
    return found;
}

static bool check_value(struct compile *c, const struct input *in, const struct node *value,
                        const char *which)
{
    return check_type(c, in, value, which) && check_options(c, in, value, which) &&
           check_regex(c, in, value, which);
}

static void read_options(struct compile *c, const struct node *n, struct input *in)
{
    if (n->kind != NODE_LIST || n->count == 0) {
        report(c, n, "input-invalid", NULL,
               "`options` of input `" STR_FMT "` must be a list of values, found %s",
               STR_ARG(in->name), n->kind == NODE_LIST ? "an empty one" : node_what(n));
        return;
    }
    if (in->type != INPUT_STRING && in->type != INPUT_NUMBER) {
        report(c, n, "input-invalid", NULL,
               "`options` go with strings and numbers, input `" STR_FMT "` is of type %s",
               STR_ARG(in->name), type_names[in->type]);
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        if (!check_type(c, in, n->items[i], "option")) {
            return;
        }
    }
    in->options = n;
}

static void read_regex(struct compile *c, const struct node *n, struct input *in)
{
    struct str pattern;
    struct str flags = STR("");
    const char *reason;
    size_t at;
    if (!read_text(c, n, "regex", &pattern)) {
        return;
    }
    if (in->type != INPUT_STRING) {
        report(c, n, "input-invalid", NULL,
               "`regex` goes with strings, input `" STR_FMT "` is of type %s", STR_ARG(in->name),
               type_names[in->type]);
        return;
    }
    regex_split_literal(pattern, &pattern, &flags); /* slashes around it may be left out */
    if (regex_compile(c->arena, pattern, flags, &in->regex, &reason, &at) < 0) {
        in->regex = NULL;
        report(c, n, "bad-regex", NULL, "`regex` of input `" STR_FMT "`: %s", STR_ARG(in->name),
               reason);
    }
}

/* A default of nothing is a value, too: nothing. */
static void read_default(struct compile *c, const struct node *n, struct input *in)
{
    if (n && (node_is_null(n) || check_value(c, in, n, "default"))) {
        in->fallback = n;
    }
}

static bool read_input(struct compile *c, const struct pair *p, struct input *ret)
{
    size_t errors = c->diags->errors;
    struct str text;
    size_t type = INPUT_STRING;
    *ret = (struct input){.name = p->key->text, .at = p->key};
    if (node_is_null(p->value)) {
        return true;
    }
    if (p->value->kind != NODE_MAPPING) {
        report(c, p->value, "input-invalid", "name: { type: string, default: text }",
               "input `" STR_FMT "` must be a mapping or nothing, found %s", STR_ARG(p->key->text),
               node_what(p->value));
        return false;
    }
    read_keys(c, p->value, SCOPE_INPUT, "inputs");
    const struct node *type_at = node_get(p->value, "type");
    const struct node *options = node_get(p->value, "options");
    const struct node *regex = node_get(p->value, "regex");
    const struct node *description = node_get(p->value, "description");
    const struct node *fallback = node_get(p->value, "default");
    const struct node *rules = node_get(p->value, "rules");
    if (!node_is_null(type_at) &&
        read_choice(c, type_at, "type", type_names, ARRAY_LEN(type_names), &type)) {
        ret->type = (enum input_type)type;
    }
    if (!node_is_null(description)) {
        read_text(c, description, "description", &text);
    }
    if (!node_is_null(options)) {
        read_options(c, options, ret);
    }
    if (!node_is_null(regex)) {
        read_regex(c, regex, ret);
    }
    if (!node_is_null(rules) && (fallback || !node_is_null(options))) {
        report(c, rules, "keyword-conflict", "put them into a last rule without `if`",
               "input `" STR_FMT "` has `rules`, so `default` and `options` stand in those",
               STR_ARG(ret->name));
    }
    ret->rules = node_is_null(rules) ? NULL : rules;
    if (c->diags->errors == errors) {
        read_default(c, fallback, ret);
    }
    return c->diags->errors == errors;
}

/* What the rule that fits says; without one the input has neither default nor options. */
static bool apply_rules(struct compile *c, struct input *in, const struct node *values)
{
    size_t errors = c->diags->errors;
    const struct node *rule = input_rule(c, in->rules, values);
    const struct node *options = node_get(rule, "options");
    if (!node_is_null(options)) {
        read_options(c, options, in);
    }
    if (c->diags->errors == errors) {
        read_default(c, node_get(rule, "default"), in);
    }
    return c->diags->errors == errors;
}

/* A text of the command line as the type asks; as it is, where it does not fit. */
static const struct node *loosen(struct compile *c, const struct node *value, enum input_type type)
{
    if (!node_is_string(value) || type == INPUT_STRING) {
        return value;
    }
    struct node *typed = node_text(c->arena, value->text, value);
    if (type != INPUT_ARRAY) {
        scalar_resolve(typed);
        return has_type(typed, type) ? typed : value;
    }
    struct yaml_file file = {0};
    struct diags ignored; /* the type's own message is the better one */
    diags_init(&ignored);
    int r = yaml_read(c->arena, value->file, value->text, &ignored, &file);
    diags_release(&ignored);
    return r == 0 && file.body && file.body->kind == NODE_LIST ? file.body : value;
}

static void set_value(struct compile *c, struct input *in, const struct given *given,
                      struct node *ret)
{
    const struct pair *p = node_find(given->values, in->name);
    const struct node *key = node_text(c->arena, in->name, in->at);
    if (p) {
        in->loose = given->loose;
        const struct node *value = in->loose ? loosen(c, p->value, in->type) : p->value;
        if (check_value(c, in, value, "value")) {
            node_set(c->arena, ret, key, value);
        }
    } else if (in->fallback) {
        node_set(c->arena, ret, key, in->fallback);
    } else {
        report(c, given->at ? given->at : in->at, "input-missing",
               given->at ? "inputs: { NAME: value }" : "--input NAME=VALUE",
               "input `" STR_FMT "` must be given: it has no default", STR_ARG(in->name));
    }
}

static void refuse_unknown(struct compile *c, const struct node *spec, const struct given *given)
{
    uint32_t known = spec ? spec->count : 0;
    const char **names = arena_array(c->arena, known + 1, sizeof(*names));
    for (uint32_t i = 0; i < known; i++) {
        names[i] = arena_strdup(c->arena, spec->pairs[i].key->text);
    }
    for (uint32_t i = 0; given->values && i < given->values->count; i++) {
        const struct node *key = given->values->pairs[i].key;
        if (!node_find(spec, key->text)) {
            report(c, key, "input-unknown", suggest(c, key->text, names, known),
                   "the file has no input `" STR_FMT "`", STR_ARG(key->text));
        }
    }
}

const struct node *inputs_read(struct compile *c, const struct node *spec,
                               const struct given *given)
{
    struct node *values = node_new(c->arena, NODE_MAPPING, spec);
    if (!node_is_null(spec) && spec->kind != NODE_MAPPING) {
        report(c, spec, "input-invalid", NULL, "`spec:inputs` must be a mapping, found %s",
               node_what(spec));
        return values;
    }
    spec = node_is_null(spec) ? NULL : spec;
    /* Those with rules after those that the rules speak of. */
    for (int ruled = 0; ruled < 2; ruled++) {
        for (uint32_t i = 0; spec && i < spec->count && compile_charge(c, 1, spec); i++) {
            const struct pair *p = &spec->pairs[i];
            struct input in;
            if (!node_is_null(node_get(p->value, "rules")) == ruled && read_input(c, p, &in) &&
                (!in.rules || apply_rules(c, &in, values))) {
                set_value(c, &in, given, values);
            }
        }
    }
    refuse_unknown(c, spec, given);
    return values;
}

const struct node *inputs_submitted(struct compile *c)
{
    static const struct node place = {.file = "inputs"};
    struct node *values = node_new(c->arena, NODE_MAPPING, &place);
    for (size_t i = 0; i < c->in->input_count; i++) {
        const struct pipeline_value *v = &c->in->inputs[i];
        const struct node *value = node_text(c->arena, v->text, &place);
        struct yaml_file file = {0};
        if (v->json) { /* JSON is YAML, as far as values of inputs go */
            const char *name = arena_printf(c->arena, "inputs:" STR_FMT, STR_ARG(v->name));
            if (yaml_read(c->arena, name, v->text, c->diags, &file) < 0) {
                continue;
            }
            value = file.body ? file.body : node_new(c->arena, NODE_SCALAR, &place);
        }
        node_set(c->arena, values, node_text(c->arena, v->name, &place), value);
    }
    return values;
}

static const struct node *component_value(struct compile *c, const struct source *source,
                                          const struct node *at)
{
    static const struct str none = {"", 0};
    struct str value = none;
    static const char *const names[] = {"name", "sha", "version", "reference"};
    size_t i;
    if (!read_choice(c, at, "spec:component", names, ARRAY_LEN(names), &i)) {
        return NULL;
    }
    if (source->component) {
        const struct included *text = source->text;
        const struct str values[] = {source->name, text->sha, text->version, source->version};
        value = values[i];
    }
    return value.n > 0 ? node_text(c->arena, value, at) : node_new(c->arena, NODE_SCALAR, at);
}

static const struct node *component_read(struct compile *c, const struct node *n,
                                         const struct source *source)
{
    struct node *values = node_new(c->arena, NODE_MAPPING, n);
    if (n->kind != NODE_LIST) {
        report(c, n, "wrong-type", "component: [name, sha, version, reference]",
               "`spec:component` must be a list of names, found %s", node_what(n));
        return values;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *value = component_value(c, source, n->items[i]);
        if (value) {
            node_set(c->arena, values, n->items[i], value);
        }
    }
    return values;
}

bool header_read(struct compile *c, const struct node *header, const struct source *source,
                 const struct given *given, struct names *ret)
{
    size_t errors = c->diags->errors;
    const struct node *spec = NULL;
    for (uint32_t i = 0; i < header->count; i++) {
        const struct pair *p = &header->pairs[i];
        if (!keyword_find(SCOPE_HEADER, p->key->text)) {
            report(c, p->key, "unknown-keyword", "the header before `---` holds `spec` alone",
                   "unknown keyword `" STR_FMT "` in the header", STR_ARG(p->key->text));
        } else if (!node_is_null(p->value) && read_keys(c, p->value, SCOPE_SPEC, "spec")) {
            spec = p->value;
        }
    }
    const struct node *component = node_get(spec, "component");
    *ret = (struct names){.inputs = inputs_read(c, spec_inputs(c, spec, source), given)};
    if (!node_is_null(component)) {
        ret->component = component_read(c, component, source);
    }
    return c->diags->errors == errors;
}
