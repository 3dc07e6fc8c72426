"""Makes a page of every text in a folder: build.py FROM TO"""
import html
import pathlib
import sys


def page(title, blocks):
    body = "\n".join(f"<p>{html.escape(block)}</p>" for block in blocks)
    return f"<!doctype html>\n<meta charset=utf-8>\n<title>{title}</title>\n<h1>{title}</h1>\n{body}\n"


source, target = map(pathlib.Path, sys.argv[1:])
target.mkdir(parents=True, exist_ok=True)
names = []
for file in sorted(source.glob("*.txt")):
    title, *blocks = file.read_text(encoding="utf-8").strip().split("\n\n")
    (target / f"{file.stem}.html").write_text(page(html.escape(title), blocks), encoding="utf-8")
    names.append(file.stem)
links = "\n".join(f'<li><a href="{name}.html">{name}</a></li>' for name in names)
(target / "index.html").write_text(
    f"<!doctype html>\n<meta charset=utf-8>\n<title>Site</title>\n<ul>\n{links}\n</ul>\n", encoding="utf-8")
