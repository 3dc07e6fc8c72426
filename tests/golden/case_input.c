#include "common/base.h"

#include "tests/golden/case_input.h"

static int include(void *ctx, const struct include_ref *ref, struct included *ret,
                   const char **ret_why)
{
    struct case_input *c = ctx;
    const char *name = pipeline_include_name(&c->arena, ref);
    (void)ret_why;
    for (size_t i = 1; i < c->file_count; i++) {
        if (strcmp(c->files[i].path, name) == 0) {
            bool known = ref->kind == INCLUDE_PROJECT || ref->kind == INCLUDE_COMPONENT;
            ret->text = c->files[i].text;
            ret->sha = known ? STR("00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee") : STR_NULL;
            ret->version = ref->kind == INCLUDE_COMPONENT ? STR("1.2.3") : STR_NULL;
            return 0;
        }
    }
    return c->offline && ref->kind != INCLUDE_LOCAL ? -E_UNSUPPORTED : -E_NOT_FOUND;
}

struct str case_text_of(void *ctx, const char *file)
{
    struct case_input *c = ctx;
    for (size_t i = 0; i < c->file_count; i++) {
        if (strcmp(c->files[i].path, file) == 0) {
            return c->files[i].text;
        }
    }
    return STR_NULL;
}

static bool push(struct str *list, size_t *count, size_t max, struct str item)
{
    if (*count == max) {
        return false;
    }
    list[(*count)++] = item;
    return true;
}

static bool compare(void *ctx, struct str ref, const struct str **ret, size_t *ret_count)
{
    struct case_input *c = ctx;
    for (size_t i = 0; i < c->compared_count; i++) {
        if (str_eq(c->compared[i].ref, ref)) {
            *ret = c->compared[i].paths;
            *ret_count = c->compared[i].count;
            return true;
        }
    }
    return false;
}

static bool set_compared(struct case_input *c, struct str line)
{
    struct str ref = STR_NULL;
    size_t i = 0;
    if (!str_split(&line, ' ', &ref)) {
        return false;
    }
    while (i < c->compared_count && !str_eq(c->compared[i].ref, ref)) {
        i++;
    }
    if (i == ARRAY_LEN(c->compared)) {
        return false;
    }
    c->compared_count = MAX(c->compared_count, i + 1);
    c->compared[i].ref = ref;
    c->in.compare = compare;
    c->in.compare_ctx = c;
    return line.n == 0 ||
           push(c->compared[i].paths, &c->compared[i].count, ARRAY_LEN(c->compared[i].paths), line);
}

static bool set_fact(struct case_input *c, struct str line)
{
    struct str word;
    if (!str_split(&line, ' ', &word)) {
        return false;
    }
    const char *value = arena_strdup(&c->arena, line);
    if (str_eqz(word, "ref") || str_eqz(word, "tag")) {
        c->facts.ref = value;
        c->facts.tag = str_eqz(word, "tag");
    } else if (str_eqz(word, "origin")) {
        c->facts.origin = value;
    } else if (str_eqz(word, "var")) {
        struct str name = STR_NULL;
        if (!str_split(&line, '=', &name) || !var_name_valid(name)) {
            return false;
        }
        vars_set(&c->submitted, (struct var){.name = name, .value = line});
    } else if (str_eqz(word, "input") || str_eqz(word, "json")) {
        struct str name = STR_NULL;
        if (!str_split(&line, '=', &name) || c->in.input_count == ARRAY_LEN(c->inputs)) {
            return false;
        }
        c->inputs[c->in.input_count++] = (struct pipeline_value){
            .name = name, .text = line, .json = str_eqz(word, "json")};
    } else if (str_eqz(word, "offline")) {
        c->offline = true;
    } else if (str_eqz(word, "path")) {
        return push(c->paths, &c->in.path_count, ARRAY_LEN(c->paths), line);
    } else if (str_eqz(word, "change")) {
        c->in.changes_known = true;
        return push(c->changes, &c->in.change_count, ARRAY_LEN(c->changes), line);
    } else if (str_eqz(word, "only")) {
        return push(c->only, &c->in.only_count, ARRAY_LEN(c->only), line);
    } else if (str_eqz(word, "compare")) {
        return set_compared(c, line);
    } else if (str_eqz(word, "changes")) {
        c->in.changes_known = true;
    } else {
        return false;
    }
    return true;
}

static bool split_files(struct case_input *c, struct str text)
{
    struct str rest = text;
    struct str line;
    while (str_split(&rest, '\n', &line)) {
        struct case_file *last = &c->files[c->file_count - 1];
        if (str_starts(line, STR("#--- "))) {
            struct str path = str_sub(line, 5, line.n);
            last->text.n = (size_t)(line.p - last->text.p);
            bool foreign = str_chr(path, ':') >= 0; /* not of the repository */
            if (c->file_count == ARRAY_LEN(c->files) ||
                (!foreign && !push(c->paths, &c->in.path_count, ARRAY_LEN(c->paths), path))) {
                return false;
            }
            c->files[c->file_count++] = (struct case_file){.path = arena_strdup(&c->arena, path),
                                                           .text = rest};
        } else if (str_starts(line, STR("#! ")) && !set_fact(c, str_sub(line, 3, line.n))) {
            return false;
        }
    }
    return true;
}

bool case_input_try(struct case_input *c, const char *file, struct str text)
{
    memset(c, 0, sizeof(*c));
    arena_init(&c->arena, 0);
    vars_init(&c->submitted, &c->arena);
    c->facts = (struct pipeline_facts){
        .project = "group/demo",
        .ref = "main",
        .sha = "1f0e4a3b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f",
        .origin = "push",
        .default_branch = "main",
        .commit_message = "Add a crane\n\nIt lowers boats.\n",
        .commit_author = "Ada <ada@example.org>",
        .commit_timestamp = "2026-02-03T04:05:06Z",
        .config_path = ".gitlab-ci.yml",
        .server_url = "http://127.0.0.1:7433",
    };
    c->files[0] = (struct case_file){.path = file, .text = text};
    c->file_count = 1;
    bool ok = split_files(c, text);
    case_input_prepare(c);
    return ok;
}

void case_input_init(struct case_input *c, const char *file, struct str text)
{
    check(case_input_try(c, file, text));
}

void case_input_prepare(struct case_input *c)
{
    vars_init(&c->predefined, &c->arena);
    pipeline_predefined(&c->predefined, &c->facts);
    c->in.file = c->files[0].path;
    c->in.text = c->files[0].text;
    c->in.overlay_file = PIPELINE_OVERLAY;
    c->in.overlay = case_text_of(c, PIPELINE_OVERLAY);
    c->in.include = include;
    c->in.include_ctx = c;
    c->in.paths = c->paths;
    c->in.changes = c->changes;
    c->in.only = c->only;
    c->in.inputs = c->inputs;
    c->in.predefined = c->predefined.items;
    c->in.predefined_count = c->predefined.count;
    c->in.submitted = c->submitted.items;
    c->in.submitted_count = c->submitted.count;
    c->in.ref = c->facts.ref;
    c->in.tag = c->facts.tag;
    c->in.origin = c->facts.origin;
}

void case_input_release(struct case_input *c)
{
    arena_release(&c->arena);
}
