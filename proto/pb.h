/* The generated messages behind a safe door: every unpack goes through pb_unpack, which bounds the
 * memory that foreign bytes can claim. Packing goes into a struct buf.
 *
 * An unpacked message lives in the arena it was unpacked into and must not be freed otherwise. Its
 * strings, at any depth, are UTF-8 without NUL; its `bytes` may be anything.
 * Threads: pure; one arena belongs to one thread. */
#ifndef DAVIT_PB_H
#define DAVIT_PB_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"

#include "action.pb-c.h"
#include "command.pb-c.h"
#include "local.pb-c.h"
#include "plan.pb-c.h"
#include "record.pb-c.h"
#include "rollout.pb-c.h"
#include "wire.pb-c.h"

#define WIRE_VERSION        3u
#define WIRE_VERSION_OLDEST 2u /* served, too: docs/protocol.md says how they agree */
#define WIRE_CREDIT         32u

/* Unpacks n bytes as `desc` into the arena. -E_TOO_BIG when n > limit, -E_PROTOCOL when the bytes
 * are no such message, hold bad strings, or claim more than LIMIT_UNPACK_FACTOR * n +
 * LIMIT_UNPACK_SLACK bytes of memory. */
int pb_unpack(struct arena *arena, const ProtobufCMessageDescriptor *desc, const void *p, size_t n,
              size_t limit, ProtobufCMessage **ret);

