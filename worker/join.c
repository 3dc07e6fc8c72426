#include "common/base.h"

#include "worker/join.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "worker/identity.h"
#include "worker/uid.h"

#define ANSWER_LIMIT   (256u * KIB)
#define TIMEOUT_MS     30000u
#define TOKEN_PREFIX   "dvj_"
#define TOKEN_FILE_MAX 4096u

const char join_usage[] =
    "Usage: davit-worker join URL (--token TOKEN | --token-file FILE) --state DIR [--name NAME]\n"
    "\n"
    "Lets this machine join the fleet of a broker. URL is where the broker's API is, as\n"
    "https://broker.example:7080; TOKEN is what `davit token create --worker` printed there.\n"
    "The broker must have the authority that the token names, and the name in the URL. The key\n"
    "that is made here stays here. Afterwards `davit-worker --state DIR` is enough to work.\n"
    "\n"
    "  --name NAME   what this worker is called (default: the host's name)\n";

struct join {
    char *url; /* without a slash at the end */
    char *token;
    char *pin; /* in the token: hex */
    const char *state;
    char *name;
    struct identity id;
    uint8_t uid[UID_BYTES];
    struct buf why;
};

static int fail(struct join *j, int r, const char *fmt, ...) PRINTF_LIKE(3, 4);

static int fail(struct join *j, int r, const char *fmt, ...)
{
    va_list ap;

    buf_clear(&j->why);
    va_start(ap, fmt);
    buf_vaddf(&j->why, fmt, ap);
    va_end(ap);
    return r;
}

/* --- the command line --- */

static int read_token_file(struct join *j, const char *path)
{
    struct buf text = BUF_INIT;
    int r = os_read_file(path, TOKEN_FILE_MAX, &text);

    if (r < 0) {
        return fail(j, r, "cannot read %s: %s", path, err_text(r));
    }
    free(j->token);
    j->token = str_dup(str_trim(buf_str(&text)));
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    return 0;
}

static int take_option(struct join *j, const char *name, const char *value)
{
    if (strcmp(name, "--token-file") == 0) {
        return read_token_file(j, value);
    }
    if (strcmp(name, "--state") == 0) {
        j->state = value;
        return 0;
    }
    char **field = strcmp(name, "--token") == 0  ? &j->token
                   : strcmp(name, "--name") == 0 ? &j->name
                                                 : NULL;
    if (field == NULL) {
        return fail(j, -E_USAGE, "there is no option %s", name);
    }
    free(*field);
    *field = xstrdup(value);
    return 0;
}

static int read_arguments(struct join *j, int argc, char **argv)
{
    int r = 0;

    for (int i = 0; i < argc && r == 0; i++) {
        if (str_starts(str_from(argv[i]), STR("--"))) {
            r = i + 1 < argc ? take_option(j, argv[i], argv[i + 1])
                             : fail(j, -E_USAGE, "%s needs a value", argv[i]);
            i++;
        } else if (j->url == NULL) {
            j->url = xstrdup(argv[i]);
        } else {
            r = fail(j, -E_USAGE, "one argument too many: %s", argv[i]);
        }
    }
    if (r == 0 && (j->url == NULL || j->token == NULL || j->state == NULL)) {
        r = fail(j, -E_USAGE, "URL, --token and --state are needed");
    }
    if (r == 0 && j->name == NULL) {
        j->name = os_hostname();
    }
    return r;
}

/* The last part is the hash of the authority. */
static int read_pin(struct join *j)
{
    struct str token = str_from(j->token);
    size_t at = token.n > 2 * SHA256_BYTES ? token.n - 2 * SHA256_BYTES : 0;
    uint8_t hash[SHA256_BYTES];

    if (!str_starts(token, STR(TOKEN_PREFIX)) || at < 2 || token.p[at - 1] != '_' ||
        str_from_hex(str_sub(token, at, token.n), hash, sizeof(hash)) < 0) {
        return fail(j, -E_INVALID,
                    "this is no join token: `davit token create --worker` at the broker makes one");
    }
    j->pin = str_dup(str_sub(token, at, token.n));
    return 0;
}

static bool is_loopback(const char *url)
{
    return str_starts(str_from(url), STR("http://127.")) ||
           str_starts(str_from(url), STR("http://localhost:")) ||
           str_starts(str_from(url), STR("http://[::1]:"));
}

static int check_url(struct join *j)
{
    size_t n = strlen(j->url);

    while (n > 0 && j->url[n - 1] == '/') {
        j->url[--n] = '\0';
    }
    if (!str_starts(str_from(j->url), STR("https://")) && !is_loopback(j->url)) {
        return fail(j, -E_USAGE,
                    "%s: the token is shown to https:// alone (http:// only on this machine)",
                    j->url);
    }
    return 0;
}

