/* Master keys from everywhere, and what they seal. */
#include "common/base.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/vault/vault.h"
#include "common/crypto.h"
#include "common/os.h"

#define KEY_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
#define KEY_B "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

struct fixture {
    char *dir;
    char *path;
    struct arena arena;
    struct buf why;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    f->dir = os_make_temp_dir("davit-sealed");
    f->path = os_path_join(f->dir, "master.key");
    arena_init(&f->arena, 0);
    *state = f;
    return f->dir == NULL;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    int r = os_remove_tree(f->dir);
    arena_release(&f->arena);
    buf_release(&f->why);
    free(f->path);
    free(f->dir);
    free(f);
    return r;
}

static struct vault *opened(struct fixture *f, const char *source)
{
    struct vault *v;
    if (vault_open(source, f->path, &v, &f->why) < 0) {
        fail_msg("%s", buf_cstr(&f->why));
    }
    return v;
}

static void refused(struct fixture *f, const char *source, int r, const char *why)
{
    struct vault *v;
    buf_clear(&f->why);
    assert_int_equal(vault_open(source, f->path, &v, &f->why), r);
    if (strstr(buf_cstr(&f->why), why) == NULL) {
        fail_msg("refused with '%s' instead of '%s'", buf_cstr(&f->why), why);
    }
    assert_null(strstr(buf_cstr(&f->why), "AAAAAAA"));
}

static Pb__SealedVariable *variable(struct fixture *f, const char *owner, const char *name)
{
    Pb__SealedVariable *v = arena_alloc(&f->arena, sizeof(*v));
    pb__sealed_variable__init(v);
    v->level = VARIABLE_PROJECT;
    v->owner = arena_strdup(&f->arena, str_from(owner));
    v->name = arena_strdup(&f->arena, str_from(name));
    v->environment_scope = arena_strdup(&f->arena, STR("*"));
    return v;
}

static void assert_opens(struct vault *v, const Pb__SealedVariable *var, const char *value)
{
    struct buf out = BUF_INIT;
    assert_int_equal(vault_unseal(v, var, &out), 0);
    assert_string_equal(buf_cstr(&out), value);
    buf_release(&out);
}

static void assert_corrupt(struct vault *v, const Pb__SealedVariable *var)
{
    struct buf out = BUF_INIT;
    assert_int_equal(vault_unseal(v, var, &out), -E_CORRUPT);
    assert_int_equal(out.n, 0);
    buf_release(&out);
}

static void what_is_sealed_opens_again(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, NULL);
    Pb__SealedVariable *a = variable(f, "g/p", "A");
    Pb__SealedVariable *empty = variable(f, "g/p", "E");
    vault_seal(v, &f->arena, STR("hunter2!"), a);
    vault_seal(v, &f->arena, STR(""), empty);
    assert_int_equal(a->sealed.len, strlen("hunter2!") + CRYPTO_SEAL_BYTES);
    assert_int_equal(str_find(pb_str(a->sealed), STR("hunter2")), -1);
    assert_opens(v, a, "hunter2!");
    assert_opens(v, empty, "");
    vault_close(v);
    v = opened(f, NULL); /* the key is in its file */
    assert_opens(v, a, "hunter2!");
    vault_close(v);
}

static void a_row_at_another_place_does_not_open(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, NULL);
    Pb__SealedVariable *a = variable(f, "g/p", "A");
    Pb__SealedVariable *b = variable(f, "g/p", "B");
    vault_seal(v, &f->arena, STR("of a"), a);
    vault_seal(v, &f->arena, STR("of b"), b);
    Pb__SealedVariable swapped = *a;
    swapped.sealed = b->sealed;
    assert_corrupt(v, &swapped);
    swapped.wrapped_key = b->wrapped_key;
    assert_corrupt(v, &swapped);
    swapped = *a;
    swapped.name = b->name;
    assert_corrupt(v, &swapped);
    swapped = *a;
    swapped.owner = (char *)"g/q";
    assert_corrupt(v, &swapped);
    swapped = *a;
    swapped.environment_scope = (char *)"production";
    assert_corrupt(v, &swapped);
    swapped = *a;
    swapped.level = VARIABLE_GROUP;
    assert_corrupt(v, &swapped);
    assert_opens(v, a, "of a");
    vault_close(v);
}

