#include "common/base.h"

#include "common/mask_forms.h"

#include "common/crypto.h"

struct forms {
    mask_form_fn add;
    void *ctx;
    int result;
};

static void give(struct forms *f, enum mask_kind kind, struct str form)
{
    if (f->result == 0 && form.n >= MASK_SHORTEST) {
        f->result = f->add(f->ctx, kind, form);
    }
}

static void give_buf(struct forms *f, enum mask_kind kind, struct buf *form)
{
    give(f, kind, buf_str(form));
    crypto_wipe(form->p, form->n);
    buf_clear(form);
}

/* Behind `skip` bytes that nobody knows: without the characters that they have a part in, and
 * without the last one, in which what follows has a part. */
static struct str base64_inner(struct str text, size_t skip, size_t n)
{
    const size_t from = (skip * 8 + 5) / 6;
    const size_t to = (skip + n) * 8 / 6;
    return str_sub(text, from, to - MIN(from, to));
}

static void give_base64(struct forms *f, struct str s)
{
    struct buf padded = BUF_INIT;
    struct buf text = BUF_INIT;

    for (size_t skip = 0; skip < 3; skip++) {
        buf_add(&padded, "\0\0", skip);
        buf_add_str(&padded, s);
        crypto_to_base64(buf_str(&padded), &text);
        const struct str inner = base64_inner(buf_str(&text), skip, s.n);
        give(f, MASK_WRAPPED, inner);
        bool url = false; /* RFC 4648, section 5 */
        for (size_t i = 0; i < text.n; i++) {
            url = url || text.p[i] == '+' || text.p[i] == '/';
            text.p[i] = (char)(text.p[i] == '+' ? '-' : text.p[i] == '/' ? '_' : text.p[i]);
        }
        if (url) {
            give(f, MASK_WRAPPED, inner);
        }
        crypto_wipe(padded.p, padded.n);
        crypto_wipe(text.p, text.n);
        buf_clear(&padded);
        buf_clear(&text);
    }
    buf_release(&padded);
    buf_release(&text);
}

static void give_hex(struct forms *f, struct str s)
{
    struct buf lower = BUF_INIT;
    struct buf upper = BUF_INIT;

    for (size_t i = 0; i < s.n; i++) {
        buf_addf(&lower, "%02x", (uint8_t)s.p[i]);
        buf_addf(&upper, "%02X", (uint8_t)s.p[i]);
    }
    give_buf(f, MASK_WRAPPED, &lower);
    give_buf(f, MASK_WRAPPED, &upper);
    buf_release(&lower);
    buf_release(&upper);
}

/* `kept`: what stays as it is besides letters and digits; `plus`: a blank becomes one. */
static void give_url(struct forms *f, struct str s, const char *kept, bool plus, bool upper)
{
    struct buf text = BUF_INIT;

    for (size_t i = 0; i < s.n; i++) {
        const char c = s.p[i];
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || (c != '\0' && strchr(kept, c) != NULL);
        if (plain) {
            buf_add_char(&text, c);
        } else if (c == ' ' && plus) {
            buf_add_char(&text, '+');
        } else if (upper) {
            buf_addf(&text, "%%%02X", (uint8_t)c);
        } else {
            buf_addf(&text, "%%%02x", (uint8_t)c);
        }
    }
    give_buf(f, MASK_PLAIN, &text);
    buf_release(&text);
}

static void give_urls(struct forms *f, struct str s)
{
    static const struct {
        const char *kept;
        bool plus;
    } styles[] = {
        {"-._~", false},                 /* RFC 3986 */
        {"-._~/", false},                /* of paths */
        {"-._~!*'()", false},            /* encodeURIComponent */
        {"-._~!*'();:@&=+$,/?#", false}, /* encodeURI */
        {"-._*", true},                  /* forms, HTML */
    };

    for (size_t i = 0; i < ARRAY_LEN(styles); i++) {
        give_url(f, s, styles[i].kept, styles[i].plus, true);
        give_url(f, s, styles[i].kept, styles[i].plus, false);
    }
}

static const char *json_short(char c)
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        return NULL;
    }
}

/* `more`: characters that some writers escape without need (of HTML, or the slash). */
static void give_json(struct forms *f, struct str s, const char *more)
{
    struct buf text = BUF_INIT;

    for (size_t i = 0; i < s.n; i++) {
        const char c = s.p[i];
        const char *escape = json_short(c);
        if (escape != NULL) {
            buf_addz(&text, escape);
        } else if (c == '/' && strchr(more, '/') != NULL) {
            buf_addz(&text, "\\/");
        } else if ((uint8_t)c < 0x20 || (c != '/' && strchr(more, c) != NULL)) {
            buf_addf(&text, "\\u%04x", (uint8_t)c);
        } else {
            buf_add_char(&text, c);
        }
    }
    give_buf(f, MASK_PLAIN, &text);
    buf_release(&text);
}

/* As `set -x` shows it, and as it stands in scripts that quote it. */
static void give_shell(struct forms *f, struct str s)
{
    struct buf quoted = BUF_INIT;
    struct buf slashes = BUF_INIT;

    for (size_t i = 0; i < s.n; i++) {
        const char c = s.p[i];
        if (c == '\'') {
            buf_addz(&quoted, "'\\''");
        } else {
            buf_add_char(&quoted, c);
        }
        if (c != '\0' && strchr("\"$`\\", c) != NULL) {
            buf_add_char(&slashes, '\\');
        }
        buf_add_char(&slashes, c);
    }
    give_buf(f, MASK_PLAIN, &quoted);
    give_buf(f, MASK_PLAIN, &slashes);
    buf_release(&quoted);
    buf_release(&slashes);
}

static void give_all(struct forms *f, struct str s)
{
    if (s.n < MASK_SHORTEST) {
        return;
    }
    give(f, MASK_PLAIN, s);
    give_base64(f, s);
    give_hex(f, s);
    give_urls(f, s);
    give_json(f, s, "");
    give_json(f, s, "/");
    give_json(f, s, "<>&");
    give_shell(f, s);
}

int mask_forms(struct str secret, mask_form_fn add, void *ctx)
{
    struct forms f = {.add = add, .ctx = ctx};
    const struct str trimmed = str_trim(secret);
    struct str rest = secret;
    struct str line;

    give_all(&f, secret);
    if (trimmed.n != secret.n) {
        give_all(&f, trimmed);
    }
    while (secret.n > 0 && memchr(secret.p, '\n', secret.n) != NULL &&
           str_split(&rest, '\n', &line)) {
        give_all(&f, str_trim(line));
    }
    return f.result;
}

static int add_pattern(void *ctx, enum mask_kind kind, struct str form)
{
    return mask_add(ctx, kind, form);
}

int mask_add_secret(struct mask *m, struct str secret)
{
    return mask_forms(secret, add_pattern, m);
}
