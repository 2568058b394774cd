"""What the site shows beside `docs/`: pages of the repository's root, and files that pages link to.

Links are written as they work in the repository. Here those that leave `docs/` are made to lead to copies in
`sources/`.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
DOCS = ROOT / "docs"
ROOT_PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
SOURCES = "sources"

_LINK = re.compile(r"(?<=\]\()([^()#\s]+)((?:#[^()\s]*)?)(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root, and the files that any page links to outside of `docs/`."""
    for name, origin in ROOT_PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / origin).read_text(encoding="utf-8")))
    linked = {
        target
        for page in files.documentation_pages()
        for link, _ in _LINK.findall(page.content_string)
        if (target := _target(page, link)) is not None and not target.is_relative_to(DOCS)
    }
    for target in sorted(linked - {ROOT / origin for origin in ROOT_PAGES.values()}):
        name = f"{SOURCES}/{target.relative_to(ROOT).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links lead to where their targets are in the site."""

    def moved(match: re.Match[str]) -> str:
        target = _target(page.file, match[1])
        if target is None:
            return match[0]
        place = os.path.relpath(_place(target), Path(page.file.src_uri).parent.as_posix())
        return Path(place).as_posix() + match[2]

    return _LINK.sub(moved, markdown)


def _target(page: File, link: str) -> Path | None:
    """The file of the repository that a link leads to, if there is one."""
    origin = ROOT_PAGES.get(page.src_uri)
    folder = ROOT if origin else (DOCS / page.src_uri).parent
    target = Path(os.path.normpath(folder / link))
    return target if target.is_file() and target.is_relative_to(ROOT) else None


def _place(target: Path) -> str:
    """Where a file of the repository is in the site."""
    for name, origin in ROOT_PAGES.items():
        if target == ROOT / origin:
            return name
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    return f"{SOURCES}/{target.relative_to(ROOT).as_posix()}"
