/* davit doctor: what works on this machine, what does not, and what to do about it. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/client.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"

#define LOW_DISK_BYTES (1024ull * MIB)
#define CLOCK_SKEW_MS  5000

struct report {
    struct cli *c;
    json_t *checks;
    size_t bad;
};

/* `ok`, what was looked at, what was found, and, if it is bad, what to do. */
static void report(struct report *r, bool ok, const char *what, const char *found,
                   const char *advice)
{
    r->bad += ok ? 0 : 1;
    if (r->c->json) {
        json_array_append_new(r->checks, json_pack("{s:s, s:b, s:s, s:s?}", "check", what, "ok", ok,
                                                   "found", found, "advice", ok ? NULL : advice));
        return;
    }
    const char *mark = ok ? "ok  " : "BAD ";
    const char *color = r->c->color ? (ok ? "\x1b[32m" : "\x1b[31m") : "";
    printf("%s%s%s %-18s %s\n", color, mark, r->c->color ? "\x1b[0m" : "", what, found);
    if (!ok) {
        printf("     -> %s\n", advice);
    }
}

static void check_program(struct report *r, const char *name)
{
    char *path = os_find_program(name);
    report(r, path != NULL, name, path != NULL ? path : "not found",
           "install it beside davit, or set DAVIT_BIN_DIR");
    free(path);
}

static void check_tool(struct report *r, const char *name, const char *why)
{
    const char *argv[] = {name, "--version", NULL};
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    struct buf out = BUF_INIT;
    int status = -1;
    bool ok = os_run(&spawn, 64 * KIB, &out, &status) == 0 && WIFEXITED(status) &&
              WEXITSTATUS(status) == 0;
    struct str first = buf_str(&out);
    ptrdiff_t end = str_chr(first, '\n');
    char *line = str_dup(str_sub(first, 0, end >= 0 ? (size_t)end : first.n));
    report(r, ok, name, ok ? line : "not found", why);
    free(line);
    buf_release(&out);
}

static void check_kill_method(struct report *r)
{
    bool v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 ||
              access("/sys/fs/cgroup/unified/cgroup.procs", F_OK) == 0;
    report(r, true, "process trees",
           v2 ? "cgroup v2 is there: jobs are killed as a whole by the kernel"
              : "no cgroup v2: jobs are killed by sweeping their descendants",
           NULL);
}

static void check_folder(struct report *r, const char *data)
{
    struct stat st;
    uint64_t free_bytes;
    uint64_t total_bytes;
    char text[160];
    char amount[32];
    if (stat(data, &st) < 0) {
        report(r, true, "data folder", "none yet; davit up makes it", NULL);
        return;
    }
    snprintf(text, sizeof(text), "%.120s, mode %03o", data, st.st_mode & 0777u);
    report(r, S_ISDIR(st.st_mode) && (st.st_mode & 077) == 0, "data folder", text,
           "it holds tokens: chmod 700 it");
    if (os_disk_free(data, &free_bytes, &total_bytes) == 0) {
        snprintf(text, sizeof(text), "%s free", cli_bytes(free_bytes, amount, sizeof(amount)));
        report(r, free_bytes > LOW_DISK_BYTES, "disk", text, "make room: below 1 GB workers stop");
    }
}

/* What the broker knows of itself and its workers; only administrators are told. */
static void take_findings(struct report *r, const json_t *answer, uint64_t asked_ms)
{
    const uint64_t now_ms = os_realtime_ms();
    const int64_t skew_ms = (int64_t)json_number(answer, "time_ms") -
                            (int64_t)(asked_ms + (now_ms - asked_ms) / 2);
    char text[64];
    size_t i;
    json_t *check;
    report(r, true, "token", "accepted", NULL);
    snprintf(text, sizeof(text), "%s, this program has %s", json_text(answer, "version"),
             DAVIT_VERSION);
    report(r, strcmp(json_text(answer, "version"), DAVIT_VERSION) == 0, "version", text,
           "upgrade the older one; the broker first");
    snprintf(text, sizeof(text), "%" PRId64 " ms from the broker's", skew_ms);
    report(r, llabs(skew_ms) <= CLOCK_SKEW_MS, "clock", text, "let both machines keep time by NTP");
    json_array_foreach(json_object_get(answer, "checks"), i, check)
    {
        report(r, json_flag(check, "ok"), json_text(check, "check"), json_text(check, "found"),
               json_text(check, "advice"));
    }
}

