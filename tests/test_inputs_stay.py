"""Whatever a command is told to write, and by whatever name, its inputs keep their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile

from gpu_tomoclass import outputs
from gpu_tomoclass.cli import cli, run
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.errors import UsageError

FAST = ["--features", "gaussian_blur", "--sigma-max", "1", "--no-cache", "--device", "numpy", "--workers", "1"]


def content(folder: Path) -> dict[str, str]:
    """Every file, link and folder below, by name; links as what they say."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything that commands read, made by the commands where they can."""
    folder = tmp_path_factory.mktemp("made") / "inputs"
    folder.mkdir()
    random = np.random.default_rng(5)
    volume = random.integers(0, 200, (3, 20, 18)).astype(np.uint16)
    volume[:, 5:15, 5:12] += 300
    truth = np.ones(volume.shape, np.uint8)
    truth[:, 5:15, 5:12] = 2
    strokes = np.zeros_like(truth)
    strokes[1, ::3] = truth[1, ::3]
    for name, array in (("v.tif", volume), ("truth.tif", truth), ("strokes.tif", strokes)):
        tifffile.imwrite(folder / name, array, imagej=True, metadata={"axes": "ZYX"})
    (folder / "planes").mkdir()
    for z, plane in enumerate(volume):
        tifffile.imwrite(folder / "planes" / f"p{z}.tif", plane)
    steps: list[list[str]] = [
        ["convert", "v.tif", "-o", "v.ome.zarr"],
        ["convert", "v.tif", "-o", "v.mrc"],
        ["convert", "v.tif", "-o", "q_probabilities.tif"],
        ["convert", "v.tif", "-o", "q_uncertainty.ome.zarr"],
        ["convert", "v.tif", "-o", "q_probabilities_in.mrc"],
        ["train", "v.tif", "strokes.tif", "-o", "m.tcm", "--save-rows", "rows.arff", "--trees", "3",
         "--class-names", "out,in", *FAST],
    ]  # fmt: skip
    for step in steps:
        assert run([str(folder / a) if "." in a and not a.startswith("-") else a for a in step] + ["-q"]) == 0
    (folder / "job.toml").write_text(
        'model = "m.tcm"\ndevice = "numpy"\nworkers = 1\noutput = "../out"\n[[volumes]]\npath = "v.tif"\n'
    )
    return folder


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: the inputs again, and other names of them."""
    shutil.copytree(inputs, tmp_path / "inputs")
    (tmp_path / "folder").symlink_to(tmp_path / "inputs")
    (tmp_path / "links").mkdir()
    for path in (tmp_path / "inputs").iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
        if path.is_file():
            os.link(path, tmp_path / "links" / f"hard_{path.name}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CLASSIFY = ["--device", "numpy", "--workers", "1"]
# A command, and which of its words are outputs: {} is where a name is put.
COMMANDS: dict[str, list[str]] = {
    "convert": ["convert", "{in}/v.tif", "-o", "{}"],
    "convert store": ["convert", "{in}/v.ome.zarr", "-o", "{}"],
    "convert level": ["convert", "{in}/v.ome.zarr/0", "-o", "{}"],
    "convert planes": ["convert", "{in}/planes", "-o", "{}"],
    "convert mrc": ["convert", "{in}/v.mrc", "-o", "{}"],
    "reslice": ["reslice", "{in}/v.tif", "-o", "{}", "--tilt-axis", "z"],
    "substack": ["substack", "{in}/v.tif", "-o", "{}", "--every", "2"],
    "features": ["features", "{in}/v.tif", "--plane", "1", "-o", "{}", *FAST[:4], *CLASSIFY],
    "clean": ["clean", "{in}/truth.tif", "-o", "{}", "--min-size", "2"],
    "otsu": ["baseline", "otsu", "{in}/v.tif", "-o", "{}"],
    "nad": ["baseline", "nad", "{in}/v.tif", "-o", "{}", "--iterations", "1", "--noise-area", "1,1", *CLASSIFY],
    "classify": ["classify", "{in}/v.tif", "{in}/m.tcm", "-o", "{}", *CLASSIFY],
    "classify store": ["classify", "{in}/v.ome.zarr", "{in}/m.tcm", "-o", "{}", *CLASSIFY],
    "profile": ["classify", "{in}/v.tif", "{in}/m.tcm", "-o", "out/c.tif", "--profile", "{}", *CLASSIFY],
    "evaluate": ["evaluate", "{in}/truth.tif", "{in}/truth.tif", "--no-boundaries", "-o", "{}"],
    "measure": ["measure", "{in}/truth.tif", "--class", "2", "-o", "{}"],
    "histograms": ["measure", "{in}/truth.tif", "--class", "2", "-o", "out/p.csv", "--histograms", "{}"],
    "train": ["train", "{in}/v.tif", "{in}/strokes.tif", "-o", "{}", "--trees", "2", *FAST],
    "rows": ["train", "--from", "{in}/rows.arff", "-o", "out/m.tcm", "--save-rows", "{}", "--trees", "2", *FAST],
    "preview": ["preview", "{in}/v.tif", "{in}/m.tcm", "--plane", "1", "-o", "{}", "--no-cache", *CLASSIFY],
    "select": ["select-features", "{in}/v.tif", "{in}/strokes.tif", "-o", "{}", "--trees", "2", "--folds", "2", *FAST],
    "tune": [
        "tune",
        "{in}/v.tif",
        "{in}/strokes.tif",
        "-o",
        "{}",
        "--trees",
        "1",
        "--folds",
        "2",
        "--smooth",
        "0",
        "--min-samples-leaf",
        "1",
        "--features",
        "sobel_filter",
        "--no-cache",
        "--device",
        "numpy",
    ],
    "batch": ["batch", "{in}/job.toml", "--json", "{}"],
    "picture": ["info", "{in}/v.tif", "--picture", "{}"],
    "result": ["info", "{in}/v.tif", "--result", "{}"],
    "log": ["info", "{in}/v.tif", "--log-json", "{}"],
    "suggest": ["suggest", "{in}/v.tif", "{in}/m.tcm", "-o", "{}", *CLASSIFY],
    "adapt": ["adapt", "{in}/v.tif", "{in}/m.tcm", "-o", "{}", *CLASSIFY],
    "figure": ["figure", "{in}/v.tif", "{in}/truth.tif", "--planes", "1", "-o", "{}"],
    "watch": ["watch", "{in}/v.tif", "{in}/strokes.tif", "-o", "{}", "--trees", "2", *FAST],
    "watch page": ["watch", "{in}/v.tif", "{in}/strokes.tif", "-o", "out/w.tcm", "--page", "{}", "--trees", "2", *FAST],
    "paint": ["paint", "{in}/v.tif", "--strokes", "{}", "--no-browser", *FAST],
    "plan": ["plan", "{in}/v.tif", "{in}/m.tcm", "-o", "{}", "--no-time", *CLASSIFY],
    "pillar": ["simulate", "pillar", "-o", "{}", "--shape", "4,16,16"],
    "simulate": ["simulate", "phantom", "-o", "{}", "--size", "16"],
}
# Names that are inputs, or would damage one, whoever reads them.
NAMES = [
    "{in}/v.tif", "{in}/truth.tif", "{in}/m.tcm", "{in}/strokes.tif", "{in}/rows.arff", "{in}/job.toml", "{in}/v.mrc",
    "./{in}/../{in}/v.tif", "{abs}/v.tif", "folder/v.tif", "links/v.tif", "links/hard_v.tif", "links/truth.tif",
    "links/hard_m.tcm", "links/rows.arff", "{in}/v.ome.zarr", "{in}/v.ome.zarr/", "links/v.ome.zarr",
    "{in}/v.ome.zarr/0", "links/v.mrc", "links/hard_v.mrc",
    "{in}/v.ome.zarr/new.tif", "{in}/v.ome.zarr/labels/new.ome.zarr", "links/v.ome.zarr/new.ome.zarr", "{in}/planes",
    "{in}/planes/p1.tif", "{in}/planes/new.tif", "{in}", "folder",
]  # fmt: skip


def touches(name: str, read: str) -> bool:
    """Whether writing ``name`` would change the file, folder or store ``read``."""
    if os.path.exists(name) and os.path.samefile(name, read):
        return True
    target, source = Path(name).resolve(), Path(read).resolve()
    store = next((p for p in (source, *source.parents) if p.suffix == ".zarr"), source)
    return target in source.parents or (store.is_dir() and store in (target, *target.parents))


def filled(words: list[str], name: str) -> list[str]:
    return [name if word == "{}" else word.replace("{in}", "inputs") for word in words]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_in_the_place_of_what_it_reads(
    place: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even with --overwrite, whatever the name: exit 2 or 3, and every file of the folder is as before."""
    words, before = COMMANDS[command], content(place)
    read = [word for word in filled(words, "") if word.startswith("inputs/")]
    read += ["inputs/m.tcm", "inputs/v.tif"] if command == "batch" else []
    names = [n.format(**{"in": "inputs", "abs": place / "inputs"}) for n in NAMES]
    chosen = [name for name in names if any(touches(name, r) for r in read)]
    if command == "suggest":  # makes x.zip, x.csv and x.html of a name without a suffix
        chosen = [name for name in chosen if Path(name).suffix]
    assert len(chosen) >= 4 or not read
    for name in chosen:
        overwrite = [] if command == "batch" else ["--overwrite"]
        code = run([*filled(words, name), *overwrite, "-q"])
        said = capsys.readouterr()
        assert code in (2, 3), (name, code, said)
        assert not re.search("o such option|Missing|Invalid value", said.err), said.err  # refused for the name alone
        assert content(place) == before, name


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_replaces_a_file_unasked(place: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(place)
    simulated = (".tif", ".zarr", ".mrc")  # other names are folders, in which new files do no harm
    suffixes = {"simulate": simulated, "pillar": simulated}.get(command, ("",))
    for name in NAMES:
        name = name.format(**{"in": "inputs", "abs": place / "inputs"})
        if os.path.lexists(name.rstrip("/")) and name.endswith(suffixes):
            code = run([*filled(COMMANDS[command], name), "-q"])
            other_names = command == "features" and name.endswith(".mrc")  # makes v_original.mrc and so on
            other_names |= command == "suggest" and not Path(name).suffix
            assert code in (2, 3) or other_names, (name, code, capsys.readouterr())
            assert before.items() <= content(place).items(), name


@pytest.mark.parametrize(
    ("source", "output", "options"),
    [
        ("q_probabilities.tif", "q.tif", ["--probabilities"]),
        ("q_uncertainty.ome.zarr", "q.ome.zarr", ["--uncertainty"]),
        ("q_probabilities_in.mrc", "q.mrc", ["--probabilities"]),
    ],
)
def test_a_product_does_not_take_the_place_of_the_input(
    place: Path, source: str, output: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(place)
    arguments = ["classify", f"links/{source}", "inputs/m.tcm", "-o", f"inputs/{output}", *options, *CLASSIFY]
    assert run([*arguments, "--overwrite"]) == 2
    assert "is the input" in capsys.readouterr().err
    assert content(place) == before
    product, kind = options[0].removeprefix("--"), "uint8" if "prob" in options[0] else "margin"
    (place / "job.toml").write_text(
        f'model = "inputs/m.tcm"\noverwrite = true\n{product} = "{kind}"\n'
        f'\nformat = "{output[1:]}"\nname = "q"\noutput = "inputs"\n[[volumes]]\npath = "links/{source}"\n'
    )
    if not source.endswith(".mrc"):  # of a model the job file knows nothing: found when the volume's turn comes
        assert run(["batch", "job.toml", "--dry-run"]) == 2
    assert run(["batch", "job.toml"]) == 2
    assert {k: v for k, v in content(place).items() if k != "job.toml"} == before


def test_a_file_and_what_lies_in_it_are_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``file.h5::/dataset`` names the file."""
    import h5py

    with h5py.File(place / "v.h5", "w") as file:
        file["a"] = np.zeros((3, 20, 18), np.uint16)
    before = content(place)
    for name in ("v.h5", "./v.h5"):
        profile = ["classify", "v.h5::/a", "inputs/m.tcm", "-o", "c.tif", "--profile", name, *CLASSIFY]
        assert run([*profile, "--overwrite"]) == 2
        assert "is the input" in capsys.readouterr().err
    assert content(place) == before


def test_two_outputs_of_one_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(place)
    for a, b in (("x.tif", "./x.tif"), ("links/hard_v.tif", "folder/v.tif")):
        assert run(["classify", "inputs/v.mrc", "inputs/m.tcm", "-o", a, "--profile", b, "--overwrite"]) == 2
        assert "is named for two outputs" in capsys.readouterr().err
    assert content(place) == before


def test_the_profile_does_not_replace_a_product(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["classify", "inputs/v.tif", "inputs/m.tcm", "-o", "c.tif", "--uncertainty", "--overwrite", *CLASSIFY]
    assert run([*arguments, "--profile", "c_uncertainty.tif"]) == 2
    assert tifffile.imread("c_uncertainty.tif").shape == (3, 20, 18)


def test_a_summary_replaces_the_summary_before(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for status in ("done", "skipped"):
        assert run(["batch", "inputs/job.toml", "--json", "summary.json", "-q"]) == 0
        assert json.loads(Path("summary.json").read_text())[0]["status"] == status
    Path("summary.json").write_text('{"thesis": 1}')
    assert run(["batch", "inputs/job.toml", "--json", "summary.json", "-q"]) == 3
    assert Path("summary.json").read_text() == '{"thesis": 1}'


@pytest.mark.parametrize("name", ["partial", "cache"])
def test_what_is_written_beside_the_output(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The unfinished output is neither an input nor a link into somebody's folder; nor is the cache."""
    shutil.copytree("inputs/v.ome.zarr", "c.tif.partial")
    before = content(place)
    if name == "cache":
        Path("c.tif.partial/zarr.json").touch()
        before = content(place)
        arguments = ["train", "c.tif.partial", "inputs/strokes.tif", "-o", "x.tcm", "--cache", "c.tif.partial/cache"]
        assert run([*arguments, "--trees", "2"]) == 2
    else:
        arguments = ["classify", "c.tif.partial", "inputs/m.tcm", "-o", "c.tif", "--restart", "--overwrite", *CLASSIFY]
        assert run(arguments) == 2
        os.rename("c.tif.partial", "moved")
        os.symlink("moved", "c.tif.partial")
        before = content(place)
        assert run(["classify", "inputs/v.tif", "inputs/m.tcm", "-o", "c.tif", *CLASSIFY]) == 3
        assert "symbolic link" in capsys.readouterr().err
    assert content(place) == before


def commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Parameter]]:
    if isinstance(group, click.Group):
        for command in group.commands.values():
            yield from commands(command, f"{name} {command.name}")
    else:
        yield from ((name, parameter) for parameter in group.params)


