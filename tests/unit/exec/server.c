#include "common/base.h"

#include "tests/unit/exec/server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/archive.h"
#include "common/os.h"

struct server server_start(struct fixture *f, int port)
{
    struct server s = {0};
    char port_text[16];
    struct buf text = BUF_INIT;
    const char *argv[] = {"python3", getenv("DAVIT_SERVER"), f->root, port_text, NULL};
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    snprintf(port_text, sizeof(port_text), "%d", port);
    assert_int_equal(os_spawn(&spawn, &s.pid), 0);
    char *path = fixture_path(f, "port");
    wait_for_file(path);
    assert_int_equal(os_read_file(path, 64, &text), 0);
    s.port = (int)strtol(text.p, NULL, 10);
    buf_release(&text);
    f->cx.api_url = arena_printf(&f->arena, "http://127.0.0.1:%d", s.port);
    return s;
}

void server_stop(struct server *s)
{
    int status;
    kill(s->pid, SIGKILL);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
}

int server_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    close(fd);
    return ntohs(address.sin_port);
}

ProtobufCBinaryData server_put_archive(struct fixture *f, const char *folder,
                                       const char *const *paths, size_t count, uint64_t *ret_size)
{
    struct archive_info info;
    char hex[2 * SHA256_BYTES + 1];
    struct buf why = BUF_INIT;
    char *blobs = fixture_path(f, "blobs");
    char *path = fixture_path(f, "blobs/new");
    assert_int_equal(os_mkdir_p(blobs, 0700), 0);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(archive_pack(folder, paths, count, fd, &info, &why), 0);
    close(fd);
    buf_release(&why);
    str_to_hex(info.digest, SHA256_BYTES, hex);
    assert_int_equal(rename(path, arena_printf(&f->arena, "%s/%s", blobs, hex)), 0);
    *ret_size = info.size;
    return pb_bytes(&f->arena, str_of(info.digest, SHA256_BYTES));
}
