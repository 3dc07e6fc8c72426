/* Child pipelines: what is compiled, what is forwarded, what is refused, and that nothing is lost.
 */
#include "common/base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "broker/trigger/bundle.h"
#include "broker/trigger/child.h"
#include "broker/trigger/trigger.h"
#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/turn/fixture.h"

#define CONFIG "{\"include\":[{\"local\":\"child.yml\"}]}"

struct trial {
    struct fixture f;
    struct blobs *blobs;
    struct triggers *triggers;
    _Atomic uint64_t asked_job; /* of the turn, last */
    _Atomic uint64_t asked_epoch;
    atomic_uint asked;
};

static void remember(void *ctx, uint64_t job_id, uint64_t epoch)
{
    struct trial *t = ctx;
    t->asked_job = job_id;
    t->asked_epoch = epoch;
    t->asked++;
    if (t->triggers != NULL) {
        triggers_request(t->triggers, job_id, epoch);
    }
}

static int setup(void **state)
{
    struct trial *t = xcalloc(1, sizeof(*t));
    const struct fixture_options o = {.trigger = {remember, t}};
    struct buf why = BUF_INIT;
    fixture_up(&t->f, &o);
    char *dir = os_path_join(t->f.dir, "blobs");
    assert_int_equal(blobs_open(dir, &t->blobs, &why), 0);
    free(dir);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct trial *t = *state;
    if (t->triggers != NULL) {
        triggers_stop(t->triggers);
        triggers_free(t->triggers);
    }
    fixture_audit(&t->f);
    fixture_down(&t->f);
    blobs_close(t->blobs);
    free(t);
    return 0;
}

static void start_triggers(struct trial *t)
{
    t->triggers = triggers_new(t->f.store, t->blobs, NULL, NULL);
    triggers_start(t->triggers, t->f.turn);
}

/* It tells after the commit that others may see at once. */
static void wait_asked(struct trial *t, unsigned count)
{
    for (int i = 0; i < 500 && t->asked < count; i++) {
        os_sleep_ms(10);
    }
    assert_int_equal(t->asked, count);
}

static Pb__Variable *variable(struct arena *a, const char *name, const char *value, bool raw)
{
    Pb__Variable *v = arena_alloc(a, sizeof(*v));
    pb__variable__init(v);
    v->name = arena_strdup(a, str_from(name));
    v->value = pb_bytes(a, str_from(value));
    v->raw = raw;
    return v;
}

static Pb__SnapshotSource *store_child(struct trial *t, struct arena *a, const char *text)
{
    Pb__Bundle bundle = PB__BUNDLE__INIT;
    Pb__BundleFile file = PB__BUNDLE_FILE__INIT;
    Pb__BundleFile *files[] = {&file};
    Pb__SnapshotSource *at;
    file.name = pb_bytes_ref(STR("child.yml"));
    file.text = pb_bytes_ref(str_from(text));
    bundle.files = files;
    bundle.n_files = 1;
    assert_int_equal(bundle_store(t->blobs, &bundle, a, &at), 0);
    return at;
}

/* A pipeline whose one job makes a child of `text`. */
static struct post *trigger_post(struct trial *t, const char *text)
{
    struct post *p = fixture_pipeline_post("group/test", 1);
    struct arena *a = post_arena(p);
    Pb__PipelineCreate *create = post_command(p)->pipeline_create;
    Pb__PlanJob *job = create->plan->jobs[0];
    job->n_script = 0;
    job->trigger = arena_alloc(a, sizeof(*job->trigger));
    pb__trigger_spec__init(job->trigger);
    job->trigger->config = pb_bytes(a, STR(CONFIG));
    job->trigger->forward_yaml_variables = true;
    create->bundle = store_child(t, a, text);
    return p;
}

static void add_job_variable(struct post *p, Pb__Variable *v)
{
    Pb__PlanJob *job = post_command(p)->pipeline_create->plan->jobs[0];
    Pb__Variable **all = arena_array(post_arena(p), job->n_variables + 1, sizeof(*all));
    for (size_t i = 0; i < job->n_variables; i++) {
        all[i] = job->variables[i];
    }
    all[job->n_variables++] = v;
    job->variables = all;
}

