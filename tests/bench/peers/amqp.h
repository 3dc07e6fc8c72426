/* As much of AMQP 0-9-1 as a queue's client needs: frames in, methods out, on channel 1. What is
 * said is in RabbitMQ's machine-readable specification. Threads: pure. */
#ifndef DAVIT_BENCH_AMQP_H
#define DAVIT_BENCH_AMQP_H

#include "common/buf.h"

enum { AMQP_FRAME_METHOD = 1, AMQP_FRAME_HEADER = 2, AMQP_FRAME_BODY = 3 };

/* class << 16 | method */
enum amqp_method {
    AMQP_START = 10 << 16 | 10,
    AMQP_TUNE = 10 << 16 | 30,
    AMQP_CLOSE = 10 << 16 | 50,
    AMQP_FLOW_OK = 20 << 16 | 21,
    AMQP_CHANNEL_CLOSE = 20 << 16 | 40,
    AMQP_CONSUME_OK = 60 << 16 | 21,
    AMQP_DELIVER = 60 << 16 | 60,
    AMQP_ACK = 60 << 16 | 80,
    AMQP_NACK = 60 << 16 | 120,
    AMQP_CONFIRM_SELECT_OK = 85 << 16 | 11,
};

struct amqp_frame {
    uint8_t type;
    struct str payload;
};

/* The next frame off the front; false when it is not whole yet. */
bool amqp_take(struct str *rest, struct amqp_frame *ret);
/* Of a method frame; any number that the specification has. */
uint32_t amqp_method(const struct amqp_frame *f);
uint64_t amqp_u64(struct str payload, size_t at);

void amqp_greet(struct buf *out);
void amqp_start_ok(struct buf *out); /* as guest */
void amqp_tune_ok(struct buf *out);
void amqp_open(struct buf *out);
void amqp_channel_open(struct buf *out);
void amqp_queue_declare(struct buf *out, const char *queue); /* durable, a quorum queue */
void amqp_qos(struct buf *out, uint16_t prefetch);
void amqp_consume(struct buf *out, const char *queue);
void amqp_confirm_select(struct buf *out);
void amqp_publish(struct buf *out, const char *queue, struct str body); /* persistent */
void amqp_ack_all(struct buf *out, uint64_t delivery); /* this one and all before */
void amqp_flow(struct buf *out);                       /* active, as it is: asks for FLOW_OK */

#endif
