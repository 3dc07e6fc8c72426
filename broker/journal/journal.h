/* The journal: every command that was applied, in order, on the disk before anybody hears of it.
 * One flush of a file that is written in place costs less than half of what a commit of the store
 * does; so the store commits seldom, and after a crash what it lacks is applied again from here.
 *
 * A folder of segments, files of one size that are used again and again: what a segment holds is
 * void once the store has committed past it. A file NAME.journal (16 hexadecimal digits: its
 * generation, one more for each) is in use, "spare" is not, whatever it holds.
 *   head    one block of JOURNAL_BLOCK bytes: magic, format, generation, store id, the first index,
 *           who wrote it
 *   records from there on, each at a multiple of JOURNAL_BLOCK: magic, checksum, length,
 * generation, index of its first command, number of commands, their version, up to which index all
 * was durable before; then the packed commands, each after its length No block is written twice
 * while it counts, so that a torn write never harms what was durable. A record that is not whole
 * ends the journal, as the last one that was being written; but where a later one says that it had
 * been durable, the disk has lost it, and the journal is refused. A generation begins at every
 * start: nothing that was cut off can be taken for new, nor what an older generation still has
 * from there on, where a lost record stands before a whole one.
 *
 * Indices are those of applied_index in the store. They may jump where the store committed without
 * the journal: what is missing here is in the store then.
 *
 * Errors: -E_CORRUPT, -E_VERSION (commands of another version), -E_CONFLICT (of another store),
 * -E_NO_SPACE, -E_IO. After -E_IO of journal_flush the process ends.
 * Threads: one, the turn's; journal_open before it starts. Depends on: disk.h. */
#ifndef DAVIT_JOURNAL_H
#define DAVIT_JOURNAL_H

#include "common/buf.h"
#include "common/err.h"
#include "proto/pb.h"

#define JOURNAL_STORE_ID_BYTES 16u
#define JOURNAL_BLOCK          4096u
#define JOURNAL_SEGMENT_BYTES  (16u * 1024 * 1024)
/* The least that a segment may have: a head, a record. */
#define JOURNAL_SEGMENT_MIN (2 * JOURNAL_BLOCK)

struct journal;

struct journal_options {
    const char *dir;
    const uint8_t *store_id;  /* JOURNAL_STORE_ID_BYTES */
    struct str secret;        /* marks what is ours: no user may know it */
    uint32_t command_version; /* of what is written, and the only one that can be replayed */
    uint64_t segment_bytes;   /* 0: JOURNAL_SEGMENT_BYTES; a multiple of JOURNAL_BLOCK */
    bool read_only;           /* for fsck: nothing is made or changed */
};

/* Opens the folder and looks at its segments. Writes nothing: journal_restart does, after the
 * replay. `why` gets a line for people on failure. */
int journal_open(const struct journal_options *o, struct journal **ret, struct buf *why);
/* Nothing was ever written there, or it was taken away. */
bool journal_is_empty(const struct journal *j);
void journal_close(struct journal *j); /* NULL is fine; flushes nothing */

/* Calls fn with every command after the index `applied`, in order; what it returns below 0 ends the
 * replay. 0: all that is durable was handed out. -E_CORRUPT: something between is missing or
 * damaged, and `why` says where. The bytes are the callee's during the call. */
typedef int (*journal_replay_fn)(void *ctx, uint64_t index, struct str packed);
int journal_replay(struct journal *j, uint64_t applied, journal_replay_fn fn, void *ctx,
                   struct buf *why);

/* The store has committed all up to `applied`: what the journal holds is void, a new generation
 * begins. Also the way on when journal_write found no room. -E_NO_SPACE: no file could be made; the
 * journal takes nothing more, and this may be tried again. Files of old generations that cannot be
 * put away stay until the next restart. */
int journal_restart(struct journal *j, uint64_t applied);

/* Adds an applied command to what the next journal_write writes. Its index is one more than that of
 * the last, or it begins a jump. */
void journal_add(struct journal *j, uint64_t index, const Pb__Command *cmd);
/* Forgets what was added since the last journal_write. */
void journal_drop(struct journal *j);
bool journal_has_added(const struct journal *j);

/* Writes what was added, as one record. -E_FULL: it does not fit into the segment, nothing was
 * written and what was added stays. Other errors: the bytes may be there
 * or not, what was added is dropped, and nothing can follow it before a journal_restart. */
int journal_write(struct journal *j);
/* Goes on in the spare segment, the present one keeps counting: for when the store cannot commit
 * now. -E_FULL: there is no spare one. */
int journal_extend(struct journal *j);
/* One flush for all that was written. */
int journal_flush(struct journal *j);
bool journal_is_flushed(const struct journal *j);

struct journal_stat {
    uint64_t records;
    uint64_t commands;
    uint64_t bytes; /* with heads and padding */
    uint64_t flushes;
    uint64_t segments; /* begun */
};
void journal_get_stat(const struct journal *j, struct journal_stat *ret);

#endif