static void set_submitted(struct post *p, Pb__Variable *v)
{
    Pb__PipelineCreate *create = post_command(p)->pipeline_create;
    create->submitted = arena_array(post_arena(p), 1, sizeof(*create->submitted));
    create->submitted[0] = v;
    create->n_submitted = 1;
}

static void set_predefined(struct post *p, Pb__Variable *v)
{
    Pb__PipelineCreate *create = post_command(p)->pipeline_create;
    create->predefined = arena_array(post_arena(p), 1, sizeof(*create->predefined));
    create->predefined[0] = v;
    create->n_predefined = 1;
}

static uint64_t child_of(struct trial *t, uint64_t job_id)
{
    struct tx *tx;
    fixture_read(&t->f, &tx);
    uint64_t id = job_get(tx, job_id)->child_pipeline_id;
    tx_abort(tx);
    return id;
}

/* The child's strongest variable of that name; "" for none. */
static void child_variable(struct trial *t, uint64_t child_id, const char *name, bool predefined,
                           char ret[64])
{
    struct tx *tx;
    ret[0] = '\0';
    fixture_read(&t->f, &tx);
    const struct key k = key_u64(child_id);
    const Pb__PipelineVariablesRecord *all = (const Pb__PipelineVariablesRecord *)tx_get_msg(
        tx, T_PIPELINE_VARS, &k, &pb__pipeline_variables_record__descriptor);
    assert_non_null(all);
    Pb__Variable *const *list = predefined ? all->predefined : all->submitted;
    size_t n = predefined ? all->n_predefined : all->n_submitted;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i]->name, name) == 0) {
            snprintf(ret, 64, STR_FMT, STR_ARG(pb_str(list[i]->value)));
        }
    }
    tx_abort(tx);
}

static void a_child_is_made_of_the_files_that_were_kept(void **state)
{
    struct trial *t = *state;
    struct tx *tx;
    start_triggers(t);
    struct post *p = trigger_post(t, "one: {script: x}\ntwo: {script: x}\n");
    uint64_t job_id = fixture_submit_post(&t->f, p);
    assert_true(fixture_wait_job(&t->f, job_id, JOB_SUCCESS));
    uint64_t child_id = child_of(t, job_id);
    assert_int_not_equal(child_id, 0);
    fixture_read(&t->f, &tx);
    const Pb__PipelineRecord *child = pipeline_get(tx, child_id);
    const Pb__PipelineRecord *parent = pipeline_get(tx, job_get(tx, job_id)->pipeline_id);
    assert_int_equal(child->job_count, 2);
    assert_string_equal(job_get(tx, child->first_job_id)->name, "one");
    assert_string_equal(child->origin, "parent_pipeline");
    assert_string_equal(child->ref, parent->ref);
    assert_string_equal(child->submitted_by, parent->submitted_by);
    assert_int_equal(child->parent_job_id, job_id);
    assert_null(child->bundle); /* nothing below it asks for one */
    tx_abort(tx);
}

static void rules_of_the_child_see_what_the_parent_gives(void **state)
{
    struct trial *t = *state;
    struct tx *tx;
    start_triggers(t);
    struct post *p = trigger_post(
        t, "yes:\n  script: x\n  rules:\n    - if: $CI_PIPELINE_SOURCE == \"parent_pipeline\" && "
           "$MODE == \"fast\"\nno:\n  script: x\n  rules: [{if: $MODE == null}]\n");
    set_predefined(p, variable(post_arena(p), "CI_PIPELINE_SOURCE", "push", true));
    add_job_variable(p, variable(post_arena(p), "MODE", "fast", false));
    uint64_t job_id = fixture_submit_post(&t->f, p);
    assert_true(fixture_wait_job(&t->f, job_id, JOB_SUCCESS));
    fixture_read(&t->f, &tx);
    const Pb__PipelineRecord *child = pipeline_get(tx, child_of(t, job_id));
    assert_int_equal(child->job_count, 1);
    assert_string_equal(job_get(tx, child->first_job_id)->name, "yes");
    tx_abort(tx);
    char text[64];
    child_variable(t, child_of(t, job_id), "CI_PIPELINE_SOURCE", true, text);
    assert_string_equal(text, "parent_pipeline");
}

