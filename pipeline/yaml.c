#include "common/base.h"

#include <yaml.h>

#include "common/limits.h"
#include "pipeline/block.h"
#include "pipeline/yaml.h"
#include "pipeline/yaml_problem.h"

#define BOM           "\xEF\xBB\xBF"
#define MAX_DOCUMENTS 2

/* So many bytes of a text count as a node: who repeats long texts pays for it. */
#define TEXT_WEIGHT_BYTES 256

struct frame {
    struct node *node;
    const struct node *key; /* of a mapping: waits for its value */
};

struct reader {
    struct arena *arena;
    struct diags *diags;
    const char *file;
    struct str text;
    bool has_blocks; /* `$[[ ... ]]`: they are hidden in the text that the parser sees */
    yaml_parser_t parser;
    struct frame stack[LIMIT_YAML_DEPTH];
    uint32_t depth;
    struct node *anchors; /* a mapping from name to node */
    uint64_t nodes;       /* so far, as written out */
    yaml_mark_t end;      /* of the last scalar, alias or bracket */
    const struct node *documents[MAX_DOCUMENTS];
    uint32_t document_count;
};

static struct diag_at mark_at(const struct reader *r, yaml_mark_t from, yaml_mark_t to)
{
    size_t length = to.line == from.line && to.column > from.column ? to.column - from.column : 0;
    struct diag_at at = {.file = r->file,
                         .line = (uint32_t)from.line + 1,
                         .column = (uint32_t)from.column + 1,
                         .length = (uint32_t)length};
    if (to.line > from.line && to.column == 0) { /* `|` ends where the next line begins */
        at.end_line = (uint32_t)to.line;
        at.end_column = UINT32_MAX;
    } else if (to.line > from.line) {
        at.end_line = (uint32_t)to.line + 1;
        at.end_column = (uint32_t)to.column + 1;
    }
    return at;
}

static void set_place(struct node *n, struct diag_at at)
{
    n->file = at.file;
    n->line = at.line;
    n->column = at.column;
    n->length = at.length;
    n->end_line = at.end_line > at.line ? at.end_line : 0;
    n->end_column = at.end_column;
}

/* Line and column of a byte, for what libyaml reports by offset only. */
static struct diag_at offset_at(const struct reader *r, size_t offset)
{
    struct diag_at at = {.file = r->file, .line = 1, .column = 1, .length = 1};
    for (size_t i = 0; i < offset && i < r->text.n; i++) {
        if (r->text.p[i] == '\n') {
            at.line++;
            at.column = 1;
        } else if (((uint8_t)r->text.p[i] & 0xC0) != 0x80) {
            at.column++;
        }
    }
    return at;
}

static int refuse_syntax(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const char *problem = p->problem ? p->problem : "this cannot be read";
    if (p->error == YAML_READER_ERROR) {
        diag_add(r->diags, DIAG_ERROR, "yaml-character", offset_at(r, p->problem_offset),
                 "take it out, or write it as an escape in double quotes", "%s", problem);
        return -E_PIPELINE;
    }
    bool begin = p->context && (p->context_mark.line > 0 || p->context_mark.column > 0 ||
                                p->problem_mark.line > 0);
    const struct yaml_problem what = {
        .file = r->file,
        .text = r->text,
        .problem = problem,
        .context = p->context,
        .at = {(uint32_t)p->problem_mark.line + 1, (uint32_t)p->problem_mark.column + 1},
        .begin = {begin ? (uint32_t)p->context_mark.line + 1 : 0,
                  (uint32_t)p->context_mark.column + 1},
    };
    yaml_problem_report(&what, r->diags);
    return -E_PIPELINE;
}

static struct node *reader_node(struct reader *r, enum node_kind kind, const yaml_event_t *e)
{
    struct node *n = node_new(r->arena, kind, NULL);
    set_place(n, mark_at(r, e->start_mark, e->end_mark));
    return n;
}

static int count_nodes(struct reader *r, uint64_t n, const yaml_event_t *e)
{
    r->nodes += n;
    if (r->nodes <= LIMIT_YAML_NODES) {
        return 0;
    }
    diag_add(r->diags, DIAG_ERROR, "yaml-too-big", mark_at(r, e->start_mark, e->end_mark), NULL,
             "more than %u nodes, aliases counted as if written out", LIMIT_YAML_NODES);
    return -E_PIPELINE;
}

