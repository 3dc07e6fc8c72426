/* Cases of cron: tables/cron_gitlab.json. What a row asks for is told by its keys. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/cron.h"
#include "common/os.h"
#include "tests/golden/corpus.h"

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool load_zone(struct arena *arena, const char *name, struct tz *ret)
{
    struct buf bytes = BUF_INIT;
    bool ok = os_read_zone(tz_name(str_from(name)), &bytes) == 0 &&
              tz_parse(arena, arena_str(arena, buf_str(&bytes)), ret) == 0;
    buf_release(&bytes);
    return ok;
}

/* "2021-03-02T01:00", perhaps with seconds and a Z, in seconds of that calendar. */
static int64_t seconds_of(const char *text)
{
    int year = 0;
    unsigned month = 1;
    unsigned day = 1;
    unsigned hour = 0;
    unsigned minute = 0;
    check(sscanf(text, "%d-%u-%uT%u:%u", &year, &month, &day, &hour, &minute) == 5);
    return tz_days(year, month, day) * 86400 + hour * 3600 + minute * 60;
}

static uint64_t bits_of(const json_t *numbers)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < json_array_size(numbers); i++) {
        bits |= 1ull << json_integer_value(json_array_get(numbers, i));
    }
    return bits;
}

static bool same_fields(const struct cron *c, const json_t *fields)
{
    const struct {
        const char *name;
        uint64_t bits;
    } all[] = {{"min", c->minutes},
               {"hour", c->hours},
               {"day", c->days},
               {"month", c->months},
               {"wday", c->weekdays}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        const json_t *want = json_object_get(fields, all[i].name);
        if (want && bits_of(want) != all[i].bits) {
            return false;
        }
    }
    return true;
}

static int64_t wall(const struct tz *tz, int64_t at_s)
{
    int64_t from_s;
    int64_t until_s;
    return at_s + tz_offset(tz, at_s, &from_s, &until_s);
}

static bool is_date(int64_t local_s, const json_t *want)
{
    struct tz_date d = tz_date(local_s / 86400);
    return d.year == json_integer_value(json_array_get(want, 0)) &&
           d.month == json_integer_value(json_array_get(want, 1)) &&
           d.day == json_integer_value(json_array_get(want, 2));
}

/* The next time has this hour in UTC; the next and previous ones are on these days. */
static bool same_times(const struct cron *cron, const struct tz *tz, const json_t *c)
{
    int64_t from_s = seconds_of(text_of(c, "from"));
    int64_t next_s = 0;
    int64_t previous_s = 0;
    const json_t *hour = json_object_get(c, "utc_hour");
    const json_t *next = json_object_get(c, "next_ymd");
    const json_t *previous = json_object_get(c, "prev_ymd");
    return cron_next(cron, tz, from_s, &next_s) == 0 &&
           cron_previous(cron, tz, from_s, &previous_s) == 0 &&
           (!hour || next_s % 86400 / 3600 == json_integer_value(hour)) &&
           (!next || is_date(wall(tz, next_s), next)) &&
           (!previous || is_date(wall(tz, previous_s), previous));
}

enum outcome cron_run_case(const json_t *c)
{
    struct arena arena;
    struct cron cron;
    struct tz tz;
    const char *why;
    arena_init(&arena, 0);
    tz_utc(&tz);
    bool zone = !json_object_get(c, "tz") || load_zone(&arena, text_of(c, "tz"), &tz);
    bool valid = cron_parse(str_from(text_of(c, "cron")), &cron, &why) == 0;
    bool ok;
    if (json_object_get(c, "tz_valid")) {
        ok = zone == json_is_true(json_object_get(c, "tz_valid"));
    } else if (json_is_true(json_object_get(c, "invalid"))) {
        ok = !valid;
    } else if (!zone || !valid) {
        ok = false;
    } else if (json_object_get(c, "fields")) {
        ok = same_fields(&cron, json_object_get(c, "fields"));
    } else if (json_object_get(c, "match")) {
        int64_t at_s = seconds_of(text_of(c, "match"));
        ok = cron_matches(&cron, &tz, at_s) == json_is_true(json_object_get(c, "result"));
    } else {
        ok = same_times(&cron, &tz, c);
    }
    arena_release(&arena);
    return ok ? CASE_PASSED : CASE_DIFFERS;
}

/* The folder cron/ holds examples of another program in a form that nothing here says. */
bool cron_run(struct corpus *k)
{
    char *folder = corpora_path(k->root, "cron");
    if (folder) {
        fprintf(stderr, "%s: its form is not known here: skipped (see tables/cron_gitlab)\n",
                folder);
    }
    free(folder);
    return false;
}
