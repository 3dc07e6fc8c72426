/* What davit-shim does for containers besides running a job. */
#include "common/base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"

static int run(const char *const *argv, struct buf *out)
{
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    int status;
    assert_int_equal(os_run(&spawn, 4096, out, &status), 0);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}
#define SHIM(out, ...) run((const char *[]){getenv("DAVIT_SHIM"), __VA_ARGS__, NULL}, (out))

static int listen_on(int family, char *ret_endpoint, size_t size)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    bool four = family == AF_INET;
    struct sockaddr *address = four ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
    socklen_t n = four ? sizeof(v4) : sizeof(v6);
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, address, n) < 0) {
        return -1;
    }
    assert_int_equal(getsockname(fd, address, &n), 0);
    snprintf(ret_endpoint, size, four ? "127.0.0.1:%u" : "[::1]:%u",
             ntohs(four ? v4.sin_port : v6.sin6_port));
    return fd;
}

static void it_waits_for_those_who_listen(void **state)
{
    static const int families[] = {AF_INET, AF_INET6};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        char endpoint[64];
        struct buf out = BUF_INIT;
        int fd = listen_on(families[i], endpoint, sizeof(endpoint));
        if (fd < 0) {
            continue; /* a machine without IPv6 */
        }
        assert_int_equal(SHIM(&out, "--wait", "0", endpoint), 1); /* bound, but deaf */
        assert_non_null(strstr(buf_cstr(&out), endpoint));
        assert_int_equal(listen(fd, 1), 0);
        buf_clear(&out);
        assert_int_equal(SHIM(&out, "--wait", "5000", endpoint), 0);
        assert_int_equal(out.n, 0);
        close(fd);
        buf_release(&out);
    }
}

static void what_is_no_endpoint_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "1.2.3.4",
                                      "1.2.3.4:",
                                      "1.2.3.4:0",
                                      "a:80",
                                      "1.2.3:80",
                                      ":80",
                                      "[::1]",
                                      "::1:80",
                                      "[::1:80",
                                      "1.2.3.4:x",
                                      "[]:80",
                                      "1.2.3.4:70000",
                                      "[1:2:3:4:5:6:7:8:9:1:2:3:4:5:6:7:8:9:1:2:3:4]:80"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct buf out = BUF_INIT;
        assert_int_equal(SHIM(&out, "--wait", "0", bad[i]), 64);
        buf_release(&out);
    }
}

/* As root it can be seen to change something; else it has only to leave all as it is. */
static void a_tree_is_given_to_the_owner_of_a_file(void **state)
{
    char root[] = "/tmp/davit-helper-test-XXXXXX";
    bool is_root = geteuid() == 0;
    struct stat st;
    struct buf out = BUF_INIT;
    (void)state;
    assert_non_null(mkdtemp(root));
    char *like = os_path_join(root, "like");
    char *dir = os_path_join(root, "dir");
    char *deep = os_path_join(root, "dir/a/b");
    char *file = os_path_join(root, "dir/a/b/file");
    char *link = os_path_join(root, "dir/link");
    char *outside = os_path_join(root, "outside");
    assert_int_equal(os_mkdir_p(deep, 0700), 0);
    assert_int_equal(os_put_file(file, "", 0, 0600), 0);
    assert_int_equal(os_put_file(like, "", 0, 0600), 0);
    assert_int_equal(os_put_file(outside, "", 0, 0600), 0);
    assert_int_equal(symlink("../outside", link), 0);
    uid_t owner = is_root ? 4321 : geteuid();
    assert_int_equal(chown(like, owner, getegid()), 0);
    assert_int_equal(SHIM(&out, "--own", like, dir), 0);
    const char *const given[] = {dir, deep, file, link};
    for (size_t i = 0; i < ARRAY_LEN(given); i++) {
        assert_int_equal(lstat(given[i], &st), 0);
        assert_int_equal(st.st_uid, owner);
    }
    assert_int_equal(stat(outside, &st), 0); /* behind a link */
    assert_int_equal(st.st_uid, geteuid());
    assert_int_equal(SHIM(&out, "--own", like, "/nowhere/at/all"), 1);
    assert_int_equal(SHIM(&out, "--own", "/nowhere/at/all", dir), 64);
    os_remove_tree(root);
    free(like);
    free(dir);
    free(deep);
    free(file);
    free(link);
    free(outside);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_waits_for_those_who_listen),
        cmocka_unit_test(what_is_no_endpoint_is_refused),
        cmocka_unit_test(a_tree_is_given_to_the_owner_of_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
