#include "common/base.h"

#include "broker/config/options.h"

#include <stdlib.h>

#include "broker/net/fleet_turn.h"
#include "broker/vault/authority.h"
#include "common/limits.h"
#include "common/os.h"

#define RELAXED_MAX_MS     60000u /* the store commits before that anyway, as a rule */
#define COUNT_MAX          1000000u
#define TIME_MAX_MS        (24u * 3600 * 1000)
#define CERTIFICATE_MIN_MS 10000u
#define KEEP_PIPELINES_MS  (90ull * 24 * 3600 * 1000)

/* Reads the text of an option into its field; false: it is not of that kind. */
typedef bool (*take_fn)(struct options *o, void *field, const char *text);

static bool take_TEXT(struct options *o, void *field, const char *text)
{
    *(const char **)field = arena_strdup(&o->arena, str_from(text));
    return text[0] != '\0';
}

static bool take_MS(struct options *o, void *field, const char *text)
{
    uint64_t ms;

    if (str_to_u64(str_from(text), &ms) < 0 || ms < 10 || ms > TIME_MAX_MS) {
        return false;
    }
    *(uint32_t *)field = (uint32_t)ms;
    return true;
}

static bool take_COUNT(struct options *o, void *field, const char *text)
{
    uint64_t n;

    if (str_to_u64(str_from(text), &n) < 0 || n == 0 || n > COUNT_MAX) {
        return false;
    }
    *(uint32_t *)field = (uint32_t)n;
    return true;
}

static bool take_DURABILITY(struct options *o, void *field, const char *text)
{
    static const char relaxed[] = "relaxed:";
    const struct str word = str_from(text);
    uint64_t ms = 0;

    if (!str_eqz(word, "full") && (!str_starts(word, str_from(relaxed)) ||
                                   str_to_u64(str_sub(word, strlen(relaxed), word.n), &ms) < 0 ||
                                   ms == 0 || ms > RELAXED_MAX_MS)) {
        return false;
    }
    *(uint32_t *)field = (uint32_t)ms;
    return true;
}

/* "0" is the one duration that means something else. */
static bool take_KEEP(struct options *o, void *field, const char *text)
{
    uint64_t ms = 0;

    if (strcmp(text, "0") != 0 &&
        (str_to_duration_ms(str_from(text), &ms) < 0 || ms < 1000 || ms > LIMIT_EXPIRE_MS)) {
        return false;
    }
    *(uint64_t *)field = ms;
    return true;
}

static bool take_FLAG(struct options *o, void *field, const char *text)
{
    *(bool *)field = strcmp(text, "true") == 0;
    return *(bool *)field || strcmp(text, "false") == 0;
}

static bool take_PROJECT(struct options *o, void *field, const char *text)
{
    struct fetch_projects *list = field;
    struct fetch_project project;

    if (list->count == LIMIT_INCLUDE_PROJECTS ||
        !fetch_project_parse(arena_strdup(&o->arena, str_from(text)), &project)) {
        return false;
    }
    if (list->items == NULL) {
        list->items = arena_array(&o->arena, LIMIT_INCLUDE_PROJECTS, sizeof(*list->items));
    }
    list->items[list->count++] = project;
    return true;
}

static bool is_host(struct str name)
{
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] <= ' ' || name.p[i] > '~' || strchr("/*?\"'", name.p[i]) != NULL) {
            return false;
        }
    }
    return name.n > 0 && name.n <= LIMIT_CERT_NAME;
}

static bool take_NAMES(struct options *o, void *field, const char *text)
{
    struct options_names list = {.count = 0};
    struct str rest = str_from(text);
    struct str part;

    list.items = arena_array(&o->arena, LIMIT_CERT_NAMES, sizeof(*list.items));
    while (str_split(&rest, ',', &part)) {
        part = str_trim(part);
        if (!is_host(part) || list.count == LIMIT_CERT_NAMES - OPTIONS_OWN_NAMES) {
            return false;
        }
        list.items[list.count++] = arena_strdup(&o->arena, part);
    }
    *(struct options_names *)field = list;
    return list.count > 0;
}

static bool take_LIFE(struct options *o, void *field, const char *text)
{
    uint64_t ms;

    if (str_to_duration_ms(str_from(text), &ms) < 0 || ms < CERTIFICATE_MIN_MS ||
        ms > LIMIT_CERT_MS) {
        return false;
    }
    *(uint64_t *)field = ms;
    return true;
}

