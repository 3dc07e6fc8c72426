/* The driver `process`: instances as their folders tell of them. */
#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/action/state.h"
#include "worker/driver/process.h"
#include "worker/shim/shim.h"

#define SMALL_FILE 1024u
#define TAIL_BYTES 4096u

bool process_is_running(const struct process_instance *i)
{
    return i->alive && (i->damaged || i->state.what == KEEP_RUNNING);
}

/* ---- reading ---- */

static const char *path_in(struct arena *a, const char *folder, const char *name)
{
    return arena_printf(a, "%s/%s", folder, name);
}

/* The file's only line without its end, or NULL. */
static const char *read_line(struct arena *a, const char *folder, const char *name)
{
    struct buf text = BUF_INIT;
    const char *line = NULL;

    if (os_read_file(path_in(a, folder, name), SMALL_FILE, &text) == 0 && text.n > 0 &&
        text.p[text.n - 1] == '\n') {
        line = arena_strdup(a, str_sub(buf_str(&text), 0, text.n - 1));
    }
    buf_release(&text);
    return line;
}

static bool is_hex(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f'))) {
            return false;
        }
    }
    return s.n > 0;
}

static void read_instance(struct arena *a, struct process_instance *i)
{
    struct str rest = str_from(read_line(a, i->folder, "instance"));
    struct str snapshot;
    const char *drain = read_line(a, i->folder, "drain");

    i->snapshot = "";
    i->address = arena_printf(a, "?:%u", i->port);
    i->detail = "";
    if (str_split(&rest, ' ', &snapshot) && is_hex(snapshot) && rest.n > 0) {
        i->snapshot = arena_strdup(a, snapshot);
        i->address = arena_strdup(a, rest);
    }
    if (drain != NULL && str_to_u64(str_from(drain), &i->drain_until_ms) < 0) {
        i->drain_until_ms = 1; /* it was to go; since when is lost */
    }
    i->alive = shim_alive(i->folder);
    i->damaged = keep_state_read(i->folder, &i->state) < 0;
}

struct names {
    struct arena *arena;
    struct process_list *list;
    const struct process_wish *wish;
    size_t cap;
};

/* "a-8100": the port, or 0. */
static uint32_t port_of(const char *name, char slot)
{
    uint64_t port;

    if (name[0] != slot || name[1] != '-' || str_to_u64(str_from(name + 2), &port) < 0 ||
        port > UINT16_MAX) {
        return 0;
    }
    return (uint32_t)port;
}

static void add_name(void *ctx, const char *name)
{
    struct names *n = ctx;
    struct process_list *l = n->list;
    const uint32_t port = port_of(name, n->wish->slot);

    if (port == 0) {
        return;
    }
    if (l->count == n->cap) {
        n->cap = n->cap * 2 + 16;
        struct process_instance *wider = arena_array(n->arena, n->cap, sizeof(*wider));
        if (l->count > 0) {
            memcpy(wider, l->items, l->count * sizeof(*wider));
        }
        l->items = wider;
    }
    l->items[l->count++] = (struct process_instance){
        .port = port, .folder = path_in(n->arena, n->wish->service_dir, name)};
}

static int by_port(const void *a, const void *b)
{
    const struct process_instance *x = a, *y = b;

    return (x->port > y->port) - (x->port < y->port);
}

int process_list_load(struct arena *a, const struct process_wish *w, struct process_list *ret)
{
    struct names n = {.arena = a, .list = ret, .wish = w};

    *ret = (struct process_list){0};
    int r = os_list_dir(w->service_dir, add_name, &n);
    if (r < 0 && r != -E_NOT_FOUND) {
        return r;
    }
    if (ret->count > LIMIT_PROCESS_FOLDERS) {
        return -E_LIMIT;
    }
    if (ret->count > 0) {
        qsort(ret->items, ret->count, sizeof(*ret->items), by_port);
    }
    for (size_t i = 0; i < ret->count; i++) {
        read_instance(a, &ret->items[i]);
    }
    return 0;
}

uint32_t process_free_port(const struct process_wish *w, const struct process_list *list)
{
    for (uint32_t port = w->first_port; port < w->first_port + w->port_count; port++) {
        char name[PATH_MAX];
        bool taken = false;
        for (size_t i = 0; i < list->count && !taken; i++) {
            taken = list->items[i].port == port;
        }
        /* Of the other slot it can be where the range was another one before. */
        snprintf(name, sizeof(name), "%s/%c-%u", w->service_dir, w->slot == 'a' ? 'b' : 'a', port);
        if (!taken && !os_exists(name)) {
            return port;
        }
    }
    return 0;
}

const char *process_last_line(struct arena *a, const struct process_instance *i)
{
    static const char starts[] = KEEP_SAYS "start ";
    const int fd = open(path_in(a, i->folder, "log"), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char bytes[TAIL_BYTES];
    struct stat st;
    size_t n = 0;
    struct str rest, line, last = STR("");

    if (fd < 0) {
        return "";
    }
    if (fstat(fd, &st) == 0) {
        const uint64_t from = (uint64_t)st.st_size > sizeof(bytes)
                                  ? (uint64_t)st.st_size - sizeof(bytes)
                                  : 0;
        (void)os_pread_all(fd, bytes, sizeof(bytes), from, &n);
    }
    close(fd);
    for (rest = str_of(bytes, n); str_split(&rest, '\n', &line);) {
        line = str_trim(line);
        if (line.n > 0 && !str_starts(line, STR(starts))) {
            last = line;
        }
    }
    return action_line(a, str_sub(last, 0, LIMIT_INSTANCE_DETAIL));
}

/* ---- writing ---- */

bool process_bury(const struct process_instance *i)
{
    return shim_kill_leftovers_soon(i->folder);
}

void process_remove(const struct process_instance *i)
{
    (void)os_remove_tree(i->folder);
}

static int put_line(const struct process_instance *i, const char *name, const char *line)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s", i->folder, name);
    return os_put_file(path, line, strlen(line), 0600);
}

int process_drain(const struct process_instance *i, uint64_t until_ms)
{
    char line[32];

    snprintf(line, sizeof(line), "%" PRIu64 "\n", until_ms);
    return i->drain_until_ms != 0 ? 0 : put_line(i, "drain", line);
}

static void remove_file(const struct process_instance *i, const char *name)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s", i->folder, name);
    (void)unlink(path);
}

void process_undrain(const struct process_instance *i)
{
    remove_file(i, "drain");
}

void process_set_ready(struct process_instance *i, bool ready)
{
    char path[PATH_MAX], line[64];
    struct buf text = BUF_INIT;
    struct str rest, pid_text;
    uint64_t pid, since_ms;

    i->ready = ready;
    if (!ready) {
        remove_file(i, "ready");
        return;
    }
    snprintf(path, sizeof(path), "%s/ready", i->folder);
    const bool known = os_read_file(path, SMALL_FILE, &text) == 0;
    rest = str_trim(buf_str(&text));
    i->ready_since_ms = os_realtime_ms();
    if (known && str_split(&rest, ' ', &pid_text) && str_to_u64(pid_text, &pid) == 0 &&
        (pid_t)pid == i->state.child && str_to_u64(rest, &since_ms) == 0) {
        i->ready_since_ms = MIN(since_ms, i->ready_since_ms);
    } else {
        snprintf(line, sizeof(line), "%d %" PRIu64 "\n", (int)i->state.child, i->ready_since_ms);
        (void)put_line(i, "ready", line);
    }
    buf_release(&text);
}