static void set_anchor(struct reader *r, const yaml_char_t *anchor, const struct node *n)
{
    if (anchor) {
        struct str name = arena_str(r->arena, str_from((const char *)anchor));
        node_set(r->arena, r->anchors, node_text(r->arena, name, n), n);
    }
}

/* `<<`: the pairs of `from` at the place where it stands; what is there already is overwritten. */
static void merge_pairs(struct reader *r, struct node *into, const struct node *from,
                        const struct node *at)
{
    for (uint32_t i = 0; i < from->count; i++) {
        const struct pair *p = &from->pairs[i];
        struct pair *old = node_find(into, p->key->text);
        if (old && !old->merge) {
            diag_add(r->diags, DIAG_WARNING, "merge-overwrites", node_at(at),
                     "write `<<` as the first key of its mapping",
                     "`<<` replaces the `" STR_FMT "` that stands before it",
                     STR_ARG(p->key->text));
        }
        node_set(r->arena, into, p->key, p->value);
        node_find(into, p->key->text)->merge = at;
    }
}

static bool all_mappings(const struct node *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->items[i]->kind != NODE_MAPPING) {
            return false;
        }
    }
    return true;
}

static void set_pair(struct reader *r, struct node *m, const struct node *key,
                     const struct node *value, bool alias)
{
    if (str_eqz(key->text, "<<")) {
        if (value->kind == NODE_MAPPING) {
            merge_pairs(r, m, value, key);
            return;
        }
        /* Of a list the first wins. An alias of a list is, to Psych, a plain key `<<`. */
        if (value->kind == NODE_LIST && !alias && !value->reference && all_mappings(value)) {
            struct node *sum = node_new(r->arena, NODE_MAPPING, value);
            for (uint32_t i = value->count; i > 0; i--) {
                const struct node *item = value->items[i - 1];
                for (uint32_t k = 0; k < item->count; k++) {
                    node_set(r->arena, sum, item->pairs[k].key, item->pairs[k].value);
                }
            }
            merge_pairs(r, m, sum, key);
            return;
        }
    }
    struct pair *old = node_find(m, key->text);
    if (old && !old->merge) {
        diag_add(r->diags, DIAG_WARNING, "duplicate-key", node_at(key), NULL,
                 "`" STR_FMT "` stands in line %u too: only this one counts", STR_ARG(key->text),
                 old->key->line);
    }
    node_set(r->arena, m, key, value);
}

/* A node is complete: it goes where the innermost open collection wants it. */
static int place(struct reader *r, const struct node *n, bool alias)
{
    if (r->depth == 0) {
        if (node_is_null(n) && r->document_count == 0) {
            return 0; /* `---` twice: GitLab passes over a first document of nothing */
        }
        if (r->document_count < MAX_DOCUMENTS) {
            r->documents[r->document_count] = n;
        }
        r->document_count++;
        return 0;
    }
    struct frame *top = &r->stack[r->depth - 1];
    if (top->node->kind == NODE_LIST) {
        node_append(r->arena, top->node, n);
        return 0;
    }
    if (!top->key) {
        if (n->kind != NODE_SCALAR) {
            diag_add(r->diags, DIAG_ERROR, "yaml-key", node_at(n),
                     "a text that starts with `{` or `[` needs quotes",
                     "a key must be a text, found %s", node_what(n));
            return -E_PIPELINE;
        }
        top->key = n;
        return 0;
    }
    set_pair(r, top->node, top->key, n, alias);
    top->key = NULL;
    return 0;
}

static bool tag_is(const yaml_char_t *tag, const char *name)
{
    return tag && strcmp((const char *)tag, name) == 0;
}

static int refuse_tag(struct reader *r, const yaml_event_t *e, const yaml_char_t *tag)
{
    diag_add(r->diags, DIAG_ERROR, "yaml-tag", mark_at(r, e->start_mark, e->end_mark),
             "`!reference [job, keyword]` is the only tag of pipeline files", "unknown tag `%s`",
             (const char *)tag);
    return -E_PIPELINE;
}

