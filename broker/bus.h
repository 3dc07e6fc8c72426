/* Wakes those who follow: the turn says which events were committed, the log writer which logs
 * grew. The bus carries no data: followers read the store or the log file from where they stand, so
 * a missed or doubled wake-up is harmless. Threads: publishing from any thread; a subscriber is
 * called on the publisher's thread with the bus's lock held and must only take a note (wake a loop,
 * resume a connection). */
#ifndef DAVIT_BUS_H
#define DAVIT_BUS_H

#include "common/base.h"

enum bus_topic {
    BUS_EVENTS, /* key: the newest event's sequence number */
    BUS_LOG,    /* key: the job id */
};

struct bus;
typedef void (*bus_fn)(void *ctx, enum bus_topic topic, uint64_t key);

struct bus *bus_new(void);
void bus_free(struct bus *b); /* after all subscribers left */
void bus_publish(struct bus *b, enum bus_topic topic, uint64_t key);
uint64_t bus_subscribe(struct bus *b, bus_fn fn, void *ctx); /* a handle */
void bus_unsubscribe(struct bus *b, uint64_t handle);        /* no call comes after it returns */

#endif
