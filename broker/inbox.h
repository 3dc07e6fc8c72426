/* The inbox of the turn: everything that other threads want it to know, in the order it came.
 *
 * Bounded by LIMIT_INBOX and LIMIT_INBOX_BYTES for what outsiders can send: a post above the bound
 * is refused (-E_BUSY); a wire message is still taken, but its sender is told to receive no more
 * until the turn has caught up (inbox_take says when). Events (pipes, durable logs) are always
 * taken: there are only as many as there are pipes and log chunks. Ownership: an item belongs to
 * the inbox from its push to inbox_take, then to the turn. Threads: pushing from any thread, taking
 * on the turn's. */
#ifndef DAVIT_INBOX_H
#define DAVIT_INBOX_H

#include "common/err.h"

enum item_kind {
    ITEM_POST,      /* post */
    ITEM_MESSAGE,   /* pipe, msg */
    ITEM_PIPE_UP,   /* pipe */
    ITEM_PIPE_DOWN, /* pipe */
    ITEM_LOG,       /* job_id, attempt, epoch, durable */
};

struct item {
    struct item *next;
    enum item_kind kind;
    uint32_t pipe;
    size_t bytes;
    struct post *post;
    struct wire_msg *msg;
    uint64_t job_id;
    uint64_t attempt;
    uint64_t epoch;
    uint64_t durable;
};

struct inbox;
struct inbox *inbox_new(void);
void inbox_free(struct inbox *in); /* must be empty */

struct item *item_new(enum item_kind kind); /* heap; free() it */

/* Takes the item unless it fails: -E_BUSY, -E_SHUTDOWN. */
int inbox_push_post(struct inbox *in, struct item *item);
/* Takes it in any case. False: receive nothing more until inbox_take asks for it. */
bool inbox_push_message(struct inbox *in, struct item *item);
void inbox_push_event(struct inbox *in, struct item *item);

/* Lets inbox_take return, now or the next time, though nothing came. */
void inbox_wake(struct inbox *in);

/* Refuses posts from now on and wakes the taker. */
void inbox_stop(struct inbox *in);
bool inbox_stopped(struct inbox *in);

/* Waits until there is something, the inbox is stopped, or the monotonic clock shows until_ms; 0:
 * does not wait, nor ask the system to. Then takes at most max items, a list in order. *ret_resume:
 * messages may be received again. */
struct item *inbox_take(struct inbox *in, size_t max, uint64_t until_ms, bool *ret_resume);

size_t inbox_count(struct inbox *in);

/* Items ever pushed and ever taken: whoever noted `pushed` knows that all of that time was taken
 * once `taken` has reached it. */
uint64_t inbox_pushed(struct inbox *in);
uint64_t inbox_taken(struct inbox *in);

#endif