static int read_scalar(struct reader *r, const yaml_event_t *e)
{
    struct node *n = reader_node(r, NODE_SCALAR, e);
    const yaml_char_t *tag = e->data.scalar.tag;
    n->text = arena_str(r->arena, str_of(e->data.scalar.value, e->data.scalar.length));
    if (r->has_blocks) {
        n->text = block_restore(r->arena, n->text);
        n->has_block = block_in(n->text);
    }
    n->type = SCALAR_STRING;
    if (tag_is(tag, "!reference")) {
        diag_add(r->diags, DIAG_ERROR, "reference-invalid", node_at(n), "!reference [job, keyword]",
                 "!reference takes a list of names, found `" STR_FMT "`", STR_ARG(n->text));
        return -E_PIPELINE;
    }
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && e->data.scalar.plain_implicit;
    if (tag_is(tag, YAML_INT_TAG) || tag_is(tag, YAML_FLOAT_TAG) || tag_is(tag, YAML_BOOL_TAG) ||
        tag_is(tag, YAML_NULL_TAG)) {
        plain = true;
    } else if (tag && !tag_is(tag, YAML_STR_TAG) && !tag_is(tag, "!")) {
        return refuse_tag(r, e, tag);
    }
    n->plain = plain;
    if (plain) {
        if (scalar_is_date(n->text)) {
            diag_add(r->diags, DIAG_ERROR, "yaml-date", node_at(n), "put it in quotes",
                     "`" STR_FMT "` is a date, which pipeline files cannot hold", STR_ARG(n->text));
            return -E_PIPELINE;
        }
        scalar_resolve(n);
    }
    n->weight += n->text.n / TEXT_WEIGHT_BYTES;
    set_anchor(r, e->data.scalar.anchor, n);
    int ret = count_nodes(r, n->weight, e);
    return ret < 0 ? ret : place(r, n, false);
}

static int read_alias(struct reader *r, const yaml_event_t *e)
{
    struct str name = str_from((const char *)e->data.alias.anchor);
    struct pair *anchor = node_find(r->anchors, name);
    if (!anchor || anchor->value->open) {
        diag_add(r->diags, DIAG_ERROR, "yaml-alias", mark_at(r, e->start_mark, e->end_mark), NULL,
                 anchor ? "`*" STR_FMT "` stands inside of what it repeats"
                        : "`*" STR_FMT "` repeats an anchor that is not defined before it",
                 STR_ARG(name));
        return -E_PIPELINE;
    }
    int ret = count_nodes(r, anchor->value->weight, e);
    return ret < 0 ? ret : place(r, anchor->value, true);
}

static int open_collection(struct reader *r, const yaml_event_t *e, enum node_kind kind,
                           const yaml_char_t *anchor, const yaml_char_t *tag)
{
    bool reference = tag_is(tag, "!reference");
    if (tag && !tag_is(tag, "!") && !(kind == NODE_MAPPING && tag_is(tag, YAML_MAP_TAG)) &&
        !(kind == NODE_LIST && (tag_is(tag, YAML_SEQ_TAG) || reference))) {
        return refuse_tag(r, e, tag);
    }
    if (r->depth == LIMIT_YAML_DEPTH) {
        diag_add(r->diags, DIAG_ERROR, "yaml-too-deep", mark_at(r, e->start_mark, e->end_mark),
                 NULL, "nested deeper than %u levels", LIMIT_YAML_DEPTH);
        return -E_PIPELINE;
    }
    struct node *n = reader_node(r, kind, e);
    n->open = true;
    n->reference = n->has_reference = reference;
    set_anchor(r, anchor, n);
    r->stack[r->depth++] = (struct frame){.node = n};
    return count_nodes(r, 1, e);
}

static int check_reference(struct reader *r, const struct node *n)
{
    bool ok = n->count > 0;
    for (uint32_t i = 0; i < n->count; i++) {
        ok &= n->items[i]->kind == NODE_SCALAR;
    }
    if (ok) {
        return 0;
    }
    diag_add(r->diags, DIAG_ERROR, "reference-invalid", node_at(n), "!reference [job, keyword]",
             "!reference takes a list of names");
    return -E_PIPELINE;
}

