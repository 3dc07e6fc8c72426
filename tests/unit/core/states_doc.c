/* Prints docs/states.md from the tables of broker/core. With the file's path as argument: compares
 * it instead; after a change of a table, run it without and keep what it prints. */
#include "common/base.h"

#include "broker/core/query.h"
#include "broker/core/rollout.h"
#include "broker/core/state.h"
#include "common/limits.h"
#include "common/os.h"

#include <stdio.h>

static void add_jobs(struct buf *b)
{
    buf_addz(b, "## Jobs\n\n```mermaid\nstateDiagram-v2\n    [*] --> created\n");
    for (unsigned from = 0; from < JOB_STATE_COUNT; from++) {
        for (unsigned to = 0; to < JOB_STATE_COUNT; to++) {
            if (job_state_may_move((Pb__JobState)from, (Pb__JobState)to)) {
                buf_addf(b, "    %s --> %s\n", job_state_text((Pb__JobState)from),
                         job_state_text((Pb__JobState)to));
            }
        }
    }
    buf_addz(
        b,
        "```\n\nA trigger job has no worker: it goes from pending to running at once, and may go "
        "from running to canceled\nor skipped. A job with keywords that nothing acts on goes "
        "from pending to failed, as does one that\nwaits too long for the pool it names. No other "
        "job takes these ways.\n\n| state | ended | in the ready index | a worker has it | holds "
        "its "
        "resource group |\n| --- | --- | --- | --- | --- |\n");
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++) {
        const uint32_t f = job_state_flags((Pb__JobState)i);
        buf_addf(b, "| %s | %s | %s | %s | %s |\n", job_state_text((Pb__JobState)i),
                 f & STATE_ENDED ? "yes" : "", f & STATE_READY ? "yes" : "",
                 f & STATE_HELD ? "yes" : "", f & STATE_LOCKS ? "yes" : "");
    }
}

static void add_matrix(struct buf *b, enum status_machine m)
{
    buf_addz(b, "\n| from \\ to |");
    for (unsigned to = 0; to < STATUS_COUNT; to++) {
        buf_addf(b, " %s |", status_text((Pb__Status)to));
    }
    buf_addz(b, "\n| --- |");
    for (unsigned to = 0; to < STATUS_COUNT; to++) {
        buf_addz(b, " --- |");
    }
    for (unsigned from = 0; from < STATUS_COUNT; from++) {
        buf_addf(b, "\n| %s |", status_text((Pb__Status)from));
        for (unsigned to = 0; to < STATUS_COUNT; to++) {
            buf_addz(b, status_may_move(m, (Pb__Status)from, (Pb__Status)to) ? " x |" : " |");
        }
    }
    buf_addz(b, "\n");
}

static void add_rollouts(struct buf *b)
{
    buf_addz(b, "\n## Rollouts\n\nWhat happens in each: [rollouts.md](rollouts.md#the-way). "
                "Whatever is not on its way back may go there\nuntil it is stable.\n\n"
                "```mermaid\nstateDiagram-v2\n    [*] --> queued\n");
    for (int from = ROLLOUT_QUEUED; from <= (int)ROLLOUT_REFUSED; from++) {
        for (int to = ROLLOUT_QUEUED; to <= (int)ROLLOUT_REFUSED; to++) {
            if (rollout_may_move((Pb__RolloutState)from, (Pb__RolloutState)to)) {
                buf_addf(b, "    %s --> %s\n", rollout_state_text((Pb__RolloutState)from),
                         rollout_state_text((Pb__RolloutState)to));
            }
        }
    }
    buf_addz(b,
             "```\n\n| state | ended | something may stand outside | weight may rise | on its way "
             "back |\n| --- | --- | --- | --- | --- |\n");
    for (int i = ROLLOUT_QUEUED; i <= (int)ROLLOUT_REFUSED; i++) {
        const uint32_t f = rollout_state_flags((Pb__RolloutState)i);
        buf_addf(b, "| %s | %s | %s | %s | %s |\n", rollout_state_text((Pb__RolloutState)i),
                 f & ROLLOUT_ENDED ? "yes" : "", f & ROLLOUT_MOVED ? "yes" : "",
                 f & ROLLOUT_UP ? "yes" : "", f & ROLLOUT_BACK ? "yes" : "");
    }
}

static void add_reasons(struct buf *b)
{
    static const char *const classes[] = {"", "script", "infrastructure", "decision"};

    buf_addz(b, "\n## Reasons\n\n| reason | class |\n| --- | --- |\n");
    for (unsigned i = 1; i < REASON_COUNT; i++) {
        buf_addf(b, "| %s | %s |\n", reason_text((Pb__Reason)i),
                 classes[reason_class((Pb__Reason)i)]);
    }
}

static void write_doc(struct buf *b)
{
    buf_addz(b, "# States\n\nMade from the tables in broker/core (`job_state.def`, `status.def`, "
                "`rollout_state.def`,\n`reason.def`); a test compares.\n\n");
    add_jobs(b);
    buf_addz(b,
             "\n## Pipelines\n\nStatuses follow from the jobs, so nearly every move is possible. "
             "Nothing goes back to created, and a\npipeline that ran goes on as running, never as "
             "pending.\n");
    add_matrix(b, MACHINE_PIPELINE);
    buf_addz(b, "\n## Stages\n");
    add_matrix(b, MACHINE_STAGE);
    add_rollouts(b);
    add_reasons(b);
}

int main(int argc, char **argv)
{
    struct buf want = BUF_INIT, have = BUF_INIT;
    int r = 0;

    write_doc(&want);
    if (argc < 2) {
        fwrite(want.p, 1, want.n, stdout);
    } else if (os_read_file(argv[1], MIB, &have) < 0 || !str_eq(buf_str(&want), buf_str(&have))) {
        printf("%s is not what the tables say: write it anew with %s\n", argv[1], argv[0]);
        r = 1;
    }
    buf_release(&want);
    buf_release(&have);
    return r;
}
