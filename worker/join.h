/* `davit-worker join BROKER --token T --state DIR [--name N]`: makes a key, shows the token to the
 * broker, and keeps the certificate that it gets (identity.h). The broker proves first that it is
 * the one of the token: the hash of its authority is in it. Run again with the same token after a
 * failure it goes on with the same key. */
#ifndef DAVIT_WORKER_JOIN_H
#define DAVIT_WORKER_JOIN_H

extern const char join_usage[];
/* argv without the program's name and `join`. Returns an exit code. */
int join_main(int argc, char **argv);

#endif
