/* artifacts of jobs, and among them reports: files with a meaning. */
#include "common/base.h"

#include "pipeline/compile.h"

#define EXPOSE_AS_BYTES 100

static void read_paths(struct compile *c, const struct node *m, const char *what,
                       ProtobufCBinaryData **ret, size_t *ret_count)
{
    struct texts t = {0};
    read_texts_of(c, m, (struct read_texts){.what = what, .single = true, .depth = 10}, &t);
    *ret = texts_to_bytes(c->arena, t);
    *ret_count = t.count;
}

static void read_expire_in(struct compile *c, const struct node *n, Pb__ArtifactSpec *spec)
{
    uint64_t ms = 0;
    if (node_is_string(n) && str_eqz(n->text, "never")) {
        spec->never_expires = true;
    } else if (read_duration(c, n, "expire_in", &ms)) {
        spec->never_expires = ms == 0 || ms > LIMIT_EXPIRE_MS; /* GitLab: 0 keeps it for ever */
        spec->expire_in_ms = spec->never_expires ? 0 : ms;
    }
}

/* The types of reports, and whether they are one file. */
static const struct {
    const char *name;
    bool one_file;
} reports[] = {
    {"accessibility", false},
    {"annotations", false},
    {"api_fuzzing", false},
    {"browser_performance", true},
    {"cluster_image_scanning", false},
    {"codequality", false},
    {"container_scanning", false},
    {"coverage_fuzzing", false},
    {"coverage_report", false},
    {"cyclonedx", false},
    {"dast", false},
    {"dependency_scanning", false},
    {"dotenv", false},
    {"junit", false},
    {"license_scanning", false},
    {"load_performance", true},
    {"lsif", false},
    {"metrics", false},
    {"repository_xray", false},
    {"requirements", false},
    {"requirements_v2", false},
    {"sarif", false},
    {"sast", false},
    {"scip", false},
    {"secret_detection", false},
    {"terraform", false},
};

_Static_assert(ARRAY_LEN(reports) <= LIMIT_REPORTS, "a job may have one report of each type");

static bool is_one_file(const char *type)
{
    for (size_t i = 0; i < ARRAY_LEN(reports); i++) {
        if (strcmp(reports[i].name, type) == 0) {
            return reports[i].one_file;
        }
    }
    return false;
}

static bool read_coverage_report(struct compile *c, const struct node *n, Pb__ReportSpec *report_)
{
    static const char *const formats[] = {"cobertura", "jacoco"};
    const struct node *format = key_of(n, "coverage_format");
    const struct node *path = key_of(n, "path");
    struct texts t = {0};
    size_t i;
    if (!read_keys(c, n, SCOPE_COVERAGE_REPORT, "coverage_report")) {
        return false;
    }
    if (!format || !path) {
        report(c, n, "missing-key", "{ coverage_format: cobertura, path: coverage.xml }",
               "`coverage_report` needs a `coverage_format` and a `path`");
        return false;
    }
    if (!read_choice(c, format, "coverage_format", formats, ARRAY_LEN(formats), &i) ||
        !read_texts(c, path, (struct read_texts){.what = "coverage_report:path", .single = true},
                    &t)) {
        return false;
    }
    report_->format = (char *)formats[i];
    report_->paths = texts_to_bytes(c->arena, t);
    report_->n_paths = t.count;
    return true;
}

static bool read_report(struct compile *c, const struct node *n, Pb__ReportSpec *ret)
{
    const char *what = arena_printf(c->arena, "reports:%s", ret->type);
    struct texts t = {0};
    struct str path;
    if (strcmp(ret->type, "coverage_report") == 0) {
        return read_coverage_report(c, n, ret);
    }
    if (is_one_file(ret->type)) {
        if (!read_text(c, n, what, &path)) {
            return false;
        }
        t = (struct texts){.items = arena_alloc(c->arena, sizeof(path)), .count = 1};
        t.items[0] = path;
    } else if (!read_texts(c, n, (struct read_texts){.what = what, .single = true, .depth = 10},
                           &t)) {
        return false;
    }
    ret->paths = texts_to_bytes(c->arena, t);
    ret->n_paths = t.count;
    return t.count > 0;
}