static void check_workers(struct report *r, const struct client *cl)
{
    json_t *list = NULL;
    char text[64];
    size_t online = 0;
    size_t i;
    json_t *w;
    if (client_call(r->c, cl, "GET", "/workers?limit=200", NULL, NULL, &list) < 0) {
        report(r, false, "token", "refused", "give the right --token-file or DAVIT_TOKEN");
        return;
    }
    report(r, true, "token", "accepted", NULL);
    json_array_foreach(json_object_get(list, "items"), i, w)
    {
        online += json_flag(w, "online") ? 1 : 0;
    }
    snprintf(text, sizeof(text), "%zu of %zu online", online,
             json_array_size(json_object_get(list, "items")));
    report(r, online > 0, "workers", text, "start one: davit-worker --help");
    json_decref(list);
}

static void ask_broker(struct report *r, const struct client *cl)
{
    const uint64_t asked_ms = os_realtime_ms();
    const bool is_quiet = r->c->quiet;
    json_t *answer = NULL;
    r->c->quiet = true; /* the token of a user is no fault */
    int e = client_call(r->c, cl, "GET", "/doctor", NULL, NULL, &answer);
    r->c->quiet = is_quiet;
    if (e == 0) {
        take_findings(r, answer, asked_ms);
        json_decref(answer);
    } else {
        check_workers(r, cl);
    }
}

static void check_broker(struct report *r, const char *data)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    struct client cl;
    int status = 0;
    bool named = r->c->url != NULL || getenv("DAVIT_URL") != NULL;
    if (!named && client_open_data(data, &cl) < 0) {
        report(r, true, "broker", "none runs from this data folder", NULL);
        return;
    }
    if ((named ? client_open(r->c, &cl) : client_take_token(r->c, &cl)) < 0) {
        report(r, false, "broker", "cannot be asked", "see above");
        return;
    }
    struct buf url = BUF_INIT;
    buf_addf(&url, "%s/healthz", cl.url);
    req.url = buf_cstr(&url);
    bool ok = http_do(&req, &status, &out, &why) == 0 && status == 200;
    report(r, ok, "broker",
           ok          ? cl.url
           : why.n > 0 ? buf_cstr(&why)
                       : "not healthy",
           "is davitd running? its log tells more");
    if (ok) {
        ask_broker(r, &cl);
    }
    client_release(&cl);
    buf_release(&url);
    buf_release(&out);
    buf_release(&why);
}

int cmd_doctor(struct cli *c, int argc, char **argv)
{
    const struct opt opts[] = {{NULL, 0, OPT_FLAG, NULL, NULL, NULL}};
    int r = cli_options(c, opts, argc, argv, 0, 0, NULL, NULL);
    if (r < 0) {
        return r;
    }
    struct report rep = {.c = c, .checks = json_array()};
    char *data = client_data_dir(c);
    check_program(&rep, "davitd");
    check_program(&rep, "davit-worker");
    check_program(&rep, "davit-shim");
    check_tool(&rep, "git", "install git: sources come through it");
    check_tool(&rep, "bash", "install bash, or scripts run under sh");
    check_kill_method(&rep);
    check_folder(&rep, data);
    check_broker(&rep, data);
    free(data);
    if (c->json) {
        cli_print_json(json_pack("{s:b, s:o}", "ok", rep.bad == 0, "checks", rep.checks));
    } else {
        json_decref(rep.checks);
    }
    return rep.bad == 0 ? 0 : -E_FAILED;
}
