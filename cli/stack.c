#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/stack.h"
#include "common/os.h"
#include "common/str.h"

#define START_TIMEOUT_MS 20000u
#define DRAIN_TIMEOUT_MS 30000u
#define RESTART_PAUSE_MS 1000u
#define POLL_MS          10u

struct child {
    pid_t pid; /* 0: not running */
    uint64_t started_ms;
    char *log;
    char *argv_text[32]; /* heap */
};

struct stack {
    struct cli *c;
    struct stack_options o;
    char *data;
    struct client client;
    bool have_client;
    struct child broker;
    struct child workers[STACK_WORKERS_MAX];
};

static void child_arg(struct child *ch, const char *arg)
{
    size_t i = 0;
    while (ch->argv_text[i] != NULL) {
        i++;
    }
    check(i + 1 < ARRAY_LEN(ch->argv_text));
    ch->argv_text[i] = xstrdup(arg);
}

static void child_release(struct child *ch)
{
    for (size_t i = 0; ch->argv_text[i] != NULL; i++) {
        free(ch->argv_text[i]);
    }
    free(ch->log);
}

static int child_start(const struct stack *s, struct child *ch)
{
    int fd = -1;
    if (s->o.logs_to_files) {
        fd = open(ch->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0) {
            return cli_fail(s->c, err_from_errno(errno), "cannot write %s", ch->log);
        }
    }
    struct os_spawn spawn = {
        .argv = (const char *const *)ch->argv_text,
        .stdin_fd = -1,
        .stdout_fd = fd,
        .stderr_fd = fd,
        .new_session = true, /* Ctrl-C is for us: we end them in order */
    };
    int r = os_spawn(&spawn, &ch->pid);
    ch->started_ms = os_monotonic_ms();
    if (fd >= 0) {
        close(fd);
    }
    return r < 0 ? cli_fail(s->c, r, "cannot start %s", ch->argv_text[0]) : 0;
}

/* Reaps; true while it runs. */
static bool child_runs(struct child *ch)
{
    int status;
    if (ch->pid > 0 && waitpid(ch->pid, &status, WNOHANG) == ch->pid) {
        ch->pid = 0;
    }
    return ch->pid > 0;
}

static int find_program(const struct stack *s, const char *name, struct child *ch)
{
    char *path = os_find_program(name);
    if (path == NULL) {
        return cli_fail(s->c, -E_NOT_FOUND,
                        "cannot find %s beside this program; DAVIT_BIN_DIR may say where it is",
                        name);
    }
    child_arg(ch, path);
    free(path);
    return 0;
}

static int prepare_broker(struct stack *s)
{
    struct child *b = &s->broker;
    b->log = os_path_join(s->data, "davitd.log");
    int r = find_program(s, "davitd", b);
    if (r == 0) {
        child_arg(b, "--data");
        child_arg(b, s->data);
        child_arg(b, "--listen");
        child_arg(b, s->o.listen);
        child_arg(b, "--http");
        child_arg(b, s->o.http);
    }
    return r;
}

/* The endpoints file of an earlier broker must not be mistaken for the new one's. */
static bool broker_serves(struct stack *s)
{
    char *path = os_path_join(s->data, "endpoints.json");
    json_t *o = json_load_file(path, 0, NULL);
    bool mine = json_number(o, "pid") == (uint64_t)s->broker.pid;
    json_decref(o);
    free(path);
    return mine;
}

static void print_log_tail(const char *path)
{
    struct buf b = BUF_INIT;
    if (os_read_file(path, 1u << 20, &b) == 0 && b.n > 0) {
        struct str tail = buf_str(&b);
        tail = str_sub(tail, tail.n > 2000 ? tail.n - 2000 : 0, tail.n);
        fprintf(stderr, STR_FMT, STR_ARG(tail));
    }
    buf_release(&b);
}

