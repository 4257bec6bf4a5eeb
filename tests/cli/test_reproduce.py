"""reproduce as a command: what it prints and writes, and one line per failure."""

import json
import signal

import pytest
from small_study import make_small

from gpu_tomoclass.cli import run


@pytest.fixture
def call(capfd):
    def do(*arguments):
        handler = signal.getsignal(signal.SIGTERM)
        code = run([str(a) for a in arguments])
        assert signal.getsignal(signal.SIGTERM) is handler
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return do


def test_a_small_pillar(tmp_path, monkeypatch, call):
    make_small(monkeypatch, draws=False)  # tests/studies looks at the page
    arguments = ("reproduce", "-o", tmp_path / "out", "--only", "pillar", "--quick", "--pillar-shape", "24x48x40",
                 "--workers", 1)  # fmt: skip
    code, out, err = call(*arguments)
    assert code == 0, err
    assert out == f"report: {tmp_path / 'out' / 'report.html'}\nnumbers: {tmp_path / 'out' / 'numbers.json'}\n"
    assert "pillar: classified in six ways\n" in err
    found = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert found["cases"]["pillar"]["shape"] == [24, 48, 40]
    before = (tmp_path / "out" / "pillar_labels.tif").read_bytes()
    code, out, err = call(*arguments, "-q")
    assert (code, out) == (3, "")
    assert err.startswith("gpu-tomoclass: error: ")
    assert err.count("\n") == 1
    assert (tmp_path / "out" / "pillar_labels.tif").read_bytes() == before


def test_the_needle_must_be_given(tmp_path, call):
    code, out, err = call("reproduce", "-o", tmp_path / "out", "--only", "needle", "-q")
    assert (code, out) == (2, "")
    assert "--needle-series" in err
    assert not (tmp_path / "out").exists()