/* --- the conversation --- */

static json_t *parse(struct str text)
{
    return json_loadb(text.n > 0 ? text.p : "", text.n, JSON_REJECT_DUPLICATES, NULL);
}

static const char *field(const json_t *answer, const char *name)
{
    const char *text = json_string_value(json_object_get(answer, name));

    return text != NULL ? text : "";
}

/* A good answer as an object; else what the broker says of it. */
static int ask(struct join *j, const struct http_request *req, json_t **ret)
{
    struct buf out = BUF_INIT;
    int status = 0;
    int r = http_do(req, &status, &out, &j->why);
    json_t *answer = r < 0 ? NULL : parse(buf_str(&out));

    if (r == 0 && (status < 200 || status > 299)) {
        const char *detail = field(answer, "detail");
        r = fail(j, status == 401 || status == 403 ? -E_UNAUTHORIZED : -E_FAILED,
                 "the broker refuses (%d): %s", status,
                 detail[0] != '\0' ? detail : field(answer, "title"));
    } else if (r == 0 && !json_is_object(answer)) {
        r = fail(j, -E_PROTOCOL, "%s is no broker: it does not answer as one", j->url);
    }
    buf_release(&out);
    if (r < 0) {
        json_decref(answer);
        return r;
    }
    *ret = answer;
    return 0;
}

/* Anybody may say what he likes here: whether it is the broker's authority is seen by its hash, and
 * all that follows is said to nobody but a server that it has certified. */
static int get_authority(struct join *j)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf url = BUF_INIT;
    json_t *answer = NULL;
    struct cert_facts facts;
    char hash[2 * SHA256_BYTES + 1];

    buf_addf(&url, "%s/api/v1/authority", j->url);
    req.url = buf_cstr(&url);
    req.any_server = true;
    req.out_limit = ANSWER_LIMIT;
    req.timeout_ms = TIMEOUT_MS;
    int r = ask(j, &req, &answer);
    buf_release(&url);
    if (r < 0) {
        return r;
    }
    const char *pem = field(answer, "certificate");
    if (cert_read(str_from(pem), &facts) < 0) {
        r = fail(j, -E_PROTOCOL, "%s is no broker: it names no authority", j->url);
    } else {
        str_to_hex(facts.hash, SHA256_BYTES, hash);
        if (strcmp(hash, j->pin) != 0) {
            r = fail(j, -E_FORBIDDEN,
                     "%s has another authority than the token's broker: either it is not that "
                     "broker, or somebody is in between. The token was not shown",
                     j->url);
        }
    }
    if (r == 0) {
        buf_addz(&j->id.authority, pem);
    }
    json_decref(answer);
    return r;
}

/* The key of an earlier try with the same token lies there: to the broker that is the same try. */
static int open_key(struct join *j)
{
    char *path = os_path_join(j->id.dir, "joining.key");
    int r = os_read_file(path, CERT_PEM_MAX, &j->id.key);

    if (r == 0) {
        free(path);
        return 0;
    }
    cert_make_key(&j->id.key);
    r = os_mkdir_p(j->id.dir, 0700);
    r = r < 0 ? r : os_write_file(path, j->id.key.p, j->id.key.n, 0600);
    if (r < 0) {
        (void)fail(j, r, "cannot write %s: %s", path, err_text(r));
    }
    free(path);
    return r;
}

static void forget_key(const struct join *j)
{
    char *path = os_path_join(j->id.dir, "joining.key");

    unlink(path);
    free(path);
}

static int make_body(struct join *j, char **ret)
{
    struct buf request = BUF_INIT;
    char uid[2 * UID_BYTES + 1];
    int r = cert_make_request(buf_str(&j->id.key), j->name, &request);

    if (r < 0) {
        return fail(j, -E_CORRUPT, "the key in %s is damaged: remove joining.key", j->id.dir);
    }
    str_to_hex(j->uid, UID_BYTES, uid);
    json_t *body = json_pack("{s:s, s:s, s:s}", "name", j->name, "uid", uid, "request",
                             buf_cstr(&request));
    *ret = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    buf_release(&request);
    return *ret != NULL ? 0 : fail(j, -E_INVALID, "the name is no UTF-8");
}

