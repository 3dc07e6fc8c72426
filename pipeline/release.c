/* release, pages: what a job publishes. */
#include "common/base.h"

#include "pipeline/compile.h"

/* A text that may hold variables, of at most LIMIT_RELEASE_TEXT bytes. */
static void read_unexpanded(struct compile *c, const struct node *m, const char *what,
                            ProtobufCBinaryData *ret)
{
    struct str text = STR("");
    if (!key_of(m, what) || !read_text(c, key_of(m, what), what, &text)) {
        return;
    }
    if (text.n == 0 || text.n > LIMIT_RELEASE_TEXT) {
        report(c, key_of(m, what), "bad-value", NULL, "`%s` must have 1 to %u bytes, found %zu",
               what, LIMIT_RELEASE_TEXT, text.n);
        return;
    }
    *ret = pb_bytes_ref(text);
}

static bool digits(struct str *s, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i >= s->n || s->p[i] < '0' || s->p[i] > '9') {
            return false;
        }
    }
    *s = str_sub(*s, count, s->n);
    return true;
}

static bool skip(struct str *s, const char *any_of)
{
    if (s->n == 0 || !strchr(any_of, s->p[0])) {
        return false;
    }
    *s = str_sub(*s, 1, s->n);
    return true;
}

/* ISO 8601: 2026-02-03, 2026-02-03T04:05:06Z, 2026-02-03T04:05:06.123+01:00 */
static bool is_moment(struct str s)
{
    if (!digits(&s, 4) || !skip(&s, "-") || !digits(&s, 2) || !skip(&s, "-") || !digits(&s, 2)) {
        return false;
    }
    if (s.n == 0) {
        return true;
    }
    if (!skip(&s, "T ") || !digits(&s, 2) || !skip(&s, ":") || !digits(&s, 2)) {
        return false;
    }
    if (skip(&s, ":")) {
        if (!digits(&s, 2)) {
            return false;
        }
        if (skip(&s, ".")) {
            do {
                if (!digits(&s, 1)) {
                    return false;
                }
            } while (s.n > 0 && s.p[0] >= '0' && s.p[0] <= '9');
        }
    }
    if (s.n == 0 || (s.n == 1 && skip(&s, "Zz"))) {
        return true;
    }
    if (!skip(&s, "+-") || !digits(&s, 2)) {
        return false;
    }
    return s.n == 0 || ((skip(&s, ":") || true) && digits(&s, 2) && s.n == 0);
}

static void read_released_at(struct compile *c, const struct node *n, Pb__ReleaseSpec *spec)
{
    struct str text;
    if (!read_name(c, n, "release:released_at", &text)) {
        return;
    }
    if (str_chr(text, '$') < 0 && !is_moment(text)) {
        report(c, n, "bad-value", "released_at: '2026-02-03T04:05:06Z'",
               "`release:released_at`: `" STR_FMT "` is no time", STR_ARG(text));
        return;
    }
    spec->released_at = pb_bytes_ref(text);
}

static Pb__ReleaseLink *read_link(struct compile *c, const struct node *n)
{
    static const char *const types[] = {"other", "runbook", "image", "package"};
    const struct node *type = key_of(n, "link_type");
    Pb__ReleaseLink *link = arena_alloc(c->arena, sizeof(*link));
    size_t i;
    pb__release_link__init(link);
    if (!read_keys(c, n, SCOPE_RELEASE_LINK, "links")) {
        return link;
    }
    if (!key_of(n, "name") || !key_of(n, "url")) {
        report(c, n, "missing-key", "links: [{ name: TEXT, url: https://... }]",
               "a link needs a `name` and a `url`");
    }
    read_unexpanded(c, n, "links:name", &link->name);
    read_unexpanded(c, n, "links:url", &link->url);
    read_unexpanded(c, n, "links:filepath", &link->filepath);
    if (type && read_choice(c, type, "links:link_type", types, ARRAY_LEN(types), &i)) {
        link->type = pb_bytes_ref(str_from(types[i]));
    }
    return link;
}

static void read_assets(struct compile *c, const struct node *n, Pb__ReleaseSpec *spec)
{
    const struct node *links = key_of(n, "links");
    if (!read_keys(c, n, SCOPE_RELEASE_ASSETS, "assets")) {
        return;
    }
    if (!links || links->kind != NODE_LIST) {
        report(c, links ? links : n, "wrong-type", "links: [{ name: TEXT, url: https://... }]",
               "`assets:links` must be a list, found %s", node_what(links));
        return;
    }
    if (links->count > LIMIT_RELEASE_LINKS) {
        report(c, links, "limit", NULL, "more than %u links", LIMIT_RELEASE_LINKS);
        return;
    }
    spec->links = arena_array(c->arena, links->count + 1, sizeof(Pb__ReleaseLink *));
    for (uint32_t i = 0; i < links->count; i++) {
        spec->links[spec->n_links++] = read_link(c, links->items[i]);
    }
}

void release_read(struct compile *c, const struct node *n, struct job *job)
{
    struct read_texts how = {
        .what = "release:milestones", .single = true, .depth = 10, .max = LIMIT_TAGS};
    Pb__ReleaseSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    struct texts milestones = {0};
    pb__release_spec__init(spec);
    if (!read_keys(c, n, SCOPE_RELEASE, "release")) {
        return;
    }
    if (!key_of(n, "tag_name") || !key_of(n, "description")) {
        report(c, n, "missing-key", NULL, "`release` needs a `tag_name` and a `description`");
    }
    read_unexpanded(c, n, "release:tag_name", &spec->tag_name);
    read_unexpanded(c, n, "release:tag_message", &spec->tag_message);
    read_unexpanded(c, n, "release:name", &spec->name);
    read_unexpanded(c, n, "release:description", &spec->description);
    read_unexpanded(c, n, "release:ref", &spec->ref);
    if (read_texts_of(c, n, how, &milestones)) {
        spec->milestones = texts_to_bytes(c->arena, milestones);
        spec->n_milestones = milestones.count;
    }
    if (key_of(n, "released_at")) {
        read_released_at(c, key_of(n, "released_at"), spec);
    }
    if (key_of(n, "assets")) {
        read_assets(c, key_of(n, "assets"), spec);
    }
    if (pb__release_spec__get_packed_size(spec) > LIMIT_RELEASE_BYTES) {
        report(c, n, "limit", NULL, "`release` has more than %u bytes", LIMIT_RELEASE_BYTES);
    }
    job->plan.release = spec;
}