static int start_broker(struct stack *s)
{
    int r = child_start(s, &s->broker);
    uint64_t deadline = os_monotonic_ms() + START_TIMEOUT_MS;
    while (r == 0 && !broker_serves(s)) {
        if (!child_runs(&s->broker)) {
            print_log_tail(s->broker.log);
            return cli_fail(s->c, -E_UNREACHABLE, "the broker ended at once; its log is %s",
                            s->broker.log);
        }
        if (os_monotonic_ms() > deadline) {
            return cli_fail(s->c, -E_TIMEOUT, "the broker does not serve after %u s; its log is %s",
                            START_TIMEOUT_MS / 1000, s->broker.log);
        }
        os_sleep_ms(POLL_MS);
    }
    if (r == 0 && !s->have_client) {
        r = client_open_data(s->data, &s->client);
        s->have_client = r == 0;
    }
    return r;
}

/* Where the broker of this folder serves: "fleet" or "http"; heap. */
static char *endpoint(const struct stack *s, const char *which)
{
    char *path = os_path_join(s->data, "endpoints.json");
    json_t *o = json_load_file(path, 0, NULL);
    char *address = xstrdup(json_text(o, which));
    json_decref(o);
    free(path);
    return address;
}

/* The options may have asked for any port: a broker that is started again must use the same. */
static void pin_addresses(struct stack *s)
{
    char **argv = s->broker.argv_text;
    for (size_t i = 0; argv[i] != NULL; i++) {
        bool fleet = strcmp(argv[i], "--listen") == 0;
        if (fleet || strcmp(argv[i], "--http") == 0) {
            char *address = endpoint(s, fleet ? "fleet" : "http");
            struct str text = str_from(address);
            if (!fleet && str_starts(text, STR("http://"))) {
                text = str_sub(text, 7, text.n);
            }
            free(argv[i + 1]);
            argv[i + 1] = str_dup(text);
            free(address);
        }
    }
}

/* Containers by the Engine that docker itself would use, and images as it would get them. */
static void add_executors(struct child *w, const char *executors)
{
    static const char scheme[] = "unix://";
    const char *host = getenv("DOCKER_HOST");
    child_arg(w, "--executors");
    child_arg(w, executors);
    child_arg(w, "--docker-pull");
    child_arg(w, "if-not-present");
    child_arg(w, "--docker-allow-pull");
    child_arg(w, "always,if-not-present,never");
    if (host != NULL && strncmp(host, scheme, strlen(scheme)) == 0) {
        child_arg(w, "--docker-socket");
        child_arg(w, host + strlen(scheme));
    }
}

static int prepare_worker(struct stack *s, size_t i)
{
    struct child *w = &s->workers[i];
    char name[32];
    char number[24];
    char *dir = os_path_join(s->data, "workers");
    char *token = os_path_join(s->data, "worker.token");
    char *address = endpoint(s, "fleet");
    snprintf(name, sizeof(name), "local-%zu", i + 1);
    snprintf(number, sizeof(number), "%" PRIu64, s->o.slots);
    char *state = os_path_join(dir, name);
    struct buf log = BUF_INIT;
    buf_addf(&log, "%s.log", state);
    w->log = buf_take(&log);
    int r = os_mkdir_p(dir, 0700);
    r = r < 0 ? r : find_program(s, "davit-worker", w);
    if (r == 0) {
        const char *args[] = {"--broker", address,  "--token-file", token,     "--state",
                              state,      "--name", name,           "--slots", number};
        for (size_t k = 0; k < ARRAY_LEN(args); k++) {
            child_arg(w, args[k]);
        }
        child_arg(w, "--allow-local-git"); /* its jobs are those of whoever started it */
        if (s->o.tags != NULL) {
            child_arg(w, "--tags");
            child_arg(w, s->o.tags);
        }
        if (s->o.executors != NULL) {
            add_executors(w, s->o.executors);
        }
    }
    free(state);
    free(address);
    free(token);
    free(dir);
    return r;
}

static bool child_tick(struct stack *s, struct child *ch)
{
    if (child_runs(ch)) {
        return true;
    }
    if (!s->o.restart) {
        return false;
    }
    if (os_monotonic_ms() - ch->started_ms >= RESTART_PAUSE_MS) {
        fprintf(stderr, "davit: %s ended, starting it again\n", ch->argv_text[0]);
        return child_start(s, ch) == 0;
    }
    return true;
}

