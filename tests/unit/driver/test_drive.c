/* Drivers as a worker calls them: notices and load against a small HTTP server, a route against a
 * real nginx (skipped where there is none). */
#include "common/base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "proto/rollout.h"
#include "worker/action/state.h"
#include "worker/driver/nginx.h"

#define NGINX "/usr/sbin/nginx"

struct world {
    char *dir;
    struct loop *loop;
    struct reach reach;
    struct actions *actions;
    struct arena arena;
    pid_t server;
    uint16_t port;
    bool ok;
    char code[32];
    char text[LIMIT_ACTION_TEXT + 1];
    struct buf data;
    Pb__DriverSetting *settings[8];
    Pb__DriverConfig config;
};

static void ignore_signal(void *ctx, int number)
{
    (void)ctx;
    (void)number;
}

static int listen_anywhere(uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static uint16_t free_port(void)
{
    uint16_t port;

    close(listen_anywhere(&port));
    return port;
}

/* Headers, and a body of the length they tell. */
static bool is_whole(const char *text)
{
    const char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");

    return end != NULL && strlen(end + 4) >= (length != NULL ? strtoul(length + 16, NULL, 10) : 0);
}

/* Writes down what it is asked, and answers 500 under /bad, else 204. */
static void serve(int fd, const char *path)
{
    static const char *const answers[] = {
        "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"};
    FILE *log = fopen(path, "w");

    while (log != NULL) {
        const int peer = accept(fd, NULL, NULL);
        char text[8192] = "";
        size_t n = 0;
        while (peer >= 0 && n < sizeof(text) - 1 && !is_whole(text)) {
            const ssize_t got = read(peer, text + n, sizeof(text) - 1 - n);
            if (got <= 0) {
                break;
            }
            n += (size_t)got;
            text[n] = '\0';
        }
        fprintf(log, "%s\n====\n", text);
        fflush(log);
        const char *answer = answers[strstr(text, " /bad") != NULL];
        if (write(peer, answer, strlen(answer)) < 0) {
            _exit(1);
        }
        close(peer);
    }
    _exit(1);
}

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    w->dir = os_make_temp_dir("davit-drive");
    arena_init(&w->arena, SIZE_MAX);
    pb__driver_config__init(&w->config);
    w->config.settings = w->settings;
    *state = w;
    return 0;
}

/* The loop takes signals by descriptor: what is forked must not inherit that. */
static pid_t fork_plain(void)
{
    const pid_t pid = fork();
    sigset_t none;

    if (pid == 0) {
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
    }
    return pid;
}

static void begin_server(struct world *w)
{
    const int fd = listen_anywhere(&w->port);

    w->server = fork_plain();
    if (w->server == 0) {
        serve(fd, arena_printf(&w->arena, "%s/requests", w->dir));
    }
    close(fd);
}

static int tear_down(void **state)
{
    struct world *w = *state;

    if (w->server > 0) {
        kill(w->server, SIGTERM); /* of nginx this is the master: its workers go with it */
        waitpid(w->server, NULL, 0);
    }
    assert_int_equal(os_remove_tree(w->dir), 0);
    buf_release(&w->data);
    arena_release(&w->arena);
    free(w->dir);
    free(w);
    return 0;
}

static void set(struct world *w, const char *name, const char *value)
{
    Pb__DriverSetting *s = arena_alloc(&w->arena, sizeof(*s));

    assert_true(w->config.n_settings < ARRAY_LEN(w->settings));
    pb__driver_setting__init(s);
    s->name = (char *)name;
    s->value = pb_bytes_ref(str_from(value));
    w->settings[w->config.n_settings++] = s;
}

static void on_end(void *ctx, Pb__ActionResult *result, Pb__Reason reason)
{
    struct world *w = ctx;

    (void)reason;
    w->ok = result->ok;
    snprintf(w->code, sizeof(w->code), "%s", result->code);
    snprintf(w->text, sizeof(w->text), "%s", result->text);
    buf_clear(&w->data);
    buf_add_str(&w->data, pb_str(result->data));
    loop_stop(w->loop);
}

