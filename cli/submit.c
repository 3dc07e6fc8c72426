#include "common/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/submit.h"
#include "common/archive.h"
#include "common/crypto.h"
#include "common/os.h"
#include "common/upload.h"

static int upload(struct cli *c, const struct client *cl, int fd, const struct archive_info *info)
{
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    char *url = client_url(cl, "");
    int status = 0;
    struct upload u = {
        .api = url,
        .token = cl->token,
        .content_type = "application/zstd",
        .fd = fd,
        .size = info->size,
        .digest = info->digest,
        .again = client_wait,
    };
    int r = upload_file(&u, &status, &out, &why);
    if (r < 0) {
        cli_fail(c, r, "cannot upload the snapshot to %s: %s", cl->url, buf_cstr(&why));
    } else if (status != 201) {
        r = client_problem(c, status, buf_str(&out));
    }
    free(url);
    buf_release(&out);
    buf_release(&why);
    return r;
}

int submit_snapshot(struct cli *c, const struct client *cl, struct repo *repo, struct request *r)
{
    struct archive_info info;
    int fd = open(os_temp_dir(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        return cli_fail(c, -E_IO, "cannot make a temporary file in %s", os_temp_dir());
    }
    int res = repo_snapshot(c, repo, fd, &info);
    res = res < 0 ? res : upload(c, cl, fd, &info);
    close(fd);
    if (res == 0) {
        char digest[2 * SHA256_BYTES + 1];
        str_to_hex(info.digest, SHA256_BYTES, digest);
        json_object_set_new(r->body, "source",
                            json_pack("{s:{s:s, s:I}}", "snapshot", "digest", digest, "size",
                                      (json_int_t)info.size));
    }
    return res;
}

void submit_git(struct request *r, const char *url, const char *sha, const char *ref)
{
    json_object_set_new(
        r->body, "source",
        json_pack("{s:{s:s, s:s, s:s}}", "git", "url", url, "sha", sha, "ref", ref));
}

int submit_send(struct cli *c, const struct client *cl, struct request *r, json_t **ret_pipeline)
{
    char *key = crypto_token("");
    int res = client_send(c, cl, "/pipelines", r->body, key, ret_pipeline);
    free(key);
    return res;
}
