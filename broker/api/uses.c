#include "common/base.h"

#include "broker/api/uses.h"

#include <pthread.h>
#include <stdlib.h>
#include <uthash.h>

#include "broker/core/query.h"
#include "common/limits.h"

struct use {
    uint8_t id[TOKEN_ID_BYTES];
    uint64_t used_ms;
    bool told;
    UT_hash_handle hh;
};

struct uses {
    pthread_mutex_t lock;
    struct use *table;
};

struct uses *uses_new(void)
{
    struct uses *u = xcalloc(1, sizeof(*u));
    pthread_mutex_init(&u->lock, NULL);
    return u;
}

void uses_free(struct uses *u)
{
    struct use *use, *next;
    if (!u) {
        return;
    }
    HASH_ITER (hh, u->table, use, next) {
        HASH_DEL(u->table, use);
        free(use);
    }
    pthread_mutex_destroy(&u->lock);
    free(u);
}

void uses_note(struct uses *u, const uint8_t hash[32], uint64_t now_ms)
{
    struct use *use = NULL;
    pthread_mutex_lock(&u->lock);
    HASH_FIND(hh, u->table, hash, TOKEN_ID_BYTES, use);
    if (!use && HASH_COUNT(u->table) < LIMIT_TOKENS) {
        use = xcalloc(1, sizeof(*use));
        memcpy(use->id, hash, sizeof(use->id));
        HASH_ADD(hh, u->table, id, sizeof(use->id), use);
    }
    if (use) {
        use->used_ms = now_ms;
        use->told = false;
    }
    pthread_mutex_unlock(&u->lock);
}

uint64_t uses_last(struct uses *u, const uint8_t hash[32])
{
    struct use *use = NULL;
    pthread_mutex_lock(&u->lock);
    HASH_FIND(hh, u->table, hash, TOKEN_ID_BYTES, use);
    const uint64_t used_ms = use ? use->used_ms : 0;
    pthread_mutex_unlock(&u->lock);
    return used_ms;
}

struct post *uses_take(struct uses *u)
{
    struct post *post = post_new("davitd");
    struct arena *a = post_arena(post);
    Pb__TokensUsed *cmd = arena_alloc(a, sizeof(*cmd));
    struct use *use, *next;
    pb__tokens_used__init(cmd);
    pthread_mutex_lock(&u->lock);
    cmd->uses = arena_array(a, HASH_COUNT(u->table) + 1, sizeof(Pb__TokenUse *));
    HASH_ITER (hh, u->table, use, next) {
        if (use->told) { /* before, and not seen since: the store knows by now */
            HASH_DEL(u->table, use);
            free(use);
            continue;
        }
        Pb__TokenUse *told = arena_alloc(a, sizeof(*told));
        pb__token_use__init(told);
        told->id = pb_bytes(a, str_of(use->id, sizeof(use->id)));
        told->used_ms = use->used_ms;
        cmd->uses[cmd->n_uses++] = told;
        use->told = true;
    }
    pthread_mutex_unlock(&u->lock);
    if (cmd->n_uses == 0) {
        post_free(post);
        return NULL;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_TOKENS_USED;
    post_command(post)->tokens_used = cmd;
    return post;
}