static void drive(struct world *w, const char *driver, const char *verb,
                  const ProtobufCMessage *args)
{
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    Pb__ActionSpec what = PB__ACTION_SPEC__INIT;
    Pb__DriverAction action = PB__DRIVER_ACTION__INIT;
    Pb__ActionFence fence = PB__ACTION_FENCE__INIT;
    struct buf packed = BUF_INIT;
    Pb__Variable token = PB__VARIABLE__INIT, *variables[] = {&token};

    token.name = (char *)"HOOK_TOKEN";
    token.value = pb_bytes_ref(STR("s3cret"));
    spec.variables = variables;
    spec.n_variables = 1;
    pb_pack(args, &packed);
    spec.timeout_ms = 60000;
    spec.action = &what;
    what.what_case = PB__ACTION_SPEC__WHAT_DRIVER;
    what.driver = &action;
    action.driver = (char *)driver;
    action.target = (char *)"web";
    action.fence = &fence;
    fence.generation = fence.epoch = 1;
    action.verb = (char *)verb;
    action.args = pb_bytes_ref(buf_str(&packed));
    assert_int_equal(loop_new(ignore_signal, w, &w->loop), 0);
    w->actions = actions_new(w->loop, &w->reach, w->dir);
    action_begin(w->actions, &spec, on_end, w);
    loop_run(w->loop); /* which runs once */
    actions_free(w->actions);
    loop_free(w->loop);
    buf_release(&packed);
}

static struct str requests(struct world *w)
{
    struct buf text = BUF_INIT;
    struct str copy;

    assert_int_equal(os_read_file(arena_printf(&w->arena, "%s/requests", w->dir), 1u << 20, &text),
                     0);
    copy = arena_str(&w->arena, buf_str(&text));
    buf_release(&text);
    return copy;
}

static const char *url(struct world *w, const char *path)
{
    return arena_printf(&w->arena, "http://127.0.0.1:%u%s", w->port, path);
}

/* ---- webhook ---- */

static Pb__NotifyArgs notice(struct world *w)
{
    Pb__NotifyArgs args = PB__NOTIFY_ARGS__INIT;

    args.service = (char *)"shop/production/web";
    args.rollout_id = 7;
    args.revision = 12;
    args.version = (char *)"v2";
    args.state = (char *)"rollback";
    args.text = (char *)"it says \"no\"";
    args.time_ms = 5;
    args.driver = &w->config;
    return args;
}

static void a_webhook_gets_a_notice_that_it_can_know_again(void **state)
{
    struct world *w = *state;
    Pb__NotifyArgs args = notice(w);
    struct str seen;

    begin_server(w);
    set(w, "url", url(w, "/hook"));
    set(w, "token", "HOOK_TOKEN");
    drive(w, "webhook", "notify", &args.base);
    assert_true(w->ok);
    seen = requests(w);
    assert_true(str_starts(seen, STR("POST /hook HTTP/1.1\r\n")));
    assert_true(str_find(seen, STR("\r\nX-Davit-Delivery: 7-12\r\n")) > 0);
    assert_true(str_find(seen, STR("\r\nX-Davit-Token: s3cret\r\n")) > 0);
    assert_true(str_find(seen, STR("\r\nContent-Type: application/json\r\n")) > 0);
    assert_true(str_find(seen, STR("{\"service\":\"shop/production/web\",\"rollout\":7,"
                                   "\"revision\":12,\"version\":\"v2\",\"state\":\"rollback\","
                                   "\"text\":\"it says \\\"no\\\"\",\"time_ms\":5}")) > 0);
}

static void a_webhook_that_refuses_or_is_not_there_is_an_error(void **state)
{
    struct world *w = *state;
    Pb__NotifyArgs args = notice(w);

    begin_server(w);
    set(w, "url", url(w, "/bad"));
    drive(w, "webhook", "notify", &args.base);
    assert_string_equal(w->code, "status");
    assert_string_equal(w->text, "the webhook answers with 500");
    w->config.n_settings = 0;
    w->port = free_port();
    set(w, "url", url(w, "/hook"));
    drive(w, "webhook", "notify", &args.base);
    assert_string_equal(w->code, "unreachable");
    set(w, "token", "NOT_THERE");
    drive(w, "webhook", "notify", &args.base);
    assert_string_equal(w->code, "invalid");
    assert_non_null(strstr(w->text, "NOT_THERE"));
    drive(w, "webhook", "sample", &args.base);
    assert_string_equal(w->code, "invalid");
}

/* ---- load ---- */

static void load_comes_at_its_rate_with_its_header(void **state)
{
    struct world *w = *state;
    Pb__LoadArgs args = PB__LOAD_ARGS__INIT;
    struct str rest, part;
    unsigned count = 0, marked = 0;

    begin_server(w);
    set(w, "url", url(w, "/"));
    set(w, "rate", "50");
    set(w, "header", "X-Canary: always");
    args.for_ms = 500;
    args.driver = &w->config;
    const uint64_t began = os_monotonic_ms();
    drive(w, "http", "load", &args.base);
    assert_true(w->ok);
    assert_true(os_monotonic_ms() - began >= 500);
    for (rest = requests(w); str_split(&rest, '\n', &part);) {
        count += str_starts(part, STR("GET / HTTP/1.1"));
        marked += str_starts(part, STR("X-Canary: always"));
    }
    assert_int_equal(count, 25);
    assert_int_equal(marked, 25);
}