static void variables_are_forwarded_as_asked(void **state)
{
    struct trial *t = *state;
    char text[64];
    start_triggers(t);
    for (int with_pipeline = 0; with_pipeline < 2; with_pipeline++) {
        struct post *p = trigger_post(t, "one: {script: x}\n");
        struct arena *a = post_arena(p);
        post_command(p)->pipeline_create->plan->jobs[0]->trigger->forward_pipeline_variables =
            with_pipeline;
        set_submitted(p, variable(a, "GIVEN", "by hand", false));
        add_job_variable(p, variable(a, "OWN", "$GIVEN of $CI_JOB_NAME $NONE.", false));
        add_job_variable(p, variable(a, "RAW", "$GIVEN", true));
        add_job_variable(p, variable(a, "DEEP", "<$OWN>", false));
        add_job_variable(p, variable(a, "GIVEN", "from the file", false));
        uint64_t job_id = fixture_submit_post(&t->f, p);
        assert_true(fixture_wait_job(&t->f, job_id, JOB_SUCCESS));
        uint64_t child_id = child_of(t, job_id);
        child_variable(t, child_id, "OWN", false, text);
        assert_string_equal(text, "by hand of job 0 .");
        child_variable(t, child_id, "RAW", false, text);
        assert_string_equal(text, "$GIVEN");
        child_variable(t, child_id, "DEEP", false, text);
        assert_string_equal(text, "<by hand of job 0 .>");
        child_variable(t, child_id, "GIVEN", false, text);
        assert_string_equal(text, with_pipeline ? "by hand" : "from the file");
    }
}

static void without_forwarding_nothing_comes(void **state)
{
    struct trial *t = *state;
    char text[64];
    start_triggers(t);
    struct post *p = trigger_post(t, "one: {script: x}\n");
    post_command(p)->pipeline_create->plan->jobs[0]->trigger->forward_yaml_variables = false;
    add_job_variable(p, variable(post_arena(p), "OWN", "x", false));
    uint64_t job_id = fixture_submit_post(&t->f, p);
    assert_true(fixture_wait_job(&t->f, job_id, JOB_SUCCESS));
    child_variable(t, child_of(t, job_id), "OWN", false, text);
    assert_string_equal(text, "");
}

static void assert_fails(struct trial *t, struct post *p, const char *detail)
{
    struct tx *tx;
    uint64_t job_id = fixture_submit_post(&t->f, p);
    assert_true(fixture_wait_job(&t->f, job_id, JOB_FAILED));
    fixture_read(&t->f, &tx);
    const Pb__JobRecord *job = job_get(tx, job_id);
    const Pb__AttemptRecord *attempt = attempt_get(tx, job_id, job->attempt);
    assert_int_equal(job->reason, REASON_CONFIG_ERROR);
    assert_int_equal(job->child_pipeline_id, 0);
    if (strstr(attempt->detail, detail) == NULL) {
        fail_msg("`%s` does not say `%s`", attempt->detail, detail);
    }
    tx_abort(tx);
}

static void set_config(struct post *p, const char *config)
{
    post_command(p)->pipeline_create->plan->jobs[0]->trigger->config = pb_bytes(post_arena(p),
                                                                                str_from(config));
}

static void a_wrong_child_fails_its_job_with_the_place(void **state)
{
    struct trial *t = *state;
    start_triggers(t);
    assert_fails(t, trigger_post(t, "one:\n  scirpt: x\n"), "child.yml:2:3: ");
    assert_fails(t, trigger_post(t, "one: ["), "child.yml:2:1: ");
    assert_fails(t, trigger_post(t, "one: {script: x, rules: [{when: never}]}\n"),
                 "trigger of job 0: the pipeline would have no jobs");
    struct post *p = trigger_post(t, "one: {script: x}\n");
    set_config(p, "{\"include\":[{\"local\":\"other.yml\"}]}");
    assert_fails(t, p, "other.yml");
}

