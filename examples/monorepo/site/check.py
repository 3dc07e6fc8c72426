"""Every link of every page leads to a page that is there: check.py FOLDER"""
import html.parser
import pathlib
import sys


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets = []

    def handle_starttag(self, tag, attrs):
        self.targets += [value for name, value in attrs if name == "href" and "://" not in value]


folder = pathlib.Path(sys.argv[1])
broken = 0
for file in sorted(folder.glob("*.html")):
    links = Links()
    links.feed(file.read_text(encoding="utf-8"))
    for target in links.targets:
        if not (folder / target).is_file():
            print(f"{file}: {target} is not there")
            broken += 1
sys.exit(1 if broken else 0)
