"""Greetings in several languages."""
import argparse

WORDS = {"de": "Guten Tag", "en": "Hello", "es": "Hola", "fr": "Bonjour"}


def greeting(name, language="en"):
    """The greeting of somebody; KeyError for a language that is not known."""
    name = " ".join(name.split())
    if not name:
        raise ValueError("nobody to greet")
    return f"{WORDS[language]}, {name}!"


def main(argv=None):
    parser = argparse.ArgumentParser(prog="greet")
    parser.add_argument("name")
    parser.add_argument("--language", default="en", choices=sorted(WORDS))
    arguments = parser.parse_args(argv)
    print(greeting(arguments.name, arguments.language))