static void files_that_did_not_come_along_are_fetched_where_that_is_allowed(void **state)
{
    static const char config[] = "{\"include\":[{\"template\":\"Own.gitlab-ci.yml\"}]}";
    static const char text[] = "fetched: {script: x}\n";
    struct trial *t = *state;
    struct tx *tx;
    start_triggers(t);
    struct post *p = trigger_post(t, "one: {script: x}\n");
    set_config(p, config);
    assert_fails(t, p, "Own.gitlab-ci.yml");
    triggers_stop(t->triggers);
    triggers_free(t->triggers);

    char *path = os_path_join(t->f.dir, "Own.gitlab-ci.yml");
    assert_int_equal(os_put_file(path, text, strlen(text), 0600), 0);
    const struct fetch_config includes = {.cache = t->f.dir, .templates = t->f.dir};
    t->triggers = triggers_new(t->f.store, t->blobs, NULL, &includes);
    triggers_start(t->triggers, t->f.turn);
    p = trigger_post(t, "one: {script: x}\n");
    set_config(p, config);
    uint64_t job_id = fixture_submit_post(&t->f, p);
    assert_true(fixture_wait_job(&t->f, job_id, JOB_SUCCESS));
    fixture_read(&t->f, &tx);
    const Pb__PipelineRecord *child = pipeline_get(tx, child_of(t, job_id));
    assert_string_equal(job_get(tx, child->first_job_id)->name, "fetched");
    tx_abort(tx);
    triggers_stop(t->triggers); /* before `includes` is gone */
    free(path);
}

/* A host that takes the request and says nothing. */
static int open_silent_host(uint16_t *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

static void a_file_that_does_not_come_holds_up_neither_others_nor_the_end(void **state)
{
    struct trial *t = *state;
    uint16_t port;
    char config[96];
    atomic_bool ending = false;
    int fd = open_silent_host(&port);
    const struct fetch_config includes = {.cache = t->f.dir, .timeout_ms = 60000, .stop = &ending};
    snprintf(config, sizeof(config), "{\"include\":[{\"remote\":\"http://127.0.0.1:%u/x.yml\"}]}",
             port);
    t->triggers = triggers_new(t->f.store, t->blobs, NULL, &includes);
    triggers_start(t->triggers, t->f.turn);
    struct post *p = trigger_post(t, "one: {script: x}\n");
    set_config(p, config);
    uint64_t slow = fixture_submit_post(&t->f, p);
    assert_true(fixture_wait_job(&t->f, slow, JOB_RUNNING));
    uint64_t other = fixture_submit_post(&t->f, trigger_post(t, "one: {script: x}\n"));
    assert_true(fixture_wait_job(&t->f, other, JOB_SUCCESS));
    uint64_t begin_ms = os_monotonic_ms();
    atomic_store(&ending, true);
    os_sleep_ms(1000); /* others are ended first */
    triggers_stop(t->triggers);
    assert_true(os_monotonic_ms() - begin_ms < 20000);
    assert_true(fixture_wait_job(&t->f, slow, JOB_RUNNING)); /* the next start asks again */
    close(fd);
}

static void a_lost_bundle_fails_the_job(void **state)
{
    struct trial *t = *state;
    uint8_t none[SHA256_BYTES] = {1};
    start_triggers(t);
    struct post *p = trigger_post(t, "one: {script: x}\n");
    post_command(p)->pipeline_create->bundle->digest = pb_bytes(post_arena(p),
                                                                str_of(none, sizeof(none)));
    assert_fails(t, p, "not found");
}

static atomic_int open_error; /* of the next opens of blobs */
static atomic_uint open_failures;

int __real_blob_open(struct blobs *b, const uint8_t digest[SHA256_BYTES], int *ret_fd,
                     uint64_t *ret_size);
int __wrap_blob_open(struct blobs *b, const uint8_t digest[SHA256_BYTES], int *ret_fd,
                     uint64_t *ret_size);
int __wrap_blob_open(struct blobs *b, const uint8_t digest[SHA256_BYTES], int *ret_fd,
                     uint64_t *ret_size)
{
    if (open_error < 0) {
        open_failures++;
        return open_error;
    }
    return __real_blob_open(b, digest, ret_fd, ret_size);
}

static void a_disk_or_descriptors_that_come_back_cost_nothing(void **state)
{
    static const int errors[] = {-E_IO, -E_BUSY};
    struct trial *t = *state;
    start_triggers(t);
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        open_failures = 0;
        open_error = errors[i];
        uint64_t job_id = fixture_submit_post(&t->f, trigger_post(t, "one: {script: x}\n"));
        for (int k = 0; k < 500 && open_failures < 2; k++) {
            os_sleep_ms(10);
        }
        assert_true(open_failures >= 2);
        assert_int_equal(fixture_job_state(&t->f, job_id), JOB_RUNNING);
        open_error = 0;
        assert_true(fixture_wait_job(&t->f, job_id, JOB_SUCCESS));
    }
}