def test_every_path_of_the_command_line_says_whether_it_is_read_or_written() -> None:
    """A parameter that is a plain text must be one of those that are no paths."""
    texts = {
        "axes", "label_axes", "class_names", "class_name", "features", "halo", "dask", "names", "version", "title",
        "dtype", "crop", "host", "origins", "panels", "outside", "z_sigma", "words",
    }  # fmt: skip
    plain = {
        (name, str(p.name)) for name, p in commands(cli) if p.type is click.STRING and not isinstance(p.type, InputPath)
    }
    assert {parameter for _, parameter in plain} <= texts, plain
    assert sum(isinstance(p.type, OutputPath) for _, p in commands(cli)) >= 20
    assert sum(isinstance(p.type, InputPath) for _, p in commands(cli)) >= 30


# Outputs that the table has for one command for all, and those that are folders of the command's own.
SHARED = {"--log-json", "--result", "--cache"}
OWN = {("demo", "-o"), ("reproduce", "-o"), ("model import", "-o"), ("paint", "-o"), ("paint", "--labels")}


def test_every_output_option_is_in_the_table() -> None:
    """Whoever adds an option that writes adds a row to COMMANDS."""
    rows = set()
    for words in COMMANDS.values():
        group = cli.commands[words[0]]
        named = " ".join(words[:2]) if isinstance(group, click.Group) else words[0]
        rows.add((named, words[words.index("{}") - 1]))
    missing = [
        (name.strip(), parameter.opts)
        for name, parameter in commands(cli)
        if isinstance(parameter.type, OutputPath)
        and not {(name.strip(), option) for option in parameter.opts} & (rows | OWN)
        and not SHARED & {*parameter.opts}
    ]
    assert not missing, f"add a row to COMMANDS for {missing}"


def test_identity_without_a_command(tmp_path: Path) -> None:
    """What is named is protected within the command and not beyond it."""
    (tmp_path / "a").write_bytes(b"a")
    with outputs.protecting():
        outputs.protect(tmp_path / "a")
        with pytest.raises(UsageError, match="is the input, which is never changed"):
            outputs.atomic(tmp_path / "a", overwrite=True)
        with pytest.raises(UsageError, match=r"holds the input"):
            outputs.check_output(tmp_path, overwrite=True, folder=True)
    outputs.atomic(tmp_path / "a", overwrite=True).discard()
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(UsageError, match="by another name"):
        outputs.atomic(tmp_path / "link", inputs=[tmp_path / "a"], overwrite=True)


def test_an_input_that_appears_meanwhile(tmp_path: Path) -> None:
    """Compared again when the output gets its name."""
    output = outputs.atomic(tmp_path / "b", inputs=[tmp_path / "a"])
    (tmp_path / "a").write_bytes(b"a")
    os.link(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UsageError, match="is the input"):
        output.commit()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