static void load_that_nobody_answers_is_an_error(void **state)
{
    struct world *w = *state;
    Pb__LoadArgs args = PB__LOAD_ARGS__INIT;

    w->port = free_port();
    args.driver = &w->config;
    set(w, "url", url(w, "/"));
    drive(w, "http", "load", &args.base);
    assert_string_equal(w->code, "unreachable");
    set(w, "rate", "1001");
    drive(w, "http", "load", &args.base);
    assert_string_equal(w->code, "invalid");
    w->config.n_settings = 1;
    set(w, "header", "no colon");
    drive(w, "http", "load", &args.base);
    assert_string_equal(w->code, "invalid");
}

/* ---- nginx ---- */

static char *const two[] = {(char *)"127.0.0.1:9001", (char *)"[::1]:9002"};

static void a_file_is_known_again_or_not_taken_at_all(void **state)
{
    struct world *w = *state;
    const uint32_t weights[] = {0, 1, 550, 9999, 10000};
    char generation[NGINX_GENERATION_BYTES], again[NGINX_GENERATION_BYTES];

    for (size_t i = 0; i < ARRAY_LEN(weights); i++) {
        struct nginx_route route = {.weight = weights[i], .servers = {two, NULL}, .counts = {2, 0}};
        struct nginx_route back;
        struct buf text = BUF_INIT;
        nginx_render("web", &route, &text, generation);
        assert_true(nginx_parse("web", buf_str(&text), &w->arena, &back, again));
        assert_string_equal(generation, again);
        assert_int_equal(back.weight, weights[i]);
        assert_int_equal(back.counts[0], 2);
        assert_string_equal(back.servers[0][1], "[::1]:9002");
        assert_int_equal(back.counts[1], 0);
        assert_false(nginx_parse("other", buf_str(&text), &w->arena, &back, again));
        for (size_t cut = 0; cut < text.n; cut++) {
            assert_false(
                nginx_parse("web", str_sub(buf_str(&text), 0, cut), &w->arena, &back, again));
        }
        buf_release(&text);
    }
    assert_false(nginx_is_address(STR("127.0.0.1")));
    assert_false(nginx_is_address(STR("h:80; }")));
    assert_false(nginx_is_address(STR("h:0")));
    assert_false(nginx_is_name(STR("a-b")));
}

static const char nginx_conf[] =
    "pid %s/pid;\nerror_log %s/error.log;\nworker_processes 1;\n"
    "events {}\n"
    "http {\n"
    "  access_log off;\n  client_body_temp_path %s/t1;\n  proxy_temp_path %s/t2;\n"
    "  fastcgi_temp_path %s/t3;\n  uwsgi_temp_path %s/t4;\n  scgi_temp_path %s/t5;\n"
    "  include %s/web.conf;\n"
    "  server {\n    listen 127.0.0.1:%u;\n"
    "    location = /generation { return 200 \"$web_generation\\n\"; }\n"
    "    location / { proxy_pass http://$web_slot; }\n  }\n"
    "  server { listen 127.0.0.1:%u; location / { return 200 a; } }\n"
    "  server { listen 127.0.0.1:%u; location / { return 200 b; } }\n"
    "}\n";

static void begin_nginx(struct world *w, uint16_t port_a, uint16_t port_b)
{
    const char *d = w->dir, *conf = arena_printf(&w->arena, "%s/nginx.conf", w->dir);
    const char *text = arena_printf(&w->arena, nginx_conf, d, d, d, d, d, d, d, d,
                                    w->port = free_port(), port_a, port_b);
    char generation[NGINX_GENERATION_BYTES];
    struct nginx_route none = {0};
    struct buf file = BUF_INIT;

    nginx_render("web", &none, &file, generation);
    assert_int_equal(os_write_file(conf, text, strlen(text), 0644), 0);
    assert_int_equal(os_write_file(arena_printf(&w->arena, "%s/web.conf", d), file.p, file.n, 0644),
                     0);
    buf_release(&file);
    w->server = fork_plain();
    if (w->server == 0) {
        execl(NGINX, NGINX, "-c", conf, "-g", "daemon off;", (char *)NULL);
        _exit(127);
    }
    set(w, "file", arena_printf(&w->arena, "%s/web.conf", d));
    set(w, "name", "web");
    set(w, "check", url(w, "/generation"));
    set(w, "reload",
        arena_printf(&w->arena, NGINX " -t -q -c %s && " NGINX " -c %s -s reload", conf, conf));
}