static void what_is_not_wanted_any_more_is_not_made(void **state)
{
    struct trial *t = *state;
    const struct child_sources sources = {.store = t->f.store, .blobs = t->blobs};
    struct post *made = NULL;
    struct buf why = BUF_INIT;
    uint64_t job_id = fixture_submit_post(&t->f, trigger_post(t, "one: {script: x}\n"));
    assert_true(fixture_wait_job(&t->f, job_id, JOB_RUNNING));
    wait_asked(t, 1);
    assert_int_equal(t->asked_job, job_id);
    assert_int_equal(child_build(&sources, job_id, t->asked_epoch + 1, &made, &why), 0);
    assert_null(made);
    assert_int_equal(child_build(&sources, job_id + 1000, 1, &made, &why), 0);
    assert_null(made);
    assert_int_equal(child_build(&sources, job_id, t->asked_epoch, &made, &why), 0);
    assert_non_null(made);
    post_free(made);
    buf_release(&why);
}

static void a_new_start_asks_again_and_once_is_enough(void **state)
{
    struct trial *t = *state;
    uint64_t job_id = fixture_submit_post(&t->f, trigger_post(t, "one: {script: x}\n"));
    assert_true(fixture_wait_job(&t->f, job_id, JOB_RUNNING));
    wait_asked(t, 1);
    uint64_t epoch = t->asked_epoch;
    fixture_restart(&t->f); /* nobody had made the child */
    wait_asked(t, 2);
    assert_int_equal(t->asked_epoch, epoch);
    t->triggers = triggers_new(t->f.store, t->blobs, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        triggers_request(t->triggers, job_id, epoch);
    }
    triggers_start(t->triggers, t->f.turn);
    assert_true(fixture_wait_job(&t->f, job_id, JOB_SUCCESS));
    uint64_t child_id = child_of(t, job_id);
    /* Another one, behind the three in the queue. */
    uint64_t other = fixture_submit_post(&t->f, trigger_post(t, "one: {script: x}\n"));
    assert_true(fixture_wait_job(&t->f, other, JOB_SUCCESS));
    assert_int_equal(child_of(t, job_id), child_id);
    struct tx *tx;
    fixture_read(&t->f, &tx);
    assert_int_equal(tx_count(tx, T_PIPELINE), 4); /* two with a child each */
    tx_abort(tx);
}

static void a_bundle_comes_back_as_it_was(void **state)
{
    struct trial *t = *state;
    struct arena a;
    Pb__Bundle *back;
    arena_init(&a, 0);
    Pb__SnapshotSource *at = store_child(t, &a, "text with \xff");
    assert_int_equal(bundle_load(t->blobs, at, &a, &back), 0);
    const Pb__BundleFile *file = bundle_file(back, STR("child.yml"));
    assert_non_null(file);
    assert_true(str_eqz(pb_str(file->text), "text with \xff"));
    assert_null(bundle_file(back, STR("child.ym")));
    at->digest.data[0] ^= 1;
    assert_int_equal(bundle_load(t->blobs, at, &a, &back), -E_NOT_FOUND);
    arena_release(&a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_child_is_made_of_the_files_that_were_kept),
        TEST(rules_of_the_child_see_what_the_parent_gives),
        TEST(variables_are_forwarded_as_asked),
        TEST(without_forwarding_nothing_comes),
        TEST(a_wrong_child_fails_its_job_with_the_place),
        TEST(files_that_did_not_come_along_are_fetched_where_that_is_allowed),
        TEST(a_file_that_does_not_come_holds_up_neither_others_nor_the_end),
        TEST(a_lost_bundle_fails_the_job),
        TEST(a_disk_or_descriptors_that_come_back_cost_nothing),
        TEST(what_is_not_wanted_any_more_is_not_made),
        TEST(a_new_start_asks_again_and_once_is_enough),
        TEST(a_bundle_comes_back_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