/* Typed: PB_UNPACK(&arena, command, p, n, LIMIT_COMMAND, &cmd) */
#define PB_UNPACK(arena, name, p, n, limit, ret) \
    pb_unpack((arena), &pb__##name##__descriptor, (p), (n), (limit), (ProtobufCMessage **)(ret))

/* The same for bytes that pb_pack has written and a checksum has guarded since: no bound, and no
 * question about strings. -E_PROTOCOL: they are no such message. */
int pb_unpack_own(struct arena *arena, const ProtobufCMessageDescriptor *desc, struct str packed,
                  ProtobufCMessage **ret);

/* Appends the packed message. */
void pb_pack(const ProtobufCMessage *m, struct buf *out);
#define PB_PACK(m, out) pb_pack(&(m)->base, (out))
/* Whether both, of one kind, say the same. */
bool pb_same(const ProtobufCMessage *a, const ProtobufCMessage *b);

/* No less than its packed size, and mostly not far above: a third of the work of measuring it. */
size_t pb_size_bound(const ProtobufCMessage *m);

/* A deep copy in the arena. Never NULL. It packs to the same bytes as its model. */
ProtobufCMessage *pb_copy(struct arena *arena, const ProtobufCMessage *m);

/* The same in one block of memory, which begins with the message: aligned for a uint64_t, freed or
 * moved as a whole. A tenth of the work of packing and unpacking. */
size_t pb_block_size(const ProtobufCMessage *m);
ProtobufCMessage *pb_block_make(const ProtobufCMessage *m, void *block); /* pb_block_size bytes */
/* A copy of a block of n bytes that pb_block_make or this function has made. */
ProtobufCMessage *pb_block_copy(const ProtobufCMessage *block, size_t n, void *to);

/* bytes fields */
struct str pb_str(ProtobufCBinaryData b);
ProtobufCBinaryData pb_bytes(struct arena *arena, struct str s); /* a copy */
ProtobufCBinaryData pb_bytes_ref(struct str s);                  /* no copy: the caller keeps it */

/* Short names for the enums of the schema. */
#define JOB_CREATED                 PB__JOB_STATE__JOB_CREATED
#define JOB_WAITING_FOR_RESOURCE    PB__JOB_STATE__JOB_WAITING_FOR_RESOURCE
#define JOB_SCHEDULED               PB__JOB_STATE__JOB_SCHEDULED
#define JOB_MANUAL                  PB__JOB_STATE__JOB_MANUAL
#define JOB_PENDING                 PB__JOB_STATE__JOB_PENDING
#define JOB_ASSIGNED                PB__JOB_STATE__JOB_ASSIGNED
#define JOB_RUNNING                 PB__JOB_STATE__JOB_RUNNING
#define JOB_CANCELING               PB__JOB_STATE__JOB_CANCELING
#define JOB_SUCCESS                 PB__JOB_STATE__JOB_SUCCESS
#define JOB_FAILED                  PB__JOB_STATE__JOB_FAILED
#define JOB_CANCELED                PB__JOB_STATE__JOB_CANCELED
#define JOB_SKIPPED                 PB__JOB_STATE__JOB_SKIPPED

#define STATUS_CREATED              PB__STATUS__STATUS_CREATED
#define STATUS_WAITING_FOR_RESOURCE PB__STATUS__STATUS_WAITING_FOR_RESOURCE
#define STATUS_SCHEDULED            PB__STATUS__STATUS_SCHEDULED
#define STATUS_MANUAL               PB__STATUS__STATUS_MANUAL
#define STATUS_PENDING              PB__STATUS__STATUS_PENDING
#define STATUS_RUNNING              PB__STATUS__STATUS_RUNNING
#define STATUS_CANCELING            PB__STATUS__STATUS_CANCELING
#define STATUS_SUCCESS              PB__STATUS__STATUS_SUCCESS
#define STATUS_FAILED               PB__STATUS__STATUS_FAILED
#define STATUS_CANCELED             PB__STATUS__STATUS_CANCELED
#define STATUS_SKIPPED              PB__STATUS__STATUS_SKIPPED

#define REASON_NONE                 PB__REASON__REASON_NONE
#define REASON_SCRIPT_FAILURE       PB__REASON__REASON_SCRIPT_FAILURE
#define REASON_WORKER_LOST          PB__REASON__REASON_WORKER_LOST
#define REASON_SYSTEM_FAILURE       PB__REASON__REASON_SYSTEM_FAILURE
#define REASON_JOB_TIMEOUT          PB__REASON__REASON_JOB_TIMEOUT
#define REASON_STUCK                PB__REASON__REASON_STUCK
#define REASON_CANCELED_BY_USER     PB__REASON__REASON_CANCELED_BY_USER
#define REASON_SUPERSEDED           PB__REASON__REASON_SUPERSEDED
#define REASON_DEPENDENCY_FAILED    PB__REASON__REASON_DEPENDENCY_FAILED
#define REASON_IMAGE_PULL_FAILURE   PB__REASON__REASON_IMAGE_PULL_FAILURE
#define REASON_CONFIG_ERROR         PB__REASON__REASON_CONFIG_ERROR
#define REASON_UNMET_PREREQUISITES  PB__REASON__REASON_UNMET_PREREQUISITES
#define REASON_ARTIFACT_MISSING     PB__REASON__REASON_ARTIFACT_MISSING
#define REASON_SOURCE_FAILURE       PB__REASON__REASON_SOURCE_FAILURE
#define REASON_ARTIFACT_FAILURE     PB__REASON__REASON_ARTIFACT_FAILURE
#define REASON_WORKER_SHUTDOWN      PB__REASON__REASON_WORKER_SHUTDOWN
#define REASON_CHILD_FAILED         PB__REASON__REASON_CHILD_FAILED
#define REASON_PREEMPTED            PB__REASON__REASON_PREEMPTED
#define REASON_ROLLOUT_FAILED       PB__REASON__REASON_ROLLOUT_FAILED

#define ENVIRONMENT_AVAILABLE       PB__ENVIRONMENT_STATE__ENVIRONMENT_AVAILABLE
#define ENVIRONMENT_STOPPING        PB__ENVIRONMENT_STATE__ENVIRONMENT_STOPPING
#define ENVIRONMENT_STOPPED         PB__ENVIRONMENT_STATE__ENVIRONMENT_STOPPED

#define ENVIRONMENT_START           PB__ENVIRONMENT_ACTION__ENVIRONMENT_ACTION_START
#define ENVIRONMENT_STOP            PB__ENVIRONMENT_ACTION__ENVIRONMENT_ACTION_STOP

#define VARIABLE_INSTANCE           PB__VARIABLE_LEVEL__VARIABLE_INSTANCE
#define VARIABLE_GROUP              PB__VARIABLE_LEVEL__VARIABLE_GROUP
#define VARIABLE_PROJECT            PB__VARIABLE_LEVEL__VARIABLE_PROJECT

#define WHEN_ON_SUCCESS             PB__WHEN__WHEN_ON_SUCCESS
#define WHEN_ON_FAILURE             PB__WHEN__WHEN_ON_FAILURE
#define WHEN_ALWAYS                 PB__WHEN__WHEN_ALWAYS
#define WHEN_MANUAL                 PB__WHEN__WHEN_MANUAL
#define WHEN_DELAYED                PB__WHEN__WHEN_DELAYED
#define AUTO_CANCEL_NONE            PB__AUTO_CANCEL_ON_NEW_COMMIT__AUTO_CANCEL_ON_NEW_COMMIT_NONE
#define AUTO_CANCEL_CONSERVATIVE \
    PB__AUTO_CANCEL_ON_NEW_COMMIT__AUTO_CANCEL_ON_NEW_COMMIT_CONSERVATIVE
#define AUTO_CANCEL_INTERRUPTIBLE \
    PB__AUTO_CANCEL_ON_NEW_COMMIT__AUTO_CANCEL_ON_NEW_COMMIT_INTERRUPTIBLE

#endif
