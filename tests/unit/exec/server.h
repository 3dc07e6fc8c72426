/* The stand-in for the broker that test_step and test_git talk to. */
#ifndef DAVIT_TESTS_EXEC_SERVER_H
#define DAVIT_TESTS_EXEC_SERVER_H

#include "tests/unit/exec/fixture.h"

struct server {
    pid_t pid;
    int port;
};

/* port 0: any. Waits until it listens; sets f->cx.api_url. */
struct server server_start(struct fixture *f, int port);
void server_stop(struct server *s);
int server_free_port(void);
/* A blob of what archive_pack makes of these paths below `folder`; its digest and size. */
ProtobufCBinaryData server_put_archive(struct fixture *f, const char *folder,
                                       const char *const *paths, size_t count, uint64_t *ret_size);

#endif