/* The event that ends a collection without brackets stands before what comes next; the collection
 * itself ends with the last thing in it. */
static int close_collection(struct reader *r, const yaml_event_t *e)
{
    check(r->depth > 0);
    struct node *n = r->stack[--r->depth].node;
    bool brackets = e->end_mark.index > e->start_mark.index;
    yaml_mark_t start = {.line = n->line - 1, .column = n->column - 1};
    r->end = brackets ? e->end_mark : r->end;
    set_place(n, mark_at(r, start, r->end));
    n->open = false;
    if (n->reference && check_reference(r, n) < 0) {
        return -E_PIPELINE;
    }
    return place(r, n, false);
}

static int read_event(struct reader *r, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_ALIAS_EVENT:
        r->end = e->end_mark;
        return read_alias(r, e);
    case YAML_SCALAR_EVENT:
        r->end = e->end_mark;
        return read_scalar(r, e);
    case YAML_SEQUENCE_START_EVENT:
        return open_collection(r, e, NODE_LIST, e->data.sequence_start.anchor,
                               e->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return open_collection(r, e, NODE_MAPPING, e->data.mapping_start.anchor,
                               e->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_collection(r, e);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return 0;
    case YAML_DOCUMENT_START_EVENT:
        r->anchors = node_new(r->arena, NODE_MAPPING, NULL);
        return 0;
    }
    return 0;
}

static int read_events(struct reader *r)
{
    for (;;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&r->parser, &event)) {
            return refuse_syntax(r);
        }
        yaml_event_type_t type = event.type;
        int ret = read_event(r, &event);
        yaml_event_delete(&event);
        if (ret < 0 || type == YAML_STREAM_END_EVENT) {
            return ret;
        }
    }
}

static int check_text(struct reader *r)
{
    size_t at = 0;
    if (r->text.n > LIMIT_YAML_BYTES) {
        diag_add(r->diags, DIAG_ERROR, "yaml-too-big", (struct diag_at){.file = r->file}, NULL,
                 "the file has %zu bytes, more than %u", r->text.n, LIMIT_YAML_BYTES);
        return -E_PIPELINE;
    }
    if (!str_is_utf8(r->text, &at)) {
        diag_add(r->diags, DIAG_ERROR, "yaml-utf8", offset_at(r, at), "save the file as UTF-8",
                 "byte 0x%02x is not UTF-8 text", (uint8_t)r->text.p[at]);
        return -E_PIPELINE;
    }
    return 0;
}

static bool is_header(const struct node *n)
{
    return n && n->kind == NODE_MAPPING && node_get(n, "spec");
}

static void finish(struct reader *r, struct yaml_file *ret)
{
    bool header = r->document_count > 1 && is_header(r->documents[0]);
    ret->header = header ? r->documents[0] : NULL;
    ret->body = header ? r->documents[1] : r->documents[0];
    if (r->document_count > (header ? 2u : 1u)) {
        struct diag_at at = r->documents[1] && !header ? node_at(r->documents[1])
                                                       : (struct diag_at){.file = r->file};
        diag_add(r->diags, DIAG_WARNING, "document-ignored", at,
                 "`---` separates a `spec:` header from the pipeline, nothing else",
                 "what follows a further `---` is not read");
    }
    if (ret->body && node_is_null(ret->body)) {
        ret->body = NULL;
    }
}

int yaml_read(struct arena *arena, const char *file, struct str text, struct diags *diags,
              struct yaml_file *ret)
{
    struct reader r = {.arena = arena, .diags = diags, .file = file, .text = text};
    if (str_starts(text, STR(BOM))) {
        r.text = str_sub(text, sizeof(BOM) - 1, text.n);
    }
    if (check_text(&r) < 0) {
        return -E_PIPELINE;
    }
    r.has_blocks = block_in(r.text);
    r.text = block_protect(arena, r.text);
    check(yaml_parser_initialize(&r.parser));
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(r.text.p ? r.text.p : ""),
                                 r.text.n);
    int result = read_events(&r);
    yaml_parser_delete(&r.parser);
    if (result < 0) {
        return result;
    }
    finish(&r, ret);
    return 0;
}
