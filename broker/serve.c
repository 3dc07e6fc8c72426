#include "common/base.h"

#include "broker/blob/s3.h"
#include "broker/serve.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/address.h"
#include "broker/api/api.h"
#include "broker/api/https.h"
#include "broker/first_start.h"
#include "broker/janitor.h"
#include "broker/reload.h"
#include "broker/trigger/trigger.h"
#include "broker/turn_run.h"
#include "broker/vault/authority.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/os.h"
#include "pipeline/fetch/fetch.h"

/* A work thread is held up so long by one file, and by all of a submit. */
#define FETCH_TIMEOUT_MS  20000u
#define FETCH_BUDGET_MS   60000u
#define AUTHORITY_WARN_MS (365ull * 24 * 3600 * 1000)

struct broker {
    struct address fleet_address;
    struct address http_address;
    char *endpoints_path;
    char *journal_path;
    struct store *store;
    struct blobs *blobs;
    struct logs *logs;
    struct pages *pages;
    struct signer *signer;
    struct vault *vault;
    struct authority *authority;
    const char *name; /* by which others reach us; the options' */
    char *hostname;
    struct bus *bus;
    struct inbox *inbox;
    struct fleet *fleet;
    struct triggers *triggers;
    struct turn *turn;
    struct reload *reload;
    struct https *https; /* NULL: the API is plain */
    struct api *api;
    struct fetch_config includes;
    char *includes_path;
    bool has_includes;
    atomic_bool ending; /* whoever fetches files gives up */
    char *templates_path;
    struct janitor *janitor;
};

/* The memory of this process holds tokens and keys: no core dumps, no debugger of the same user. */
static void protect_process(void)
{
    struct rlimit none = {0, 0};
    uint64_t before;

    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CORE, &none);
    umask(077);
    (void)os_raise_open_files(&before); /* what it has must do, then */
}

