/* Runs every corpus below a folder and counts: corpus [DIR] [--json] [--known FILE] [--only
 * NAME]... Prints NAME PASSED TOTAL for each, its tables indented below, then the misses by name.
 * Exit code 0: all passed, or differ for a reason in the file of known differences; 77: there is no
 * corpus. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/golden/corpus.h"

static const struct {
    const char *name;
    bool (*run)(struct corpus *k);
} corpora[] = {
    {"pipeline-processing", processing_run},
    {"tables", tables_run},
    {"schema-items", schema_run},
    {"gitlab-ci-local", local_run},
    {"real-world", projects_run},
    {"templates", templates_run},
    {"cron", cron_run},
};

void corpus_begin(struct corpus *k, const char *name)
{
    check(k->count < ARRAY_LEN(k->counts));
    k->counts[k->count++] = (struct corpus_count){.name = arena_strdup(&k->arena, str_from(name))};
}

static const char *full_name(struct corpus *k, const char *name)
{
    const struct corpus_count *count = &k->counts[k->count - 1];
    char *full = name ? arena_printf(&k->arena, "%s/%s", count->name, name)
                      : arena_printf(&k->arena, "%s/%u", count->name, count->total);
    for (char *p = full; *p; p++) {
        *p = *p == ' ' || *p == '\n' ? '_' : *p;
    }
    return full;
}

void corpus_case(struct corpus *k, const char *name, enum outcome outcome)
{
    const char *full = full_name(k, name);
    const struct var *known = vars_get(&k->known, str_from(full));
    struct corpus_count *count = &k->counts[k->count - 1];
    const char *reason = known ? known->value.p : NULL;
    count->total++;
    count->passed += outcome == CASE_PASSED;
    if (outcome == CASE_PASSED && !known) {
        return;
    }
    if (outcome == CASE_NOT_YET) {
        fprintf(stderr, "%s needs a keyword that is not supported yet\n", full);
    }
    if (outcome == CASE_PASSED) {
        reason = NULL;
        fprintf(stderr, "%s passes, but is among the known differences\n", full);
    }
    k->failed |= !reason;
    json_array_append_new(k->misses, json_pack("{s:s, s:s?}", "case", full, "known", reason));
}

void corpus_print_errors(const struct diags *d)
{
    for (size_t i = 0; i < d->count; i++) {
        fprintf(stderr, "    %s:%u: %s [%s]\n", d->items[i].file, d->items[i].line,
                d->items[i].message, d->items[i].code);
    }
}

bool corpus_only_not_yet(const struct diags *d)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->items[i].level == DIAG_ERROR && strcmp(d->items[i].code, "not-supported") != 0) {
            return false;
        }
    }
    return d->errors > 0;
}

/* The count of a corpus and all of its parts: "tables" and "tables/...". */
static struct corpus_count sum_of(const struct corpus *k, size_t from)
{
    struct str whole = str_from(k->counts[from].name);
    ptrdiff_t slash = str_chr(whole, '/');
    whole = slash < 0 ? whole : str_sub(whole, 0, (size_t)slash);
    struct corpus_count sum = {.name = k->counts[from].name};
    for (size_t i = from; i < k->count && str_starts(str_from(k->counts[i].name), whole); i++) {
        sum.passed += k->counts[i].passed;
        sum.total += k->counts[i].total;
    }
    return sum;
}

static void print_text(const struct corpus *k)
{
    for (size_t i = 0; i < k->count; i++) {
        const struct corpus_count *count = &k->counts[i];
        const char *part = strchr(count->name, '/');
        if (!part) {
            struct corpus_count sum = sum_of(k, i);
            printf("%s %u %u\n", sum.name, sum.passed, sum.total);
        } else {
            printf("  %s %u %u\n", part + 1, count->passed, count->total);
        }
    }
    for (size_t i = 0; i < json_array_size(k->misses); i++) {
        const json_t *miss = json_array_get(k->misses, i);
        const char *reason = json_string_value(json_object_get(miss, "known"));
        printf("%s %s%s%s\n", reason ? "known" : "MISS",
               json_string_value(json_object_get(miss, "case")), reason ? ": " : "",
               reason ? reason : "");
    }
}

static void print_json(const struct corpus *k)
{
    json_t *list = json_array();
    for (size_t i = 0; i < k->count; i++) {
        bool part = strchr(k->counts[i].name, '/') != NULL;
        struct corpus_count count = part ? k->counts[i] : sum_of(k, i);
        json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "name", count.name, "passed",
                                              (int)count.passed, "total", (int)count.total));
    }
    json_t *all = json_pack("{s:o, s:O, s:b}", "corpora", list, "misses", k->misses, "ok",
                            !k->failed);
    json_dumpf(all, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(all);
}

/* Lines "CORPUS/CASE reason"; # begins a comment. */
static bool read_known(struct corpus *k, const char *path)
{
    struct buf text = BUF_INIT;
    bool ok = os_read_file(path, MIB, &text) == 0;
    struct str rest = buf_str(&text);
    struct str line;
    while (ok && str_split(&rest, '\n', &line)) {
        struct str name;
        if (line.n > 0 && line.p[0] != '#' && str_split(&line, ' ', &name)) {
            vars_set(&k->known, (struct var){.name = name, .value = str_trim(line)});
        }
    }
    buf_release(&text);
    return ok;
}

struct options {
    const char *known;
    const char *only[ARRAY_LEN(corpora)];
    size_t only_count;
    bool json;
};

static bool wanted(const struct options *o, const char *name)
{
    for (size_t i = 0; i < o->only_count; i++) {
        if (strcmp(o->only[i], name) == 0) {
            return true;
        }
    }
    return o->only_count == 0;
}

static bool read_options(int argc, char **argv, struct options *o, struct corpus *k)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            o->json = true;
        } else if (strcmp(argv[i], "--known") == 0 && i + 1 < argc) {
            o->known = argv[++i];
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc &&
                   o->only_count < ARRAY_LEN(o->only)) {
            o->only[o->only_count++] = argv[++i];
        } else if (argv[i][0] != '-' && !k->root) {
            k->root = argv[i];
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct corpus k = {.misses = json_array()};
    struct options o = {.known = DAVIT_SOURCE_ROOT "/tests/golden/corpora_known.txt"};
    bool any = false;
    arena_init(&k.arena, 0);
    vars_init(&k.known, &k.arena);
    if (!read_options(argc, argv, &o, &k) || !read_known(&k, o.known)) {
        fprintf(stderr, "usage: corpus [DIR] [--json] [--known FILE] [--only NAME]...\n");
        return 64;
    }
    k.root = k.root ? k.root : corpora_root();
    for (size_t i = 0; i < ARRAY_LEN(corpora); i++) {
        if (wanted(&o, corpora[i].name)) {
            any |= corpora[i].run(&k);
        }
    }
    if (o.json) {
        print_json(&k);
    } else {
        print_text(&k);
    }
    json_decref(k.misses);
    arena_release(&k.arena);
    return !any ? EXIT_SKIPPED : k.failed ? 1 : 0;
}
