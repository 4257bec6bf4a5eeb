"""Help on one screen, and the pages of the manual in a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress

import pytest

from gpu_tomoclass.cli import COMMANDS, EVERYDAY, cli
from gpu_tomoclass.cli.command import Command
from gpu_tomoclass.cli.page_text import FENCE, page_text
from gpu_tomoclass.cli.pages import all_pages

PAGES = all_pages()
LEAVES = {
    f"{name} {inner}".strip(): found
    for name, outer in cli.commands.items()
    for inner, found in getattr(outer, "commands", {"": outer}).items()
}
SCREEN = (24, 80)  # lines and columns of a terminal as it opens
MARKUP = ("<!--", "-->", "](", ":::", "```", "{doc}", "{toctree}", "{eval-rst}", "**", "\x1b")


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(SCREEN[1]))


def test_help_fits_a_screen_with_the_prompt_below_it(command):
    said = command("--help")
    lines = said.out.splitlines()
    assert len(lines) < SCREEN[0]
    assert max(map(len, lines)) <= SCREEN[1]
    summaries = {name: row[1] for rows in COMMANDS.values() for name, row in rows.items()}
    for name, summary in summaries.items():
        assert re.search(rf"\b{name}\b", said.out), name
        assert (summary in said.out) == (name in EVERYDAY), name


def test_help_lists_every_command_and_page(command):
    lines = command("help").out.splitlines()
    assert max(map(len, lines)) <= SCREEN[1]
    for name, summary in ((name, row[1]) for rows in COMMANDS.values() for name, row in rows.items()):
        assert any(name in line.split() and line.endswith(summary) for line in lines), name
    said = "\n".join(lines)
    for name, page in PAGES.items():
        family = page.path.parent.name == "features" and name != "features"
        assert re.search(rf"\b{name}\b" if family else rf"\b{name} +{re.escape(page.title)}$", said, re.M), name


@pytest.mark.parametrize("words", [["train"], ["model", "info"], ["measure"], ["baseline"]])
def test_help_of_a_command_is_its_own(words, command):
    assert command("help", *words) == command(*words, "--help")
    assert command("help", *words).out.startswith(f"Usage: gpu-tomoclass {' '.join(words)}")


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_help_of_each_command_names_a_page_that_speaks_of_it(name, command):
    last = command("help", name).out.splitlines()[-1]
    page = re.fullmatch(r"More: gpu-tomoclass help (--page )?(\S+)", last)
    assert page is not None, last
    assert bool(page[1]) == (page[2] in cli.commands)
    assert re.search(rf"\b{name}\b", PAGES[page[2]].text)
    title = command(*last.split()[2:]).out.splitlines()[0]
    assert title.startswith(PAGES[page[2]].title[:40])


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_page_is_shown_as_text(name, command, monkeypatch):
    """No mark of the site is left; prose and tables keep to the width; code is as on the page."""
    said = command("help", "--page", name)
    assert said.code == 0, said.err
    code = {f"    {line}".rstrip() for fence in FENCE.finditer(PAGES[name].text) for line in fence[3].split("\n")}
    prose = [line for line in said.out.splitlines() if line not in code]
    assert max(map(len, prose)) <= SCREEN[1]
    for mark in MARKUP:
        assert mark not in "\n".join(prose), mark
    text = re.sub(r"<!--.*?-->|\]\(.*?\)", "", FENCE.sub("", PAGES[name].text), flags=re.DOTALL)
    assert "…" in text or "…" not in said.out
    if name == "benchmarks":  # a table whose words alone are wider than 80 columns
        monkeypatch.setenv("COLUMNS", "100")
        said = command("help", "--page", name)
    lost = set(re.findall(r"[A-Za-z]{3,}", text)) - set(re.findall(r"[A-Za-z]{3,}", said.out))
    assert not lost, "words are left out or cut"
    for fence in FENCE.finditer(PAGES[name].text):
        if not fence[2].startswith("{"):
            assert "\n".join(f"    {line}".rstrip() for line in fence[3].rstrip().split("\n")) in said.out
    others = re.search(r"Other pages: (.*?)\. gpu-tomoclass help --page (\S+) shows one", said.out.replace("\n", " "))
    if others is not None:
        assert {*others[1].split(", "), others[2]} <= set(PAGES)


def test_marks_of_the_site_become_text():
    page = """# A `b`

