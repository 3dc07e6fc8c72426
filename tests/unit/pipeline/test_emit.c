/* What is written as YAML is read back as the same. */
#include "common/base.h"

#include "pipeline/emit.h"
#include "tests/unit/pipeline/fixture.h"

static bool same(const struct node *a, const struct node *b)
{
    if (a->kind != b->kind || a->type != b->type || a->count != b->count ||
        a->integer != b->integer || a->truth != b->truth || a->reference != b->reference ||
        (a->type != SCALAR_NULL && !str_eq(a->text, b->text))) {
        return false;
    }
    for (uint32_t i = 0; a->kind != NODE_SCALAR && i < a->count; i++) {
        bool ok = a->kind == NODE_LIST ? same(a->items[i], b->items[i])
                                       : str_eq(a->pairs[i].key->text, b->pairs[i].key->text) &&
                                             same(a->pairs[i].value, b->pairs[i].value);
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* Gives the text. */
static const char *assert_round_trip(struct fixture *f, const struct node *n)
{
    struct buf out = BUF_INIT;
    struct yaml_file file = {0};
    emit_yaml(n, &out);
    const char *text = arena_strdup(&f->arena, buf_str(&out));
    buf_release(&out);
    if (yaml_read(&f->arena, "again.yml", str_from(text), &f->diags, &file) < 0 || !file.body ||
        !same(n, file.body)) {
        print_message("%s\n", text);
        fail();
    }
    return text;
}

/* As a value, as an item, as a key, and deep inside. */
static void assert_text_round_trip(struct fixture *f, struct str text)
{
    struct arena *a = &f->arena;
    struct node *scalar = node_text(a, text, NULL);
    struct node *list = node_new(a, NODE_LIST, NULL);
    struct node *nested = node_new(a, NODE_LIST, NULL);
    struct node *mapping = node_new(a, NODE_MAPPING, NULL);
    node_append(a, nested, scalar);
    node_append(a, list, scalar);
    node_append(a, list, nested);
    node_append(a, list, scalar);
    node_set(a, mapping, node_text(a, STR("value"), NULL), scalar);
    node_set(a, mapping, node_text(a, STR("list"), NULL), list);
    if (!str_eqz(text, "<<")) { /* merges, whatever its quotes */
        node_set(a, mapping, scalar, list);
    }
    node_set(a, mapping, node_text(a, STR("end"), NULL), scalar);
    assert_round_trip(f, mapping);
}

/* Some of the ways in which YAML is surprised by a text. */
static const char *const texts[] = {
    "",
    " ",
    "a",
    " a",
    "a ",
    "a: b",
    "a:",
    ":a",
    "a #b",
    "a#b",
    "#a",
    "- a",
    "-",
    "--",
    "---",
    "--- a",
    "...",
    "... a",
    "? a",
    "?",
    "!a",
    "&a",
    "*a",
    "|",
    ">",
    "@a",
    "`a",
    "%a",
    "{a}",
    "[a]",
    "a, b",
    "'a'",
    "\"a\"",
    "it's",
    "back\\slash",
    "null",
    "~",
    "Null",
    "true",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "1",
    "010",
    "0x1f",
    "0b1",
    "1_000",
    "1:30",
    "1.5",
    ".5",
    "1e3",
    "+1",
    "-1",
    ".inf",
    ".nan",
    "2026-02-03",
    "2026-02-03T04:05:06Z",
    "<<",
    "=",
    "$A",
    "${A}",
    "$A: b",
    "a\tb",
    "\ta",
    "a\t",
    "a:\tb",
    "a\n",
    "a\nb",
    "a\nb\n",
    "a\nb\n\n",
    "\n",
    "\n\n",
    "\na",
    " a\nb",
    "a\n b",
    "a\n\nb",
    "a\n  ",
    "a\n  \nb",
    "a\n\tb",
    "a\r\nb",
    "a\rb",
    "a\x01",
    "a\x1b[0m",
    "a\x7f",
    "\xc2\x85",
    "\xc2\xa0",
    "\xe2\x80\xa8",
    "a\xe2\x80\xa9\nb",
    "\xef\xbb\xbf",
    ("a\xef\xbb\xbf"
     "b"),
    "\xc3\xa4",
    "\xf0\x9f\x9a\x80",
    "echo: x",
    "echo \"a: b\" 'c' # d",
    "- a\n- b\n",
    "a: |\n  b\n",
    "!reference [a, b]",
    "%YAML 1.1",
    "\"",
    "'",
    "\\",
    "a\\",
    "# a\n# b\n",
    "a\n# b\n",
    "a\n---\nb\n",
    "a\n...\n",
    "0o17",
    "12e03",
    "1,000",
    "-.5",
    "60:00",
    "190:20:30",
};

static void surprising_texts_come_back_as_they_were(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        print_message("%s\n", texts[i]);
        assert_text_round_trip(*state, str_from(texts[i]));
    }
    assert_text_round_trip(*state, str_of("a\0b", 3));
}

static void texts_of_all_lengths_come_back(void **state)
{
    struct fixture *f = *state;
    for (size_t n = 900; n < 1100; n += 7) {
        char *text = arena_alloc(&f->arena, n);
        memset(text, 'x', n);
        assert_text_round_trip(f, str_of(text, n));
        text[n / 2] = '\n';
        assert_text_round_trip(f, str_of(text, n));
    }
}

/* Bytes from an alphabet of what YAML finds interesting. */
static void random_texts_come_back(void **state)
{
    static const char *const alphabet[] = {"a",  " ",  "\n", ":", "#", "-", "'",
                                           "\"", "\\", "\t", "|", "&", "*", "!",
                                           "%",  "[",  "{",  ",", "?", "1", "\xc2\x85"};
    uint32_t x = 2463534242u;
    for (int round = 0; round < 3000; round++) {
        struct buf b = BUF_INIT;
        for (int i = 0; i < round % 12; i++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            buf_addz(&b, alphabet[x % ARRAY_LEN(alphabet)]);
        }
        assert_text_round_trip(*state, str_of(buf_cstr(&b), b.n));
        buf_release(&b);
    }
}

static void files_come_back(void **state)
{
    assert_round_trip(*state,
                      fixture_read(*state, "a: 1\nb: [1, 010, 1:30, yes, ~, 1.5, '1', \"yes\"]\n"
                                           "c: {}\nd: []\ne: [[], [[a]], {a: {b: [c]}}]\n"
                                           "f: [{a: b, c: d}, {e: [f, {g: h}]}]\n"
                                           "g:\nh: !reference [a, b c, 'd: e']\n"
                                           "i: [x, !reference [a, b]]\n"));
}

static void it_reads_as_people_write(void **state)
{
    struct fixture *f = *state;
    const struct node *n = fixture_read(
        f, "job: {stage: build, script: [make, \"a: b\", \"two\\nlines\\n\"], tags: []}\n");
    assert_string_equal(assert_round_trip(f, n), "job:\n"
                                                 "  stage: build\n"
                                                 "  script:\n"
                                                 "    - make\n"
                                                 "    - 'a: b'\n"
                                                 "    - |\n"
                                                 "      two\n"
                                                 "      lines\n"
                                                 "  tags: []\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(surprising_texts_come_back_as_they_were),
        TEST(texts_of_all_lengths_come_back),
        TEST(random_texts_come_back),
        TEST(files_come_back),
        TEST(it_reads_as_people_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