static void every_damaged_bit_shows(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, NULL);
    Pb__SealedVariable *a = variable(f, "g/p", "A");
    vault_seal(v, &f->arena, STR("value"), a);
    for (size_t i = 0; i < a->sealed.len; i++) {
        a->sealed.data[i] ^= 1;
        assert_corrupt(v, a);
        a->sealed.data[i] ^= 1;
    }
    for (size_t i = 0; i < a->wrapped_key.len; i++) {
        a->wrapped_key.data[i] ^= 0x80;
        assert_corrupt(v, a);
        a->wrapped_key.data[i] ^= 0x80;
    }
    for (size_t n = 0; n < a->sealed.len; n++) {
        Pb__SealedVariable cut = *a;
        cut.sealed.len = n;
        assert_corrupt(v, &cut);
    }
    assert_opens(v, a, "value");
    vault_close(v);
}

static void the_file_is_made_once_and_is_private(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    vault_close(opened(f, NULL));
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(chmod(f->path, 0640), 0);
    refused(f, NULL, -E_FORBIDDEN, "others may read");
}

static void keys_come_from_the_environment_and_leave_it(void **state)
{
    struct fixture *f = *state;
    struct vault_key keys[LIMIT_MASTER_KEYS];
    setenv("DAVIT_TEST_KEY", KEY_A " " KEY_B, 1);
    struct vault *v = opened(f, "env:DAVIT_TEST_KEY");
    assert_int_equal(vault_keys(v, keys), 2);
    assert_true(keys[0].current && !keys[1].current);
    assert_null(getenv("DAVIT_TEST_KEY"));
    vault_close(v);
    refused(f, "env:DAVIT_TEST_KEY", -E_NOT_FOUND, "not set");
    assert_false(os_exists(f->path));
}

static void keys_come_from_a_command(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, "command:echo '# two'; echo; echo " KEY_B "; echo " KEY_A);
    struct vault_key keys[LIMIT_MASTER_KEYS];
    assert_int_equal(vault_keys(v, keys), 2);
    vault_close(v);
    refused(f, "command:echo " KEY_A "; false", -E_FAILED, "failed");
    refused(f, "command:true", -E_CORRUPT, "no key");
    refused(f, "command:echo " KEY_A "; echo " KEY_A, -E_CORRUPT, "stands twice");
    refused(f, "command:echo AAAA", -E_CORRUPT, "not the base64 of 32 bytes");
    refused(f, "command:yes " KEY_A, -E_TOO_BIG, "failed");
}

static void a_source_that_is_none_is_refused(void **state)
{
    static const char *const sources[] = {
        "", "file", "file:", "env:", "command:", "http://x", ":x"};
    for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
        refused(*state, sources[i], -E_USAGE, "a master key comes from");
    }
}

static bool nothing_used(void *ctx, struct str id)
{
    (void)ctx, (void)id;
    return false;
}

static bool all_used(void *ctx, struct str id)
{
    (void)ctx, (void)id;
    return true;
}

static void a_new_master_key_wraps_and_the_old_one_opens(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, NULL);
    struct vault_key keys[LIMIT_MASTER_KEYS];
    Pb__SealedVariable *a = variable(f, "g/p", "A");
    Pb__RewrappedKey *rewrapped;
    vault_seal(v, &f->arena, STR("value"), a);
    assert_int_equal(vault_rotate(v, &f->why), 0);
    assert_opens(v, a, "value");
    assert_int_equal(vault_forget(v, all_used, NULL, 0, &f->why), 0);
    assert_int_equal(vault_keys(v, keys), 2);
    assert_int_equal(vault_rewrap(v, &f->arena, a, &rewrapped), 0);
    Pb__SealedVariable before = *a;
    a->wrapped_key = rewrapped->wrapped_key;
    a->master_key_id = rewrapped->master_key_id;
    assert_opens(v, a, "value");
    assert_int_equal(vault_forget(v, nothing_used, NULL, 3600000, &f->why), 0);
    assert_int_equal(vault_keys(v, keys), 2); /* too young */
    assert_int_equal(vault_forget(v, nothing_used, NULL, 0, &f->why), 0);
    assert_int_equal(vault_keys(v, keys), 1);
    vault_close(v);
    v = opened(f, NULL);
    assert_int_equal(vault_keys(v, keys), 1);
    assert_opens(v, a, "value");
    struct buf out = BUF_INIT;
    assert_int_equal(vault_unseal(v, &before, &out), -E_NOT_FOUND);
    vault_close(v);
}

