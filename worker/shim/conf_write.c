#include "common/base.h"

#include <stdlib.h>

#include "common/crypto.h"
#include "common/os.h"
#include "worker/shim/record.h"
#include "worker/shim/shim.h"

struct shim_conf {
    struct buf text;
    size_t step_count;
};

struct shim_conf *shim_conf_new(uint64_t head_bytes, uint64_t tail_bytes, uint64_t grace_ms,
                                uint64_t timeout_ms)
{
    struct shim_conf *c = xcalloc(1, sizeof(*c));
    check(timeout_ms > 0);
    record_addz(&c->text, "limits");
    record_add_u64(&c->text, head_bytes);
    record_add_u64(&c->text, tail_bytes);
    record_add_u64(&c->text, grace_ms);
    record_end(&c->text);
    record_addz(&c->text, "timeout");
    record_add_u64(&c->text, timeout_ms);
    record_end(&c->text);
    return c;
}

void shim_conf_files(struct shim_conf *c, uint64_t limit)
{
    check(limit > 0);
    record_addz(&c->text, "files");
    record_add_u64(&c->text, limit);
    record_end(&c->text);
}

void shim_conf_mask(struct shim_conf *c, enum mask_kind kind, struct str text)
{
    struct str part;
    record_addz(&c->text, kind == MASK_PLAIN ? "mask" : "mask_wrapped");
    while (str_split(&text, '\0', &part)) {
        if (part.n > 0) {
            record_add(&c->text, part);
        }
    }
    record_end(&c->text);
}

void shim_conf_inherit(struct shim_conf *c)
{
    record_addz(&c->text, "inherit");
    record_end(&c->text);
}

void shim_conf_step(struct shim_conf *c, const char *name, const char *kind, uint64_t timeout_ms,
                    const char *cwd)
{
    check(c->step_count < SHIM_STEPS_MAX);
    check(strlen(name) < sizeof(((struct shim_step_status *)NULL)->name));
    check(cwd[0] == '/');
    c->step_count++;
    record_addz(&c->text, "step");
    record_addz(&c->text, name);
    record_addz(&c->text, kind);
    record_add_u64(&c->text, timeout_ms);
    record_addz(&c->text, cwd);
    record_end(&c->text);
}

void shim_conf_quiet(struct shim_conf *c)
{
    check(c->step_count > 0);
    record_addz(&c->text, "quiet");
    record_end(&c->text);
}

void shim_conf_either(struct shim_conf *c, const char *const *programs, size_t count)
{
    check(c->step_count > 0 && count > 0);
    record_addz(&c->text, "either");
    for (size_t i = 0; i < count; i++) {
        record_addz(&c->text, programs[i]);
    }
    record_end(&c->text);
}

void shim_conf_arg(struct shim_conf *c, const char *arg)
{
    check(c->step_count > 0);
    record_addz(&c->text, "arg");
    record_addz(&c->text, arg);
    record_end(&c->text);
}

void shim_conf_env(struct shim_conf *c, struct str name, struct str value)
{
    struct buf entry = BUF_INIT;
    check(c->step_count > 0);
    check(name.n > 0 && memchr(name.p, '=', name.n) == NULL);
    buf_add_str(&entry, name);
    buf_add_char(&entry, '=');
    buf_add_str(&entry, value);
    record_addz(&c->text, "env");
    record_add(&c->text, buf_str(&entry));
    record_end(&c->text);
    buf_release(&entry);
}

int shim_conf_write(struct shim_conf *c, const char *folder)
{
    char *path = os_path_join(folder, "shim.conf");
    int r = os_put_file(path, c->text.p, c->text.n, 0600);
    free(path);
    crypto_wipe(c->text.p, c->text.n);
    buf_release(&c->text);
    free(c);
    return r;
}
