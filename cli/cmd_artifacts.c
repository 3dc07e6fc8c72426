/* davit artifacts: fetch what a job made, and unpack it. */
#include "common/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/client.h"
#include "common/archive.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "common/upload.h"

static int download(struct cli *c, const struct client *cl, uint64_t job_id, const char *type,
                    int fd)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    struct buf path = BUF_INIT;
    struct buf etag = BUF_INIT;
    int status = 0;
    int r;
    buf_addf(&path, "/jobs/%" PRIu64 "/artifacts?type=%s", job_id, type);
    char *url = client_url(cl, buf_cstr(&path));
    req.url = url;
    req.token = cl->token;
    req.out_fd = fd;
    req.out_limit = LIMIT_BLOB_BYTES;
    req.etag = &etag;
    unsigned tries = 0;
    do {
        req.resume = etag.n > 0 ? buf_cstr(&etag) : NULL;
        buf_clear(&why);
        buf_clear(&out);
        r = http_do(&req, &status, &out, &why);
    } while (r < 0 && upload_may_go_on(r, status) && client_wait(NULL, tries++, buf_cstr(&why)));
    if (r < 0) {
        cli_fail(c, r, "cannot download: %s", buf_cstr(&why));
    } else if (status != 200 && status != 206) {
        r = client_problem(c, status, buf_str(&out));
    }
    free(url);
    buf_release(&path);
    buf_release(&etag);
    buf_release(&out);
    buf_release(&why);
    return r;
}

/* A word of small letters, as all types are. */
static bool is_type(const char *type)
{
    return type[0] != '\0' && type[strspn(type, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static int fetch(struct cli *c, const struct client *cl, uint64_t job_id, const char *type,
                 const char *dir)
{
    struct archive_info info;
    struct buf why = BUF_INIT;
    char text[32];
    int r = os_mkdir_p(dir, 0755);
    int fd = r < 0 ? -1 : open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        return cli_fail(c, -E_IO, "cannot write to %s", dir);
    }
    r = download(c, cl, job_id, type, fd);
    if (r == 0 && lseek(fd, 0, SEEK_SET) == 0) {
        r = archive_unpack(fd, dir, LIMIT_ARTIFACT_FILES, LIMIT_ARTIFACT_BYTES, &info, &why);
        if (r < 0) {
            cli_fail(c, r, "cannot unpack: %s", buf_cstr(&why));
        } else if (c->json) {
            cli_print_json(json_pack("{s:I, s:I, s:s}", "files", (json_int_t)info.file_count,
                                     "bytes", (json_int_t)info.content_bytes, "directory", dir));
        } else {
            printf("%" PRIu64 " files, %s in %s\n", info.file_count,
                   cli_bytes(info.content_bytes, text, sizeof(text)), dir);
        }
    }
    close(fd);
    buf_release(&why);
    return r;
}

int cmd_artifacts(struct cli *c, int argc, char **argv)
{
    const char *dir = "artifacts";
    const char *type = "archive";
    uint64_t pipeline = 0;
    uint64_t job_id;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"output", 'o', OPT_TEXT, &dir, "DIR", "unpack here (artifacts)"},
        {"type", 't', OPT_TEXT, &type, "TYPE", "a report: junit, coverage_report, ... (archive)"},
        {"pipeline", 'p', OPT_NUMBER, &pipeline, "ID",
         "JOB is a name in this pipeline (the newest)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 1, 1, &args, &count);
    if (r < 0) {
        return r;
    }
    r = is_type(type) ? client_open(c, &cl)
                      : cli_fail(c, -E_USAGE, "`%s` is no type of artifacts", type);
    if (r == 0) {
        r = client_find_job(c, &cl, args[0], pipeline, &job_id);
        r = r < 0 ? r : fetch(c, &cl, job_id, type, dir);
        client_release(&cl);
    }
    free(args);
    return r;
}
