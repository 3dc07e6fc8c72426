import unittest

from greet import WORDS, greeting


class Greeting(unittest.TestCase):
    def test_every_language_has_one(self):
        for language in WORDS:
            self.assertTrue(greeting("Ada", language).endswith(", Ada!"))

    def test_blanks_do_not_matter(self):
        self.assertEqual(greeting("  Ada   Lovelace "), "Hello, Ada Lovelace!")

    def test_nobody_is_refused(self):
        with self.assertRaises(ValueError):
            greeting("  ")

    def test_an_unknown_language_is_refused(self):
        with self.assertRaises(KeyError):
            greeting("Ada", "xx")


if __name__ == "__main__":
    unittest.main()
