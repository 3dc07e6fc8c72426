/* The forms in which a secret shows up in output: as it is, without the blanks around it, which a
 * shell takes away, line by line, and as programs encode it: base64 of both alphabets wherever it
 * may begin within other bytes, percent-encoding, JSON, a shell's quotes, hex. What a program makes
 * of it beyond that (reversed, encrypted, cut) nobody can know. Threads: pure. */
#ifndef DAVIT_MASK_FORMS_H
#define DAVIT_MASK_FORMS_H

#include "common/mask.h"

/* A form shorter than this is no pattern: too much would be hidden that is none of it. */
#define MASK_SHORTEST 8u

/* Calls `add` with each form; some may come twice. What `add` returns below zero ends it and is
 * returned. A secret, or a line of it, with less than MASK_SHORTEST bytes has no form. */
typedef int (*mask_form_fn)(void *ctx, enum mask_kind kind, struct str form);
int mask_forms(struct str secret, mask_form_fn add, void *ctx);

/* Adds all of them as patterns. -E_LIMIT. */
int mask_add_secret(struct mask *m, struct str secret);

#endif
