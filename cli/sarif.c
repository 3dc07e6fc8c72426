#include "common/base.h"

#include "cli/sarif.h"
#include "pipeline/code.h"

static json_t *message(const char *text)
{
    return json_pack("{s:s}", "text", text);
}

static json_t *rules(void)
{
    json_t *list = json_array();
    for (size_t i = 0; i < diag_code_count; i++) {
        const struct code *code = &diag_codes[i];
        json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:{s:s}}", "id", code->name,
                                              "shortDescription", message(code->text), "help",
                                              message(code->text), "defaultConfiguration", "level",
                                              code->level == DIAG_ERROR ? "error" : "warning"));
    }
    return list;
}

json_t *sarif_new(void)
{
    return json_pack("{s:s, s:s, s:[{s:{s:{s:s, s:s, s:o}}, s:s, s:[]}]}", "$schema",
                     "https://json.schemastore.org/sarif-2.1.0.json", "version", "2.1.0", "runs",
                     "tool", "driver", "name", "davit", "version", DAVIT_VERSION, "rules", rules(),
                     "columnKind", "unicodeCodePoints", "results");
}

/* RFC 3986: what is no part of a path is written as %XX. */
static json_t *uri(const char *file)
{
    struct buf b = BUF_INIT;
    for (const char *p = file; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-._~/:@", *p);
        if (plain) {
            buf_add_char(&b, *p);
        } else {
            buf_addf(&b, "%%%02X", (unsigned char)*p);
        }
    }
    json_t *o = json_string(buf_cstr(&b));
    buf_release(&b);
    return o;
}

static json_t *physical_location(const char *file, json_t *region)
{
    json_t *o = json_pack("{s:{s:o}}", "artifactLocation", "uri", uri(file));
    if (region) {
        json_object_set_new(o, "region", region);
    }
    return o;
}

/* NULL: the place in the file is not known. An end column that is left out is the end of the line.
 */
static json_t *region_of(const struct diag *d)
{
    if (d->line == 0) {
        return NULL;
    }
    json_t *o = json_pack("{s:I}", "startLine", (json_int_t)d->line);
    if (d->column > 0) {
        json_object_set_new(o, "startColumn", json_integer(d->column));
    }
    if (d->end_line > d->line) {
        json_object_set_new(o, "endLine", json_integer(d->end_line));
        if (d->end_column != UINT32_MAX) {
            json_object_set_new(o, "endColumn", json_integer(d->end_column));
        }
    } else if (d->column > 0) {
        uint32_t length = MAX(d->length, 1u);
        json_object_set_new(o, "endColumn", json_integer((json_int_t)d->column + length));
    }
    return o;
}

static json_t *related(const struct diag *d)
{
    json_t *list = json_array();
    for (size_t i = 0; i < d->note_count; i++) {
        const struct diag_note *n = &d->notes[i];
        json_t *region = n->line == 0 ? NULL
                                      : json_pack("{s:I, s:I}", "startLine", (json_int_t)n->line,
                                                  "startColumn", (json_int_t)n->column);
        json_array_append_new(list, json_pack("{s:I, s:o, s:o}", "id", (json_int_t)i + 1, "message",
                                              message(n->message), "physicalLocation",
                                              physical_location(n->file, region)));
    }
    return list;
}

static json_t *result(const struct diag *d)
{
    struct buf text = BUF_INIT;
    const struct code *code = code_find(d->code);
    buf_addf(&text, "%s%s%s", d->message, d->hint ? "; " : "", d->hint ? d->hint : "");
    json_t *o = json_pack("{s:s, s:s, s:o}", "ruleId", d->code, "level",
                          d->level == DIAG_ERROR ? "error" : "warning", "message",
                          message(buf_cstr(&text)));
    check(code);
    json_object_set_new(o, "ruleIndex", json_integer(code - diag_codes));
    if (d->file[0] != '\0') {
        json_object_set_new(
            o, "locations",
            json_pack("[{s:o}]", "physicalLocation", physical_location(d->file, region_of(d))));
    }
    if (d->note_count > 0) {
        json_object_set_new(o, "relatedLocations", related(d));
    }
    buf_release(&text);
    return o;
}

void sarif_add(json_t *log, const struct diags *diags)
{
    json_t *run = json_array_get(json_object_get(log, "runs"), 0);
    json_t *results = json_object_get(run, "results");
    check(results);
    for (size_t i = 0; i < diags->count; i++) {
        json_array_append_new(results, result(&diags->items[i]));
    }
}