static void read_reports(struct compile *c, const struct node *n, Pb__ArtifactSpec *spec)
{
    if (!read_keys(c, n, SCOPE_REPORTS, "artifacts:reports")) {
        return;
    }
    spec->reports = arena_array(c->arena, n->count + 1, sizeof(Pb__ReportSpec *));
    for (uint32_t i = 0; i < n->count; i++) {
        const struct keyword *k = keyword_find(SCOPE_REPORTS, n->pairs[i].key->text);
        const struct node *value = n->pairs[i].value;
        if (!k || (node_is_null(value) && !is_one_file(k->name.p))) {
            continue;
        }
        Pb__ReportSpec *r = arena_alloc(c->arena, sizeof(*r));
        pb__report_spec__init(r);
        r->type = (char *)k->name.p;
        if (read_report(c, value, r)) {
            spec->reports[spec->n_reports++] = r;
        }
    }
}

static void read_expose_as(struct compile *c, const struct node *n, Pb__ArtifactSpec *spec)
{
    struct str text;
    if (!read_name(c, n, "artifacts:expose_as", &text)) {
        return;
    }
    bool ok = text.n <= EXPOSE_AS_BYTES;
    for (size_t i = 0; i < text.n; i++) {
        char ch = text.p[i];
        ok &= (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
              ch == '_' || (i > 0 && (ch == '-' || ch == ' '));
    }
    if (!ok) {
        report(c, n, "bad-value", NULL,
               "`artifacts:expose_as` may hold letters, digits, `-`, `_` and blanks, at most %u",
               EXPOSE_AS_BYTES);
        return;
    }
    if (spec->n_paths == 0) {
        report(c, n, "missing-key", NULL, "`artifacts:expose_as` needs `paths`");
    }
    for (size_t i = 0; i < spec->n_paths; i++) {
        if (str_chr(pb_str(spec->paths[i]), '*') >= 0) {
            report(c, n, "keyword-conflict", NULL,
                   "beside `artifacts:expose_as`, `paths` cannot hold a `*`");
        }
    }
    spec->expose_as = pb_bytes_ref(text);
}

static void read_access(struct compile *c, const struct node *m, Pb__ArtifactSpec *spec)
{
    static const char *const names[] = {"all", "developer", "maintainer", "none"};
    const struct node *access = key_of(m, "access");
    const struct node *public = key_of(m, "public");
    bool everybody = true;
    size_t i;
    if (access && public) {
        report(c, public, "keyword-conflict", "write `access` alone",
               "`artifacts:public` cannot stand beside `access`");
    } else if (access && read_choice(c, access, "artifacts:access", names, ARRAY_LEN(names), &i)) {
        spec->access = (char *)names[i];
    } else if (public && read_bool(c, public, "artifacts:public", &everybody)) {
        spec->access = (char *)(everybody ? "all" : "developer");
    }
}

void artifacts_read(struct compile *c, const struct node *n, struct job *job)
{
    if (!read_keys(c, n, SCOPE_ARTIFACTS, "artifacts")) {
        return;
    }
    Pb__ArtifactSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    struct str name = STR("");
    bool untracked = false;
    pb__artifact_spec__init(spec);
    read_paths(c, n, "artifacts:paths", &spec->paths, &spec->n_paths);
    read_paths(c, n, "artifacts:exclude", &spec->exclude, &spec->n_exclude);
    read_keep_of(c, n, "artifacts:when", &spec->when);
    if (key_of(n, "expire_in")) {
        read_expire_in(c, key_of(n, "expire_in"), spec);
    }
    if (read_name_of(c, n, "artifacts:name", &name)) {
        spec->name = pb_bytes_ref(name);
    }
    if (read_bool_of(c, n, "artifacts:untracked", &untracked)) {
        spec->untracked = untracked;
    }
    if (key_of(n, "reports")) {
        read_reports(c, key_of(n, "reports"), spec);
    }
    if (key_of(n, "expose_as")) {
        read_expose_as(c, key_of(n, "expose_as"), spec);
    }
    read_access(c, n, spec);
    if (spec->n_paths > 0 || spec->untracked || spec->n_reports > 0) {
        job->plan.artifacts = spec;
    }
}
