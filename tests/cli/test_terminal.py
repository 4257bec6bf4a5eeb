"""What comes from files is shown and does not act: on terminals, in pages."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.cli import cli, run
from gpu_tomoclass.errors import visible
from gpu_tomoclass.labels.report import Report
from gpu_tomoclass.volumes.opening import create_volume

EVIL = "\x1b]0;owned\x07 \x1b[2J \u202eexe.fdp \x9b31m \r\x00\u2066\ufeff"


def acts(text: str) -> list[str]:
    """Characters that command a terminal or turn the direction of text (Unicode's control and format characters)."""
    import unicodedata

    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in "\n\t"]


def test_visible() -> None:
    assert visible("größe µm 体 👩 a\tb\n") == "größe µm 体 👩 a\tb\n"
    assert visible("\x1b[31m\x07\x9b\u202e") == r"\x1b[31m\x07\x9b\u202e"
    assert not acts(visible(EVIL))


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Evil names of a file, of classes, and in metadata."""
    monkeypatch.chdir(tmp_path)
    name = "\x1b]0;owned\x07\u202evolume.tif"
    labels = np.ones((2, 16, 16), np.uint8)
    labels[:, 4:9, 4:9] = 2
    classes = [LabelClass(1, f"out{EVIL}", (0, 0, 0)), LabelClass(2, f"in\n{EVIL}", (9, 9, 9))]
    with create_volume(
        name, shape=labels.shape, dtype=np.uint8, classes=classes, metadata={f"a{EVIL}": {"b": EVIL}}
    ) as writer:
        for z, plane in enumerate(labels):
            writer.write_plane(z, plane)
    tifffile.imwrite("truth.tif", labels, imagej=True, metadata={"axes": "ZYX"})
    return tmp_path / name


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["info", "{}"], 0),
        (["info", "{}", "--json"], 0),
        (["evaluate", "{}", "truth.tif", "-o", "report.html", "--no-boundaries"], 0),
        (["measure", "{}", "--class", "2", "-o", "out.csv"], 0),
        (["measure", "{}", "--class", EVIL.replace("\x00", ""), "-o", "out.csv"], 2),
        (["convert", "{}", "-o", "{}"], 2),
        (["info", EVIL.replace("\x00", "")], 2),
        (["--" + EVIL.replace("\x00", "")], 2),
    ],
)
def test_nothing_acts(evil: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> None:
    before = sys.stdout, sys.stderr
    assert run([evil.name if a == "{}" else a for a in arguments]) == code
    assert (sys.stdout, sys.stderr) == before
    said = capsys.readouterr()
    assert said.out + said.err
    assert acts(said.out) == []
    assert acts(said.err) == []
    if "--json" in arguments:
        assert json.loads(said.out)["path"] == evil.name
    if (evil.parent / "report.html").exists():
        assert acts((evil.parent / "report.html").read_text(encoding="utf-8")) == []


def test_a_page_shows_markup_and_commands() -> None:
    page = Report(EVIL)
    page.text(f"<script>{EVIL}</script>")
    assert acts(page.html()) == []
    assert "<script>" not in page.html()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_closed(evil: Path, closed: str) -> None:
    """The output is complete, the exit code 0, and nothing that is printed lands in a file."""
    program = "from gpu_tomoclass.cli import main; main()"
    command = f'"{sys.executable}" -c "{program}" convert truth.tif -o out.tif {closed}'
    done = subprocess.run(["sh", "-c", command], cwd=evil.parent, timeout=1200, check=False)
    assert done.returncode == 0
    np.testing.assert_array_equal(tifffile.imread(evil.parent / "out.tif"), tifffile.imread(evil.parent / "truth.tif"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The script for a shell, and what it asks for while a person types."""
    monkeypatch.setenv("_GPU_TOMOCLASS_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit, match="0"):  # by click
        run([])
    script = capsys.readouterr().out
    assert f"_GPU_TOMOCLASS_COMPLETE={shell}_complete" in script
    monkeypatch.setenv("_GPU_TOMOCLASS_COMPLETE", f"{shell}_complete")
    for typed, expected in (
        ("cla", "classify"),
        ("classify --mem", "--memory-limit"),
        ("help clas", "classify"),
        ("help qua", "quality"),
        ("help model imp", "import"),
    ):
        monkeypatch.setenv("COMP_WORDS", f"gpu-tomoclass {typed}")
        monkeypatch.setenv("COMP_CWORD", typed.rpartition(" ")[2] if shell == "fish" else str(len(typed.split())))
        with pytest.raises(SystemExit, match="0"):
            run([])
        assert expected in capsys.readouterr().out


def test_a_name_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", os.fsdecode(bytes(tmp_path) + b"/\xff\xfe.tif")]) == 2
    assert r"\udcff" in capsys.readouterr().err


def test_caches_are_shown_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native = tmp_path / "gpu_tomoclass" / "native"
    native.mkdir(parents=True)
    (native / f"{1:032x}-{2:032x}.so").write_bytes(bytes(1500))
    entry = tmp_path / "gpu_tomoclass" / f"{3:032x}" / "a.npy"
    entry.parent.mkdir()
    entry.write_bytes(bytes(2500))
    assert run(["cache", "info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: (about["entries"], about["bytes"]) for name, about in found.items()} == {
        "features": (1, 2500),
        "kernels": (1, 1500),
    }
    assert run(["cache", "info"]) == 0
    assert "2.5 KB" in capsys.readouterr().out
    assert run(["cache", "clear", "--only", "kernels"]) == 0
    assert entry.exists()
    assert not list(native.iterdir())
    assert run(["cache", "clear"]) == 0
    assert "features: 2.5 KB removed from" in capsys.readouterr().out
    assert not entry.parent.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_disk_that_takes_no_more_is_a_matter_of_resources(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise OSError(number, os.strerror(number), "/a/file")

    monkeypatch.setattr(cli, "main", fail)
    assert run(["info", "x"]) == 5
    assert "error: /a/file: " in capsys.readouterr().err