static void keys_of_others_are_not_changed(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, "command:echo " KEY_A);
    assert_int_equal(vault_rotate(v, &f->why), -E_UNSUPPORTED);
    assert_non_null(strstr(buf_cstr(&f->why), "start davitd again"));
    vault_close(v);
}

static void the_number_of_keys_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, NULL);
    for (unsigned i = 1; i < LIMIT_MASTER_KEYS; i++) {
        assert_int_equal(vault_rotate(v, &f->why), 0);
    }
    assert_int_equal(vault_rotate(v, &f->why), -E_LIMIT);
    vault_close(v);
    vault_close(opened(f, NULL));
}

/* --- specs --- */

static Pb__Variable *stored(struct fixture *f, struct vault *v, const char *name, const char *value)
{
    Pb__SealedVariable *sealed = variable(f, "g/p", name);
    Pb__Variable *var = arena_alloc(&f->arena, sizeof(*var));
    struct buf packed = BUF_INIT;
    vault_seal(v, &f->arena, str_from(value), sealed);
    PB_PACK(sealed, &packed);
    pb__variable__init(var);
    var->name = sealed->name;
    var->sealed = pb_bytes(&f->arena, buf_str(&packed));
    buf_release(&packed);
    return var;
}

static void a_spec_gets_the_values_that_count(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, NULL);
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    Pb__Variable plain = PB__VARIABLE__INIT;
    plain.name = (char *)"A";
    plain.value = pb_bytes(&f->arena, STR("of the submit"));
    Pb__Variable *all[] = {stored(f, v, "A", "hidden"), stored(f, v, "B", "weak"),
                           stored(f, v, "B", "strong"), &plain};
    spec.variables = all;
    spec.n_variables = 4;
    assert_int_equal(vault_open_spec(v, &f->arena, &spec), 0);
    assert_int_equal(spec.n_variables, 2);
    assert_string_equal(spec.variables[0]->name, "B");
    assert_true(str_eqz(pb_str(spec.variables[0]->value), "strong"));
    struct buf packed = BUF_INIT;
    PB_PACK(&spec, &packed);
    assert_int_equal(str_find(buf_str(&packed), STR("hidden")), -1);
    assert_true(str_find(buf_str(&packed), STR("strong")) >= 0);
    buf_release(&packed);
    vault_wipe_spec(&spec);
    assert_false(str_eqz(pb_str(spec.variables[0]->value), "strong"));
    assert_true(str_eqz(pb_str(spec.variables[1]->value), "of the submit"));
    vault_close(v);
}

static void one_that_does_not_open_takes_all_along(void **state)
{
    struct fixture *f = *state;
    struct vault *v = opened(f, NULL);
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    Pb__Variable *all[] = {stored(f, v, "A", "a value"), stored(f, v, "B", "b value")};
    all[1]->sealed.data[all[1]->sealed.len - 20] ^= 1;
    spec.variables = all;
    spec.n_variables = 2;
    assert_int_not_equal(vault_open_spec(v, &f->arena, &spec), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(spec.variables[i]->value.len, 0);
        assert_int_equal(spec.variables[i]->sealed.len, 1);
    }
    vault_close(v);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_sealed_opens_again),
        TEST(a_row_at_another_place_does_not_open),
        TEST(every_damaged_bit_shows),
        TEST(the_file_is_made_once_and_is_private),
        TEST(keys_come_from_the_environment_and_leave_it),
        TEST(keys_come_from_a_command),
        TEST(a_source_that_is_none_is_refused),
        TEST(a_new_master_key_wraps_and_the_old_one_opens),
        TEST(keys_of_others_are_not_changed),
        TEST(the_number_of_keys_is_bounded),
        TEST(a_spec_gets_the_values_that_count),
        TEST(one_that_does_not_open_takes_all_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
