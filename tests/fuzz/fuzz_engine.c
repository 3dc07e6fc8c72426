/* What a Docker Engine answers, what a config.json holds, and what a job calls its image. */
#include "common/base.h"

#include "common/limits.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/answers.h"
#include "worker/engine/auth.h"
#include "worker/engine/image_name.h"

static void read_answers(struct arena *arena, struct str text)
{
    unsigned newest, oldest;
    const char *id;
    struct answer_image image;
    struct answer_container container;
    struct answer_item *items;
    size_t count;
    struct buf why = BUF_INIT;
    if (answer_version(text, &newest, &oldest) == 0) {
        check(oldest <= newest);
    }
    if (answer_id(text, arena, &id) == 0) {
        check(id[0] != '\0' && strpbrk(id, "/?#%&. ") == NULL);
    }
    if (answer_image(text, arena, &image) == 0) {
        check(image.entrypoint_count <= LIMIT_CONTAINER_ARGUMENTS);
        check(image.port_count <= LIMIT_ENGINE_PORTS && image.user != NULL);
    }
    if (answer_container(text, arena, &container) == 0) {
        check(container.error != NULL && strlen(container.health) <= LIMIT_ENGINE_TEXT);
        check(strspn(container.ipv4, "0123456789.") == strlen(container.ipv4));
    }
    if (answer_list(text, arena, &items, &count) == 0 && count > 0) {
        check(items[count - 1].job != NULL);
    }
    answer_error(text, &why);
    check(why.n > 0 && str_chr(buf_str(&why), '\n') < 0);
    buf_release(&why);
}

static void read_streams(struct str text)
{
    struct answer_pull pull;
    struct answer_logs logs = {0};
    struct buf out = BUF_INIT;
    answer_pull_init(&pull);
    answer_pull_add(&pull, str_sub(text, 0, text.n / 2));
    answer_pull_add(&pull, str_sub(text, text.n / 2, text.n));
    answer_pull_end(&pull);
    check(pull.line.n <= LIMIT_ENGINE_LINE);
    answer_pull_release(&pull);
    answer_logs_add(&logs, text, &out);
    check(out.n <= text.n);
    buf_release(&out);
}

static void read_names(struct arena *arena, struct str text)
{
    struct image_name name;
    const char *hosts[IMAGE_HOSTS_MAX];
    struct buf header = BUF_INIT;
    struct buf why = BUF_INIT;
    if (image_name_parse(text, &name) == 0) {
        check(name.path.n > 0 && name.path.p[0] != '/' && str_find(name.path, STR("..")) != 0);
        check(name.tag.n > 0 || name.digest.n > 0);
        check(image_name_hosts(&name, arena, hosts) >= 1 && hosts[0][0] != '\0');
    }
    int r = auth_header(text, STR("host:5000"), &header, &why);
    check((r == 0) == (header.n > 0));
    buf_release(&header);
    buf_release(&why);
}

void fuzz_one(const uint8_t *p, size_t n)
{
    struct arena arena;
    arena_init(&arena, 0);
    read_answers(&arena, str_of(p, n));
    read_streams(str_of(p, n));
    read_names(&arena, str_of(p, n));
    arena_release(&arena);
}