/* Before the first thread, so that all of them inherit it. */
static void block_signals(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    sigaddset(ret_set, SIGTERM);
    sigaddset(ret_set, SIGINT);
    sigaddset(ret_set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, ret_set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void log_is_durable(void *ctx, uint64_t job_id, uint64_t attempt, uint64_t epoch,
                           uint64_t durable)
{
    struct broker *b = ctx;
    struct item *item = item_new(ITEM_LOG);

    item->job_id = job_id;
    item->attempt = attempt;
    item->epoch = epoch;
    item->durable = durable;
    inbox_push_event(b->inbox, item);
    bus_publish(b->bus, BUS_LOG, job_id);
}

static void turn_is_alive(void *ctx)
{
    notify_alive();
}

/* Transit keeps what the Vault has encrypted in a file of its own, so that nobody takes it for
 * keys. */
static int open_vault(struct broker *b, const struct options *o, struct buf *why)
{
    const char *source = o->master_key;
    bool transit = source != NULL && str_starts(str_from(source), STR("transit:"));
    char *path = os_path_join(o->data, transit ? "master.key.sealed" : "master.key");
    int r = vault_open(source, path, &b->vault, why);

    free(path);
    return r;
}

static int open_s3(struct broker *b, const struct options *o, struct buf *why)
{
    struct s3 *s3;
    if (o->s3 == NULL) {
        return 0;
    }
    http_global_init();
    int r = s3_open(o->s3, o->s3_region, o->s3_key, &s3, why);
    if (r < 0) {
        return r;
    }
    blobs_use_s3(b->blobs, s3, (uint64_t)o->s3_keep << 30);
    struct buf reason = BUF_INIT;
    r = s3_check(s3, &reason);
    if (r == -E_FORBIDDEN || r == -E_NOT_FOUND || r == -E_FAILED) {
        buf_add_str(why, buf_str(&reason));
    } else if (r < 0) { /* it may come later */
        log_warn("main: %s: uploads wait for it", buf_cstr(&reason));
        r = 0;
    }
    buf_release(&reason);
    return r;
}

static int open_folders(struct broker *b, const struct options *o, struct buf *why)
{
    const char *data = o->data;
    struct store_options options = {.may_migrate = turn_may_migrate,
                                    .migrate_ctx = b->journal_path};
    char *store_dir = os_path_join(data, "store");
    char *blobs_dir = os_path_join(data, "blobs");
    char *logs_dir = os_path_join(data, "logs");
    char *pages_dir = os_path_join(data, "pages");
    char *key_path = os_path_join(data, "jwt.key");
    int r = os_mkdir_p(data, 0700);

    if (r < 0) {
        buf_addf(why, "cannot make %s: %s", data, err_text(r));
    }
    r = r < 0 ? r : store_open(store_dir, &options, &b->store, why);
    r = r < 0 ? r : blobs_open(blobs_dir, &b->blobs, why);
    r = r < 0 ? r : open_s3(b, o, why);
    r = r < 0 ? r : logs_open(logs_dir, log_is_durable, b, &b->logs, why);
    r = r < 0 ? r : pages_open(pages_dir, b->blobs, &b->pages, why);
    r = r < 0 ? r : signer_open(key_path, &b->signer, why);
    r = r < 0 ? r : open_vault(b, o, why);
    free(pages_dir);
    free(key_path);
    free(store_dir);
    free(blobs_dir);
    free(logs_dir);
    return r;
}

/* By which names the broker's certificate is good: what it knows itself, then what it was told. */
static size_t own_names(struct broker *b, const char **names)
{
    size_t n = 0;

    b->hostname = os_hostname();
    names[n++] = "localhost";
    names[n++] = "127.0.0.1";
    names[n++] = "::1";
    names[n++] = CERT_BROKER_NAME;
    if (b->hostname[0] != '\0' && strlen(b->hostname) <= LIMIT_CERT_NAME) {
        names[n++] = b->hostname;
    }
    const struct address *const listeners[] = {&b->fleet_address, &b->http_address};
    for (size_t i = 0; i < ARRAY_LEN(listeners); i++) {
        if (!address_is_any(listeners[i]) && !address_is_loopback(listeners[i])) {
            names[n++] = listeners[i]->host;
        }
    }
    check(n <= OPTIONS_OWN_NAMES);
    return n;
}

static int open_authority(struct broker *b, const struct options *o, struct buf *why)
{
    const char *names[LIMIT_CERT_NAMES];
    size_t n = own_names(b, names);
    char *dir = os_path_join(o->data, "tls");

    for (size_t i = 0; i < o->names.count; i++) {
        names[n++] = o->names.items[i];
    }
    b->name = o->names.count > 0 ? o->names.items[0] : b->hostname;
    struct authority_config config = {
        .dir = dir,
        .names = names,
        .name_count = n,
        .worker_life_ms = o->worker_life_ms,
        .server_life_ms = o->server_life_ms,
    };
    int r = authority_open(&config, &b->authority, why);
    free(dir);
    return r;
}

/* With what the options give it to show. */
static int open_https(struct broker *b, const struct options *o, struct buf *why)
{
    struct served served;
    struct https_shown *shown = NULL;
    int r = served_load(o, &served, why);

    if (r < 0 || !b->http_address.tls) {
        return r;
    }
    r = https_new(b->authority, &b->https, why);
    if (r == 0 && served.chain.n > 0) {
        r = https_load(&served, &shown, why);
    }
    if (r == 0) {
        (void)https_show(b->https, shown);
    }
    served_release(&served);
    return r;
}

static int start_turn(struct broker *b, const struct options_source *source,
                      const struct options *o, struct buf *why)
{
    struct fleet_config fleet = {
        .inbox = b->inbox,
        .logs = b->logs,
        .job_token = job_token,
        .signer = b->signer,
        .vault = b->vault,
        .tls = b->fleet_address.tls ? authority_tls(b->authority) : NULL,
        .authority = b->authority,
        .heartbeat_ms = o->heartbeat_ms,
        .lease_ms = o->lease_ms,
    };

    b->fleet = fleet_new(&fleet);
    b->triggers = triggers_new(b->store, b->blobs, b->vault, b->has_includes ? &b->includes : NULL);
    struct turn_config turn = {
        .store = b->store,
        .bus = b->bus,
        .inbox = b->inbox,
        .fleet = b->fleet,
        .alive = turn_is_alive,
        .trigger = {.start = triggers_request, .ctx = b->triggers},
        .journal = b->journal_path,
        .relaxed_ms = o->relaxed_ms,
        .keep_pipelines_ms = o->keep_pipelines_ms,
    };
    int r = turn_start(&turn, &b->turn, why);
    if (r < 0) {
        return r;
    }
    triggers_start(b->triggers, b->turn);
    b->reload = reload_new(source, o, b->turn, b->https);
    r = first_start(o->data, b->store, b->turn, why);
    return r < 0 ? r : reload_declare(b->reload, why);
}

/* From where the broker gets included files itself; false: from nowhere. */
static bool set_includes(struct broker *b, const struct options *o)
{
    if (!o->fetch_includes) {
        return false;
    }
    http_global_init();
    b->includes_path = os_path_join(o->data, "includes");
    b->templates_path = o->templates != NULL ? xstrdup(o->templates) : fetch_find_templates();
    b->includes = (struct fetch_config){
        .cache = b->includes_path,
        .templates = b->templates_path,
        .projects = o->projects.items,
        .project_count = o->projects.count,
        .public_only = !o->fetch_private,
        .timeout_ms = FETCH_TIMEOUT_MS,
        .budget_ms = FETCH_BUDGET_MS,
        .stop = &b->ending,
    };
    return true;
}

static void hand_over(struct reload_result *from, struct buf *changed, struct buf *restart,
                      struct buf *why)
{
    buf_add_str(changed, buf_str(&from->changed));
    buf_add_str(restart, buf_str(&from->restart));
    buf_add_str(why, buf_str(&from->why));
    reload_result_release(from);
}

static int reload_for_api(void *ctx, struct buf *changed, struct buf *restart, struct buf *why)
{
    struct broker *b = ctx;
    struct reload_result result;
    int r = reload_run(b->reload, &result);

    hand_over(&result, changed, restart, why);
    return r;
}

static int check_for_api(void *ctx, struct buf *changed, struct buf *restart, struct buf *why)
{
    struct broker *b = ctx;
    struct reload_result result;
    int r = reload_check(b->reload, &result);

    hand_over(&result, changed, restart, why);
    return r;
}

/* Where others find the listener; NULL: at its address. */
static const char *public_name(const struct broker *b, const struct address *a)
{
    return address_is_any(a) ? b->name : NULL;
}

static const char *http_scheme(const struct broker *b)
{
    return b->http_address.tls ? "https://" : "http://";
}

static const char *fleet_scheme(const struct broker *b)
{
    return b->fleet_address.tls ? "tls://" : "tcp://";
}

static int start_api(struct broker *b, const struct options *o, struct buf *why)
{
    struct api_config config = {
        .store = b->store,
        .turn = b->turn,
        .fleet = b->fleet,
        .blobs = b->blobs,
        .logs = b->logs,
        .bus = b->bus,
        .pages = b->pages,
        .signer = b->signer,
        .vault = b->vault,
        .includes = b->has_includes ? &b->includes : NULL,
        .reload = reload_for_api,
        .check_config = check_for_api,
        .reload_ctx = b,
        .host = b->http_address.host,
        .port = b->http_address.port,
        .authority = b->authority,
        .https = b->https,
        .plain_anywhere = o->plain_anywhere,
        .public_name = public_name(b, &b->http_address),
        .fleet_tls = b->fleet_address.tls,
        .rate = o->rate,
        .trusted_proxies = o->trusted_proxies,
    };
    int r = api_start(&config, &b->api, why);

    if (r == 0) {
        b->http_address.port = api_port(b->api);
    }
    return r;
}

static int start_fleet(struct broker *b, struct buf *why)
{
    struct buf listen_url = BUF_INIT;
    struct buf api_url = BUF_INIT;

    address_url(&b->fleet_address, fleet_scheme(b), NULL, &listen_url);
    address_url(&b->http_address, http_scheme(b), public_name(b, &b->http_address), &api_url);
    int r = fleet_listen(b->fleet, buf_cstr(&listen_url), buf_cstr(&api_url),
                         &b->fleet_address.port, why);
    if (r == 0) {
        api_set_fleet_port(b->api, b->fleet_address.port);
    }
    buf_release(&listen_url);
    buf_release(&api_url);
    return r;
}

/* On this machine one that listens everywhere is reached by loopback. */
static const char *here(const struct address *a)
{
    return !address_is_any(a) ? NULL : strchr(a->host, ':') != NULL ? "::1" : "127.0.0.1";
}

/* Others find us by this file: it appears once both listeners serve. */
static int write_endpoints(struct broker *b, struct buf *why)
{
    struct buf text = BUF_INIT;

    buf_addf(&text, "{\"pid\":%ld,\"fleet\":\"", (long)getpid());
    address_url(&b->fleet_address, fleet_scheme(b), here(&b->fleet_address), &text);
    buf_addz(&text, "\",\"http\":\"");
    address_url(&b->http_address, http_scheme(b), here(&b->http_address), &text);
    buf_addf(&text, "\",\"version\":\"%s\"}\n", DAVIT_VERSION);
    int r = os_write_file(b->endpoints_path, text.p, text.n, 0600);
    if (r < 0) {
        buf_addf(why, "cannot write %s: %s", b->endpoints_path, err_text(r));
    }
    buf_release(&text);
    return r;
}

static int broker_open(struct broker *b, const struct options_source *source,
                       const struct options *o, struct buf *why)
{
    bool plain = o->plain_anywhere;
    int r = address_parse(o->fleet_url, &address_fleet, plain, &b->fleet_address, why);

    r = r < 0 ? r : address_parse(o->http, &address_http, plain, &b->http_address, why);
    if (r < 0) {
        return r;
    }
    b->bus = bus_new();
    b->inbox = inbox_new();
    b->journal_path = os_path_join(o->data, "journal");
    r = open_folders(b, o, why);
    r = r < 0 ? r : open_authority(b, o, why);
    r = r < 0 ? r : open_https(b, o, why);
    if (r < 0) {
        return r;
    }
    b->endpoints_path = os_path_join(o->data, "endpoints.json");
    unlink(b->endpoints_path); /* of a broker that did not end cleanly */
    b->has_includes = set_includes(b, o);
    r = start_turn(b, source, o, why);
    r = r < 0 ? r : start_api(b, o, why);
    r = r < 0 ? r : start_fleet(b, why);
    r = r < 0 ? r : write_endpoints(b, why);
    if (r == 0) {
        api_set_ready(b->api);
        b->janitor = janitor_new(b->store, b->turn, b->blobs, b->pages, b->logs, b->vault,
                                 b->authority);
    }
    return r;
}

/* The API goes first, as its waiting requests need the turn, and so do child pipelines; the inbox
 * goes last, as everybody pushes into it until they are closed. */
static void broker_close(struct broker *b)
{
    if (b->endpoints_path != NULL) {
        unlink(b->endpoints_path);
    }
    atomic_store(&b->ending, true);
    janitor_free(b->janitor);
    if (b->api != NULL) {
        api_stop(b->api);
    }
    if (b->triggers != NULL) {
        triggers_stop(b->triggers);
    }
    if (b->turn != NULL) {
        turn_stop(b->turn);
    }
    if (b->fleet != NULL) {
        fleet_close(b->fleet);
    }
    logs_close(b->logs);
    reload_free(b->reload);
    turn_free(b->turn);
    triggers_free(b->triggers);
    fleet_free(b->fleet);
    inbox_free(b->inbox);
    bus_free(b->bus);
    signer_close(b->signer);
    vault_close(b->vault);
    https_free(b->https);
    authority_close(b->authority);
    pages_close(b->pages);
    blobs_close(b->blobs);
    store_close(b->store);
    free(b->includes_path);
    free(b->templates_path);
    free(b->endpoints_path);
    free(b->journal_path);
    free(b->hostname);
}

static void say_durability(const struct options *o)
{
    if (o->relaxed_ms > 0) {
        log_warn("main: relaxed durability: if the machine fails, the last %u ms of what was "
                 "acknowledged may be lost",
                 o->relaxed_ms);
    }
}

static void reload_on_signal(struct broker *b)
{
    struct reload_result result;

    notify_reloading();
    (void)reload_run(b->reload, &result); /* it has told the log */
    reload_result_release(&result);
    notify_reloaded();
}

static void say_security(const struct broker *b)
{
    const struct address *const listeners[] = {&b->fleet_address, &b->http_address};

    for (size_t i = 0; i < ARRAY_LEN(listeners); i++) {
        if (!listeners[i]->tls && !address_is_loopback(listeners[i])) {
            log_warn("main: %s port %u is served WITHOUT TLS: everybody on the network can read "
                     "tokens and run jobs",
                     listeners[i]->host, listeners[i]->port);
        }
    }
    if (authority_until_ms(b->authority) < os_realtime_ms() + AUTHORITY_WARN_MS) {
        log_warn("main: the certificate authority in tls/ca.pem expires within a year");
    }
}

static void run(struct broker *b, const sigset_t *signals)
{
    struct buf text = BUF_INIT;
    int got = 0;

    buf_addz(&text, "workers at ");
    address_url(&b->fleet_address, fleet_scheme(b), NULL, &text);
    buf_addz(&text, ", API at ");
    address_url(&b->http_address, http_scheme(b), NULL, &text);
    log_info("main: davitd " DAVIT_VERSION " serves %s", buf_cstr(&text));
    notify_ready(buf_cstr(&text));
    buf_release(&text);
    do {
        if (got == SIGHUP) {
            reload_on_signal(b);
        }
    } while (sigwait(signals, &got) != 0 || got == SIGHUP); /* it fails for a bad set alone */
    log_info("main: %s, ending", strsignal(got));
    notify_stopping();
}

int serve(const struct options_source *source, const struct options *o)
{
    struct broker b = {.store = NULL};
    struct buf why = BUF_INIT;
    sigset_t signals;

    protect_process();
    block_signals(&signals);
    int r = broker_open(&b, source, o, &why);
    if (r < 0) {
        log_error("main: " STR_FMT, STR_ARG(str_trim(buf_str(&why))));
    } else {
        say_durability(o);
        say_security(&b);
        run(&b, &signals);
    }
    broker_close(&b);
    buf_release(&why);
    return r;
}