/* tls://HOST:PORT, on the host of the URL. */
static char *fleet_url(const struct join *j, const json_t *answer)
{
    struct str rest = str_from(strstr(j->url, "://") + 3);
    size_t n = rest.n;
    struct buf url = BUF_INIT;

    while (n > 0 && rest.p[n - 1] != ':' && rest.p[n - 1] != ']') {
        n--;
    }
    struct str host = n > 0 && rest.p[n - 1] == ':' ? str_sub(rest, 0, n - 1) : rest;
    bool tls = json_is_true(json_object_get(answer, "fleet_tls"));
    buf_addf(&url, "%s://%.*s:%d", tls ? "tls" : "tcp", STR_ARG(host),
             (int)json_integer_value(json_object_get(answer, "fleet_port")));
    return buf_take(&url);
}

static int take_answer(struct join *j, const json_t *answer)
{
    const char *pem = field(answer, "certificate");

    if (!json_is_true(json_object_get(answer, "fleet_tls"))) {
        return fail(j, -E_FAILED,
                    "this broker's workers connect without TLS: no certificate is needed there "
                    "(start davitd with --listen tls://...)");
    }
    if (!cert_has_key(str_from(pem), buf_str(&j->id.key)) ||
        !cert_is_by(str_from(pem), buf_str(&j->id.authority))) {
        return fail(j, -E_PROTOCOL, "the broker sent a certificate that is not for our key");
    }
    buf_addz(&j->id.certificate, pem);
    j->id.name = xstrdup(field(answer, "name"));
    j->id.pool = xstrdup(field(answer, "pool"));
    j->id.fleet_url = fleet_url(j, answer);
    j->id.api_url = xstrdup(j->url);
    return identity_save(&j->id, &j->why);
}

static int show_token(struct join *j)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf url = BUF_INIT;
    char *body = NULL;
    json_t *answer = NULL;
    int r = make_body(j, &body);

    if (r < 0) {
        return r;
    }
    buf_addf(&url, "%s/api/v1/join", j->url);
    req.method = "POST";
    req.url = buf_cstr(&url);
    req.token = j->token;
    req.body = str_from(body);
    req.out_limit = ANSWER_LIMIT;
    req.timeout_ms = TIMEOUT_MS;
    r = ask(j, &req, &answer);
    r = r < 0 ? r : take_answer(j, answer);
    json_decref(answer);
    buf_release(&url);
    free(body);
    return r;
}

/* Whoever answers there has to have a certificate of the authority from now on. */
static int trust_authority(struct join *j)
{
    int r = os_write_file(j->id.ca_path, j->id.authority.p, j->id.authority.n, 0600);

    if (r < 0) {
        return fail(j, r, "cannot write %s: %s", j->id.ca_path, err_text(r));
    }
    http_trust_broker(j->url, j->id.ca_path);
    return 0;
}

static int run(struct join *j)
{
    int lock = -1;
    int r = os_mkdir_p(j->state, 0700);

    if (r < 0) {
        return fail(j, r, "cannot make %s: %s", j->state, err_text(r));
    }
    r = uid_lock(j->state, &lock, &j->why);
    r = r < 0 ? r : uid_load(j->state, j->uid, &j->why);
    if (r == 0) {
        j->id.dir = os_path_join(j->state, "tls");
        j->id.ca_path = os_path_join(j->id.dir, "ca.pem");
        r = get_authority(j);
        r = r < 0 ? r : open_key(j);
        r = r < 0 ? r : trust_authority(j);
        r = r < 0 ? r : show_token(j);
    }
    if (r == 0) {
        forget_key(j);
    }
    if (lock >= 0) {
        close(lock);
    }
    return r;
}

static void release(struct join *j)
{
    if (j->token != NULL) {
        crypto_wipe(j->token, strlen(j->token));
    }
    identity_release(&j->id);
    free(j->url);
    free(j->token);
    free(j->pin);
    free(j->name);
    buf_release(&j->why);
}

int join_main(int argc, char **argv)
{
    struct join j = {.url = NULL};

    if (argc == 1 && strcmp(argv[0], "--help") == 0) {
        fputs(join_usage, stdout);
        return 0;
    }
    http_global_init();
    int r = read_arguments(&j, argc, argv);
    r = r < 0 ? r : read_pin(&j);
    r = r < 0 ? r : check_url(&j);
    r = r < 0 ? r : run(&j);
    if (r < 0) {
        fprintf(stderr, "davit-worker: %s\n", buf_cstr(&j.why));
    } else {
        printf("worker %s has joined%s%s; start it by: davit-worker --state %s\n", j.id.name,
               j.id.pool[0] != '\0' ? ", pool " : "", j.id.pool, j.state);
    }
    release(&j);
    return err_exit_code(r);
}
