/* Enqueues COMMAND at a broker and waits for its end:
 *     client-example tcp://127.0.0.1:7070 TOKEN_FILE COMMAND...
 * With tls:// the authority's certificate is in the file that DAVIT_CA_FILE names.
 * A program as others write it, with nothing of Davit's but the library:
 *     cc example.c $(pkg-config --cflags --libs davit) -o client-example */
#include <davit.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_token(const char *path, char *ret, size_t size)
{
    FILE *f = fopen(path, "r");
    bool good = f != NULL && fgets(ret, (int)size, f) != NULL;

    if (f != NULL) {
        fclose(f);
    }
    if (good) {
        ret[strcspn(ret, "\r\n")] = '\0';
    }
    return good;
}

static int run(struct davit *d, const char *const *command)
{
    const struct davit_job job = {.name = command[0], .command = command, .keep_ms = 3600000};
    struct davit_queued queued;
    struct davit_result result;
    struct davit_error error;

    if (davit_enqueue(d, "example", &job, 1, DAVIT_WATCH, &queued, &error) < 0 ||
        davit_wait(d, &queued.id, 1, &result, -1, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    printf("job %llu: %s %s\n", (unsigned long long)queued.id, davit_state_name(result.state),
           davit_reason_name(result.reason));
    return result.state == DAVIT_SUCCESS ? 0 : 1;
}

int main(int argc, char **argv)
{
    char token[256];
    struct davit_error error;

    if (argc < 4 || !read_token(argv[2], token, sizeof(token))) {
        fprintf(stderr, "usage: %s tcp://HOST:PORT TOKEN_FILE COMMAND...\n", argv[0]);
        return 2;
    }
    struct davit *d = davit_connect(
        &(struct davit_options){
            .url = argv[1], .token = token, .name = "example", .ca_file = getenv("DAVIT_CA_FILE")},
        &error);
    if (d == NULL) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    int r = run(d, (const char *const *)(argv + 3));
    davit_close(d);
    return r;
}
