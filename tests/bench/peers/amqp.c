#include "common/base.h"

#include "tests/bench/peers/amqp.h"

#include "tests/bench/peers/peer.h"

enum { FRAME_HEAD = 7, FRAME_END = 0xce, FRAME_MAX = 128 << 10 };

static uint64_t read_number(const char *p, size_t bytes)
{
    uint64_t n = 0;

    for (size_t i = 0; i < bytes; i++) {
        n = n << 8 | (uint8_t)p[i];
    }
    return n;
}

static void add_number(struct buf *out, uint64_t n, size_t bytes)
{
    for (size_t i = bytes; i > 0; i--) {
        buf_add_char(out, (char)(n >> (8 * (i - 1)) & 0xff));
    }
}

static void add_short(struct buf *out, struct str s)
{
    check(s.n <= 255);
    add_number(out, s.n, 1);
    buf_add_str(out, s);
}

static void add_long(struct buf *out, struct str s)
{
    add_number(out, s.n, 4);
    buf_add_str(out, s);
}

bool amqp_take(struct str *rest, struct amqp_frame *ret)
{
    if (rest->n < FRAME_HEAD) {
        return false;
    }
    size_t n = (size_t)read_number(rest->p + 3, 4);
    if (rest->n < FRAME_HEAD + n + 1) {
        return false;
    }
    if ((uint8_t)rest->p[FRAME_HEAD + n] != FRAME_END) {
        driver_fail("rabbitmq", STR("a frame without its end"));
    }
    *ret = (struct amqp_frame){.type = (uint8_t)rest->p[0],
                               .payload = str_sub(*rest, FRAME_HEAD, n)};
    *rest = str_sub(*rest, FRAME_HEAD + n + 1, rest->n);
    return true;
}

uint32_t amqp_method(const struct amqp_frame *f)
{
    check(f->payload.n >= 4);
    return (uint32_t)read_number(f->payload.p, 4);
}

uint64_t amqp_u64(struct str payload, size_t at)
{
    check(at + 8 <= payload.n);
    return read_number(payload.p + at, 8);
}

static size_t begin_frame(struct buf *out, uint8_t type, uint16_t channel)
{
    add_number(out, type, 1);
    add_number(out, channel, 2);
    add_number(out, 0, 4);
    return out->n;
}

static void end_frame(struct buf *out, size_t begin)
{
    size_t n = out->n - begin;

    for (size_t i = 0; i < 4; i++) {
        out->p[begin - 4 + i] = (char)(n >> (24 - 8 * i) & 0xff);
    }
    add_number(out, FRAME_END, 1);
}

static size_t begin_method(struct buf *out, uint16_t channel, unsigned class, unsigned method)
{
    size_t begin = begin_frame(out, AMQP_FRAME_METHOD, channel);

    add_number(out, class, 2);
    add_number(out, method, 2);
    return begin;
}

void amqp_greet(struct buf *out)
{
    buf_add(out, "AMQP\0\0\x09\x01", 8);
}

void amqp_start_ok(struct buf *out)
{
    size_t frame = begin_method(out, 0, 10, 11);

    add_long(out, STR("")); /* properties of the client */
    add_short(out, STR("PLAIN"));
    add_long(out, STR("\0guest\0guest"));
    add_short(out, STR("en_US"));
    end_frame(out, frame);
}

void amqp_tune_ok(struct buf *out)
{
    size_t frame = begin_method(out, 0, 10, 31);

    add_number(out, 16, 2); /* channels */
    add_number(out, FRAME_MAX, 4);
    add_number(out, 0, 2); /* no heartbeat */
    end_frame(out, frame);
}

void amqp_open(struct buf *out)
{
    size_t frame = begin_method(out, 0, 10, 40);

    add_short(out, STR("/"));
    add_short(out, STR(""));
    add_number(out, 0, 1);
    end_frame(out, frame);
}

void amqp_channel_open(struct buf *out)
{
    size_t frame = begin_method(out, 1, 20, 10);

    add_short(out, STR(""));
    end_frame(out, frame);
}

void amqp_queue_declare(struct buf *out, const char *queue)
{
    size_t frame = begin_method(out, 1, 50, 10);
    struct buf arguments = BUF_INIT;

    add_number(out, 0, 2);
    add_short(out, str_from(queue));
    add_number(out, 2, 1); /* durable */
    add_short(&arguments, STR("x-queue-type"));
    buf_add_char(&arguments, 'S');
    add_long(&arguments, STR("quorum"));
    add_long(out, buf_str(&arguments));
    end_frame(out, frame);
    buf_release(&arguments);
}

void amqp_qos(struct buf *out, uint16_t prefetch)
{
    size_t frame = begin_method(out, 1, 60, 10);

    add_number(out, 0, 4);
    add_number(out, prefetch, 2);
    add_number(out, 0, 1);
    end_frame(out, frame);
}

void amqp_consume(struct buf *out, const char *queue)
{
    size_t frame = begin_method(out, 1, 60, 20);

    add_number(out, 0, 2);
    add_short(out, str_from(queue));
    add_short(out, STR("w"));
    add_number(out, 0, 1);
    add_long(out, STR(""));
    end_frame(out, frame);
}

void amqp_confirm_select(struct buf *out)
{
    size_t frame = begin_method(out, 1, 85, 10);

    add_number(out, 0, 1);
    end_frame(out, frame);
}

void amqp_publish(struct buf *out, const char *queue, struct str body)
{
    size_t frame = begin_method(out, 1, 60, 40);

    add_number(out, 0, 2);
    add_short(out, STR("")); /* the exchange that routes by the queue's name */
    add_short(out, str_from(queue));
    add_number(out, 0, 1);
    end_frame(out, frame);
    frame = begin_frame(out, AMQP_FRAME_HEADER, 1);
    add_number(out, 60, 2);
    add_number(out, 0, 2);
    add_number(out, body.n, 8);
    add_number(out, 0x1000, 2); /* of the properties the delivery mode alone: */
    add_number(out, 2, 1);
    end_frame(out, frame);
    frame = begin_frame(out, AMQP_FRAME_BODY, 1);
    buf_add_str(out, body);
    end_frame(out, frame);
}

void amqp_ack_all(struct buf *out, uint64_t delivery)
{
    size_t frame = begin_method(out, 1, 60, 80);

    add_number(out, delivery, 8);
    add_number(out, 1, 1);
    end_frame(out, frame);
}

void amqp_flow(struct buf *out)
{
    size_t frame = begin_method(out, 1, 20, 20);

    add_number(out, 1, 1);
    end_frame(out, frame);
}
