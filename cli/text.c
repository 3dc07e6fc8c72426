/* What commands print. */
#include "common/base.h"

#include <stdarg.h>
#include <stdio.h>

#include "cli/cli.h"

int cli_fail(const struct cli *c, int r, const char *fmt, ...)
{
    va_list ap;
    if (c->quiet) {
        return r;
    }
    fprintf(stderr, "davit %s: ", c->command);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return r;
}

const char *cli_duration(uint64_t ms, char *text, size_t n)
{
    uint64_t s = ms / 1000;
    if (ms < 60000) {
        snprintf(text, n, "%" PRIu64 ".%02" PRIu64 "s", s, ms % 1000 / 10);
    } else if (s < 3600) {
        snprintf(text, n, "%" PRIu64 "m %02" PRIu64 "s", s / 60, s % 60);
    } else {
        snprintf(text, n, "%" PRIu64 "h %02" PRIu64 "m", s / 3600, s % 3600 / 60);
    }
    return text;
}

const char *cli_bytes(uint64_t bytes, char *text, size_t n)
{
    static const char *const UNITS[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    size_t unit = 0;
    while (v >= 1000 && unit + 1 < ARRAY_LEN(UNITS)) {
        v /= 1000;
        unit++;
    }
    snprintf(text, n, unit == 0 ? "%.0f %s" : "%.1f %s", v, UNITS[unit]);
    return text;
}

static const char *status_color(const char *status)
{
    static const struct {
        const char *status;
        const char *color;
    } COLORS[] = {
        {"success", "32"},   {"online", "32"},   {"failed", "31"},
        {"offline", "31"},   {"running", "34"},  {"assigned", "34"},
        {"pending", "33"},   {"canceled", "90"}, {"skipped", "90"},
        {"created", "90"},   {"manual", "35"},   {"scheduled", "35"},
        {"available", "32"}, {"stopping", "33"}, {"stopped", "90"},
        {"canceling", "33"}, {"suspect", "33"},  {"waiting_for_resource", "33"},
    };
    for (size_t i = 0; i < ARRAY_LEN(COLORS); i++) {
        if (strcmp(COLORS[i].status, status) == 0) {
            return COLORS[i].color;
        }
    }
    return NULL;
}

const char *cli_status(const struct cli *c, const char *status)
{
    static _Thread_local char ring[8][64];
    static _Thread_local unsigned next;
    const char *color = c->color ? status_color(status) : NULL;
    if (color == NULL) {
        return status;
    }
    char *text = ring[next++ % ARRAY_LEN(ring)];
    snprintf(text, sizeof(ring[0]), "\x1b[%sm%s\x1b[0m", color, status);
    return text;
}

void cli_print_json(json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
    json_decref(value);
}

const char *json_text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

uint64_t json_number(const json_t *o, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(o, key));
    return v > 0 ? (uint64_t)v : 0;
}

bool json_flag(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}
