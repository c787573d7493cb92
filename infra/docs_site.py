"""A hook of mkdocs.yml: CONTRIBUTING.md and CHANGELOG.md, at the top of the repository, become pages.

Links are written for the repository, where they work as they are. On the site a link to one of these pages,
or from one of them into docs/, gets its new address; a link to any other file becomes plain text.
"""

from __future__ import annotations

import os
import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TOP = pathlib.Path(__file__).parents[1]
DOCS = TOP / 'docs'
PAGES = {'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md', 'README.md': 'index.md'}
_LINK = re.compile(r'(?<!!)\[([^\]\n]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not in docs/."""
    for name in ('CONTRIBUTING.md', 'CHANGELOG.md'):
        if (TOP / name).exists():
            files.append(File.generated(config, PAGES[name], abs_src_path=str(TOP / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Gives links that cross the border of docs/ their address on the site."""
    source = pathlib.Path(page.file.abs_src_path or DOCS).resolve()

    def mend(link: re.Match[str]) -> str:
        text, address, anchor = link[1], link[2], link[3] or ''
        target = pathlib.Path(os.path.normpath(source.parent / address))
        if source.is_relative_to(DOCS) and target.is_relative_to(DOCS):
            return link[0]
        if target.is_relative_to(DOCS):
            return f'[{text}]({target.relative_to(DOCS).as_posix()}{anchor})'
        name = target.relative_to(TOP).as_posix() if target.is_relative_to(TOP) else ''
        if name in PAGES:
            start = source.relative_to(DOCS).parent if source.is_relative_to(DOCS) else pathlib.Path()
            return f'[{text}]({os.path.relpath(PAGES[name], start)}{anchor})'
        return text if target.exists() else link[0]

    return _LINK.sub(mend, markdown)