/* 0 while the broker is away. */
static size_t count_online(const struct stack *s)
{
    json_t *list;
    size_t online = 0;
    size_t i;
    json_t *w;
    client_poll(&s->client, "/workers?limit=200", &list);
    json_array_foreach(json_object_get(list, "items"), i, w)
    {
        online += json_flag(w, "online") ? 1 : 0;
    }
    json_decref(list);
    return online;
}

/* The broker may be killed already here, and is started again as later. */
static int wait_workers(struct stack *s)
{
    uint64_t deadline = os_monotonic_ms() + START_TIMEOUT_MS;
    while (count_online(s) < s->o.workers) {
        if (!child_tick(s, &s->broker)) {
            return cli_fail(s->c, -E_UNREACHABLE, "the broker ended; its log is %s", s->broker.log);
        }
        for (size_t k = 0; k < s->o.workers; k++) {
            if (!child_runs(&s->workers[k])) {
                print_log_tail(s->workers[k].log);
                return cli_fail(s->c, -E_FAILED, "a worker ended at once; its log is %s",
                                s->workers[k].log);
            }
        }
        if (os_monotonic_ms() > deadline) {
            return cli_fail(s->c, -E_TIMEOUT, "the workers do not reach the broker; see %s",
                            s->workers[0].log);
        }
        os_sleep_ms(POLL_MS);
    }
    return 0;
}

int stack_start(struct cli *c, const struct stack_options *o, struct stack **ret)
{
    struct stack *s = xcalloc(1, sizeof(*s));
    s->c = c;
    s->o = *o;
    check(o->workers <= STACK_WORKERS_MAX);
    int r = os_mkdir_p(o->data, 0700);
    if (r < 0) {
        cli_fail(c, r, "cannot make the folder %s", o->data);
    }
    char *real = r == 0 ? realpath(o->data, NULL) : NULL;
    s->data = real != NULL ? real : xstrdup(o->data);
    r = r < 0 ? r : prepare_broker(s);
    r = r < 0 ? r : start_broker(s);
    if (r == 0) {
        pin_addresses(s);
    }
    for (size_t i = 0; r == 0 && i < o->workers; i++) {
        r = prepare_worker(s, i);
        r = r < 0 ? r : child_start(s, &s->workers[i]);
    }
    r = r < 0 ? r : wait_workers(s);
    if (r < 0) {
        stack_stop(s, true);
        return r;
    }
    *ret = s;
    return 0;
}

const struct client *stack_client(const struct stack *s)
{
    return &s->client;
}

pid_t stack_broker_pid(const struct stack *s)
{
    return s->broker.pid;
}

pid_t stack_worker_pid(const struct stack *s, size_t i)
{
    return s->workers[i].pid;
}

bool stack_tick(struct stack *s)
{
    bool alive = child_tick(s, &s->broker);
    for (size_t i = 0; i < s->o.workers; i++) {
        alive = child_tick(s, &s->workers[i]) && alive;
    }
    return alive;
}

static void child_signal(struct child *ch, int signal)
{
    if (child_runs(ch)) {
        kill(ch->pid, signal);
    }
}

static void child_wait(struct child *ch, uint64_t timeout_ms)
{
    uint64_t deadline = os_monotonic_ms() + timeout_ms;
    while (child_runs(ch)) {
        if (os_monotonic_ms() > deadline) {
            kill(ch->pid, SIGKILL);
            waitpid(ch->pid, NULL, 0);
            ch->pid = 0;
            return;
        }
        os_sleep_ms(POLL_MS);
    }
}

void stack_stop(struct stack *s, bool now)
{
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->o.workers; i++) {
        child_signal(&s->workers[i], SIGTERM);
        if (now) {
            child_signal(&s->workers[i],
                         SIGINT); /* a second signal, and not merged with the first */
        }
    }
    for (size_t i = 0; i < s->o.workers; i++) {
        child_wait(&s->workers[i], now ? START_TIMEOUT_MS : DRAIN_TIMEOUT_MS);
        child_release(&s->workers[i]);
    }
    child_signal(&s->broker, SIGTERM);
    child_wait(&s->broker, DRAIN_TIMEOUT_MS);
    child_release(&s->broker);
    if (s->have_client) {
        client_release(&s->client);
    }
    free(s->data);
    free(s);
}
