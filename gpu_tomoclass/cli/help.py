"""Show the help of a command, or a page of the manual: the pages of the documentation, as plain text."""

from __future__ import annotations

import shutil
import sys
import textwrap
from difflib import get_close_matches
from typing import Any

import click

from gpu_tomoclass.cli.command import PROGRAM, CommandTable, command, fill, write_sections
from gpu_tomoclass.cli.pages import FEATURES, Page, all_pages, find_page, pages_about, pages_folder

WIDEST = 100  # columns; longer lines are hard to read
OUTPUT = (
    "Results go to stdout, all else to stderr. "
    "Exit codes: 0 ok, 1 bug, 2 usage, 3 data, 4 model, 5 resources, 6 stopped."
)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    before = ctx.params.get(param.name or "") or ()
    inner = _find_command(ctx, before) if before else None
    if inner is not None:
        names = list(getattr(inner[1], "commands", ()))
    else:
        names = [*_table(ctx), *(name for name in all_pages() if name not in _table(ctx))]
    return [name for name in names if name.startswith(incomplete)]


@command(
    "help",
    short_help="Show a command, or a page of the manual",
    examples=("help", "help classify", "help quality", "help --page measure"),
)
@click.argument("words", nargs=-1, metavar="[COMMAND|PAGE]", shell_complete=_complete)
@click.option("--page", "want_page", is_flag=True, help="The page, where a command has the same name.")
@click.pass_context
def help(context: click.Context, words: tuple[str, ...], want_page: bool) -> None:
    """Show a command's help, or a page of the manual.

    Without a name: all commands and pages. Pages go through the program that PAGER names when they are read on a
    terminal.
    """
    if not words:
        _show(_contents(context))
        return
    found = None if want_page else _find_command(context, words)
    if found is not None:
        click.echo(found[1].get_help(found[0]))
        return
    page = find_page(" ".join(words))
    if page is None:
        raise click.UsageError(_unknown(context, words), context)
    _show(_text(page))


def _text(page: Page) -> str:
    from gpu_tomoclass.cli.page_text import page_text

    here = page.path.parent.relative_to(pages_folder()).as_posix()
    return page_text(page.text, width=_width(), bold=sys.stdout.isatty(), names=all_pages(), here=here)


def _contents(context: click.Context) -> str:
    """All commands and pages, with a line each."""
    formatter = click.HelpFormatter(width=_width())
    formatter.write(f"Commands: {PROGRAM} COMMAND --help, or {PROGRAM} help COMMAND\n\n")
    write_sections(formatter, _table(context).sections)
    formatter.write(f"\nPages of the manual: {PROGRAM} help PAGE\n\n")
    sections: dict[str, dict[str, tuple[str, ...]]] = {}
    families = []
    for name, page in all_pages().items():
        if page.path.parent.name == FEATURES and name != FEATURES:
            families.append(name)
        else:
            sections.setdefault(page.section, {})[name] = ("", page.title)
    write_sections(formatter, sections)
    formatter.write(fill(", ".join(families), _width(), title="Features"))
    formatter.write(f"\n{textwrap.fill(OUTPUT, _width())}\n")
    return formatter.getvalue()


def _unknown(context: click.Context, given: tuple[str, ...]) -> str:
    words = " ".join(given)
    names = [*_table(context), *all_pages()]
    close = list(dict.fromkeys(get_close_matches(words, names, n=3)))
    said = f"there is no command and no page {words!r}"
    if _find_command(context, given) is not None:  # asked for as a page
        page_about = _table(context).page_of(given[0])
        said = f"there is no page {words!r}, but a command: {PROGRAM} help {words}; the page about it: {page_about}"
    elif close:
        said += f"; did you mean {' or '.join(close)}?"
    elif about := pages_about(words):
        said += f"; pages about it: {', '.join(about)}"
    pages = [name for name, page in all_pages().items() if page.path.parent.name != FEATURES or name == FEATURES]
    return f"{said}\n{fill(', '.join(pages), _width(), title='Pages')}".rstrip()


def _find_command(context: click.Context, words: tuple[str, ...]) -> tuple[click.Context, click.Command] | None:
    """The command of these names, with its context."""
    inner = context.find_root()
    found = inner.command
    for word in words:
        below: Any = getattr(found, "commands", {})
        if word not in below:
            return None
        found = below[word]
        inner = click.Context(found, info_name=word, parent=inner, **found.context_settings)
    return inner, found


def _table(context: click.Context) -> CommandTable:
    table = getattr(context.find_root().command, "commands", None)
    assert isinstance(table, CommandTable)
    return table


def _show(text: str) -> None:
    if sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        click.echo(text, nl=False)


def _width() -> int:
    return min(WIDEST, shutil.get_terminal_size().columns)
