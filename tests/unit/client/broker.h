/* A broker by hand: one connection after the other of one client, to which the test says exactly
 * what it wants, when it wants. */
#ifndef DAVIT_TESTS_CLIENT_BROKER_H
#define DAVIT_TESTS_CLIENT_BROKER_H

#include "common/arena.h"
#include "proto/pb.h"

struct broker {
    int listener;
    uint16_t port;
    int fd;             /* -1: no connection */
    struct arena arena; /* of the message received last */
    uint64_t seq;       /* of the last numbered message sent */
    uint64_t seen;      /* the client's last number: goes out as `ack` */
};

void broker_up(struct broker *b);
void broker_down(struct broker *b);
/* Takes the next connection, within 3 s, and its Hello, and answers with Welcome. */
void broker_welcome(struct broker *b);
void broker_hang_up(struct broker *b);
/* The next message, within 3 s, that is not a Heartbeat: it must be of that kind. */
Pb__Envelope *broker_expect(struct broker *b, Pb__Envelope__BodyCase kind);
/* The client neither hangs up nor says anything for so long. */
void broker_expect_silence(struct broker *b, int ms);
/* Fills in version, session, seq and ack. */
void broker_send(struct broker *b, Pb__Envelope *body);
/* A ClientAnswer; `job` may be NULL. */
void broker_answer(struct broker *b, uint64_t request, const char *code, Pb__ClientJob *job);
/* Expects Bye, and answers it. */
void broker_part(struct broker *b);

#endif