/* What answers a request through the front door; 0: nobody. */
static char ask(struct world *w)
{
    static const char request[] = "GET / HTTP/1.0\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(w->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    char text[2048];
    size_t n = 0;
    ssize_t got = 0;

    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
        write(fd, request, sizeof(request) - 1) > 0) {
        while (n < sizeof(text) && (got = read(fd, text + n, sizeof(text) - n)) > 0) {
            n += (size_t)got;
        }
    }
    close(fd);
    return n > 0 ? text[n - 1] : '\0';
}

static unsigned count_b(struct world *w, unsigned of)
{
    unsigned count = 0;

    for (unsigned i = 0; i < of; i++) {
        const char who = ask(w);
        assert_true(who == 'a' || who == 'b');
        count += who == 'b';
    }
    return count;
}

static const Pb__RouterAnswer *answer_of(struct world *w)
{
    ProtobufCMessage *m;

    if (!w->ok) {
        fail_msg("%s: %s", w->code, w->text);
    }
    assert_int_equal(pb_unpack(&w->arena, &pb__router_answer__descriptor, w->data.p, w->data.n,
                               LIMIT_ACTION_DATA, &m),
                     0);
    return (const Pb__RouterAnswer *)m;
}

static const Pb__RouterAnswer *route(struct world *w, Pb__RouterArgs *args, uint32_t weight)
{
    args->weight_b_bp = weight;
    drive(w, "nginx", "set", &args->base);
    return answer_of(w);
}

static void nginx_has_the_weight_that_it_says(void **state)
{
    struct world *w = *state;
    Pb__RouterArgs args = PB__ROUTER_ARGS__INIT;
    const Pb__RouterAnswer *answer;
    const uint16_t port_a = free_port(), port_b = free_port();
    char *a[] = {arena_printf(&w->arena, "127.0.0.1:%u", port_a)};
    char *b[] = {arena_printf(&w->arena, "127.0.0.1:%u", port_b)};

    if (access(NGINX, X_OK) != 0) {
        skip();
    }
    begin_nginx(w, port_a, port_b);
    for (int i = 0; i < 1000 && ask(w) == '\0'; i++) {
        usleep(10000);
    }
    args.driver = &w->config;
    args.servers_a = a;
    args.n_servers_a = 1;
    answer = route(w, &args, 0);
    assert_int_equal(answer->n_servers, 1);
    assert_int_equal(count_b(w, 50), 0);
    args.servers_b = b;
    args.n_servers_b = 1;
    answer = route(w, &args, 5000);
    assert_int_equal(answer->weight_b_bp, 5000);
    assert_int_equal(answer->n_servers, 2);
    const unsigned half = count_b(w, 200);
    assert_true(half > 50 && half < 150);    /* beyond 7 standard deviations */
    args.n_servers_a = args.n_servers_b = 0; /* as it has them now */
    answer = route(w, &args, 10000);
    assert_int_equal(answer->n_servers, 2);
    assert_string_equal(answer->servers[1]->address, b[0]);
    assert_int_equal(count_b(w, 50), 50);
    drive(w, "nginx", "read", &args.base);
    assert_int_equal(answer_of(w)->weight_b_bp, 10000);
    assert_false(answer_of(w)->unknown);

    w->settings[3]->value = pb_bytes_ref(STR("echo no such thing >&2; exit 3"));
    assert_int_equal(route(w, &args, 10000)->weight_b_bp, 10000); /* is in force: no reload */
    args.weight_b_bp = 1;
    drive(w, "nginx", "set", &args.base);
    assert_string_equal(w->code, "refused");
    assert_string_equal(w->text, "nginx: reload ended with 3: no such thing");
    drive(w, "nginx", "read", &args.base); /* the file is what it was */
    assert_int_equal(answer_of(w)->weight_b_bp, 10000);

    assert_int_equal(
        os_write_file(arena_printf(&w->arena, "%s/web.conf", w->dir), "# x\n", 4, 0644), 0);
    drive(w, "nginx", "read", &args.base);
    assert_true(answer_of(w)->unknown);
    args.mirror_b_bp = 1;
    drive(w, "nginx", "set", &args.base);
    assert_string_equal(w->code, "invalid");
}

int main(void)
{
#define DRIVEN(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        DRIVEN(a_webhook_gets_a_notice_that_it_can_know_again),
        DRIVEN(a_webhook_that_refuses_or_is_not_there_is_an_error),
        DRIVEN(load_comes_at_its_rate_with_its_header),
        DRIVEN(load_that_nobody_answers_is_an_error),
        DRIVEN(a_file_is_known_again_or_not_taken_at_all),
        DRIVEN(nginx_has_the_weight_that_it_says),
    };
    http_global_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