(target)=
{ref}`x` is <!-- =n -->1.5<!-- / -->, see [here](quality.md#a), [quality](../quality.md), [own](#part),
[code](../../kernels/a.cu), [out](https://example.org/a_b) and ![alt](p.png).

:::{note}
Mind **this**.
:::

```{toctree}
hidden
```

```{warning}
Hot.
```

| a | b |
|---|---|
| `x` | long cell of words that wraps where the line is full |

```sh
command --with <!-- kept --> [a](b.md)
```
"""
    said = page_text(page, width=40, names={"quality"}, here="features").splitlines()
    assert said[:3] == ["A b", "===", ""]
    text = " ".join(" ".join(said).split())
    assert "x is 1.5, see here [quality], quality, own, code (kernels/a.cu)," in text
    assert "out (https://example.org/a_b) and (Picture: alt.)." in text
    assert "Mind this." in text
    assert "Hot." in text
    assert "hidden" not in text
    assert "Other pages: quality. gpu-tomoclass help --page quality shows one." in text
    assert "    command --with <!-- kept --> [a](b.md)" in said
    assert max(len(line) for line in said if not line.startswith("    ")) <= 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["qualty"], "did you mean quality?"),
        (["clasify"], "did you mean classify?"),
        (["Slurm"], "pages about it: facility"),
        (["model", "impotr"], "no page 'model impotr'"),
        (["--page", "classify"], "but a command: gpu-tomoclass help classify; the page about it: streaming"),
        (
            ["--page", "model", "import"],
            "but a command: gpu-tomoclass help model import; the page about it: model-file",
        ),
        (["xyzzy"], "no page 'xyzzy'"),
    ],
)
def test_a_word_that_is_neither(words, said, command):
    done = command("help", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert all(name in done.err for name in ("quality", "model-file", "features"))


@pytest.mark.parametrize(
    "words",
    [["something", "is", "wrong"], ["something-is-wrong"], ["Something_Is_Wrong"], ["docs/something_is_wrong.md"]],
)
def test_a_page_by_names_that_people_type(words, command):
    assert command("help", *words) == command("help", "something_is_wrong")


def test_options_stand_under_titles_that_are_theirs(command):
    """A title is shown only where the command has what it is about: a seed of a simulation is no part of a forest."""
    for name, found in LEAVES.items():
        said = command(*name.split(), "--help").out
        assert ("\nForest:\n" in said) == ("\n  --trees " in said), name
        assert ("\nStrokes:\n" in said) == ("\n  --every " in said), name
        schema = json.loads(command("schema", *name.split()).out) if name not in ("help", "doctor") else {}
        blocks = {block.partition(":\n")[0]: block for block in said.split("\n\n")}
        for entry in schema.get("properties", {}).values():
            if entry["x-group"] != "Inputs":
                assert re.search(rf"^  (-\w, )?{entry['x-flag']}\b", blocks[entry["x-group"]], re.M), (name, entry)
        assert "..." not in said.partition("\n\n")[2], f"{name}: a sentence is cut"
        assert name in ("help", "cache info") or "Examples:\n" in said, name
        assert isinstance(found, Command)


def test_groups_of_commands_say_whole_sentences(command):
    for name in ("baseline", "cache", "model", "simulate"):
        assert "..." not in command(name, "--help").out.partition("\n\n")[2]


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_on_a_terminal_the_pager_has_the_page(tmp_path):
    """The program that PAGER names gets it, without marks for bold unless it is known to show them."""
    import pty

    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", "from gpu_tomoclass.cli import main; main()", "help", "napari"],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "PAGER": f"tee {tmp_path / 'seen'}", "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # closed at the other end
            while piece := os.read(main, 65536):
                shown += piece
        assert process.wait() == 0
    os.close(main)
    seen = (tmp_path / "seen").read_text(encoding="utf-8")
    assert seen.splitlines()[0] == PAGES["napari"].title
    assert "\x1b" not in seen
    assert shown.decode().split() == seen.split()