static bool take_LEVEL(struct options *o, void *field, const char *text)
{
    return log_level_from(text, (enum log_level *)field) == 0;
}

enum kind {
#define KIND(name, expected) KIND_##name,
#include "broker/config/kinds.def"
#undef KIND
};

static const struct {
    take_fn take;
    const char *expected;
} kinds[] = {
#define KIND(name, expected) [KIND_##name] = {take_##name, expected},
#include "broker/config/kinds.def"
#undef KIND
};

static const struct {
    enum kind kind;
    size_t offset;
} places[] = {
#define OPTION(KIND, name, argument, field, change, help) \
    {KIND_##KIND, offsetof(struct options, field)},
#include "broker/config/options.def"
#undef OPTION
};

const struct option_info *option_info(enum option_id o)
{
    static const struct option_info infos[] = {
#define OPTION(KIND, name, argument, field, change, help) {name, argument, help, change},
#include "broker/config/options.def"
#undef OPTION
    };

    check(o < OPTION_COUNT);
    return &infos[o];
}

const char *option_expected(enum option_id o)
{
    check(o < OPTION_COUNT);
    return kinds[places[o].kind].expected;
}

void options_init(struct options *o)
{
    *o = (struct options){.fleet_url = "tcp://127.0.0.1:7070",
                          .http = "127.0.0.1:7080",
                          .worker_life_ms = AUTHORITY_WORKER_LIFE_MS,
                          .server_life_ms = AUTHORITY_SERVER_LIFE_MS,
                          .heartbeat_ms = FLEET_HEARTBEAT_MS,
                          .lease_ms = FLEET_LEASE_MS,
                          .s3_region = "us-east-1",
                          .s3_key = "env:DAVIT_S3_KEY",
                          .s3_keep = 16,
                          .keep_pipelines_ms = KEEP_PIPELINES_MS,
                          .log_level = LOG_INFO};
    arena_init(&o->arena, 0);
    o->declared = arena_alloc(&o->arena, sizeof(*o->declared));
    pb__configure__init(o->declared);
}

void options_release(struct options *o)
{
    arena_release(&o->arena);
}

/* Those of a list are all remembered. */
static const char *remember(struct options *o, enum option_id which, const char *text)
{
    const char *before = o->said[which];

    return places[which].kind == KIND_PROJECT && before != NULL
               ? arena_printf(&o->arena, "%s %s", before, text)
               : arena_strdup(&o->arena, str_from(text));
}

bool options_set(struct options *o, enum option_id which, const char *text)
{
    void *field = (char *)o + places[which].offset;

    check(which < OPTION_COUNT);
    if (!str_is_utf8(str_from(text), NULL) || !kinds[places[which].kind].take(o, field, text)) {
        return false;
    }
    o->said[which] = remember(o, which, text);
    return true;
}

static struct str text_of(void *ctx, const char *file)
{
    return buf_str(ctx);
}

static int load_file(struct options *o, const char *file, struct buf *why)
{
    struct buf text = BUF_INIT;
    struct diags diags;
    int r = os_read_file(file, LIMIT_YAML_BYTES, &text);

    if (r < 0) {
        buf_addf(why, "cannot read %s: %s\n", file, err_text(r));
        buf_release(&text);
        return r;
    }
    diags_init(&diags);
    r = options_read(o, file, buf_str(&text), &diags);
    for (size_t i = 0; i < diags.count; i++) {
        diag_render(&diags.items[i], text_of, &text, false, why);
    }
    diags_release(&diags);
    buf_release(&text);
    return r;
}

/* A worker that misses one beat must not be lost. */
static int check_times(const struct options *o, struct buf *why)
{
    if (o->lease_ms < 2 * o->heartbeat_ms) {
        buf_addf(why,
                 "a lease of %u ms is too short for a heartbeat every %u ms: twice is the least\n",
                 o->lease_ms, o->heartbeat_ms);
        return -E_USAGE;
    }
    return 0;
}

int options_load(const struct options_source *source, struct options *ret, struct buf *why)
{
    struct options o;
    int r;

    options_init(&o);
    r = source->file != NULL ? load_file(&o, source->file, why) : 0;
    for (size_t i = 0; r == 0 && i < source->flag_count; i++) {
        check(options_set(&o, source->flags[i].which, source->flags[i].text));
    }
    r = r < 0 ? r : check_times(&o, why);
    if (r < 0) {
        options_release(&o);
        return r;
    }
    *ret = o;
    return 0;
}
