"""What a user gets: a wheel with its CUDA sources, consistent metadata, documents whose links and commands exist."""

import ast
import re
import runpy
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

import gpu_tomoclass
from gpu_tomoclass.cli import cli
from gpu_tomoclass.cli.pages import SECTIONS, all_pages, pages_folder
from gpu_tomoclass.device.sources import kernels_folder
from gpu_tomoclass.errors import ResourceError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_wheel_holds_package_and_kernels(tmp_path):
    """Built by the declared backend, unpacked elsewhere, imported from there: the kernels are found inside."""
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = wheel.namelist()
        (metadata,) = (wheel.read(name).decode() for name in names if name.endswith("/METADATA"))
        wheel.extractall(tmp_path / "site")
    kernels = {p.name for p in (ROOT / "kernels").iterdir()}
    assert {f"gpu_tomoclass/kernels/{name}" for name in kernels} <= set(names)
    assert "gpu_tomoclass/py.typed" in names
    page = {p.name for p in (ROOT / "gpu_tomoclass" / "interactive" / "page").iterdir()}
    assert {f"gpu_tomoclass/interactive/page/{name}" for name in page} <= set(names)
    assert not any(name.startswith(("tests/", "docs/")) for name in names)
    pages = {name.removeprefix("gpu_tomoclass/docs/") for name in names if name.startswith("gpu_tomoclass/docs/")}
    assert pages == {
        *(page.path.relative_to(ROOT / "docs").as_posix() for page in all_pages().values()),
        *(f"{section}.md" for section in SECTIONS),
    }
    links = re.findall(r"\]\(([^)\s]+)\)", metadata)  # PyPI shows the README and holds no other file of the repository
    assert len(links) == len(re.findall(r"\]\(", (ROOT / "README.md").read_text(encoding="utf-8"))) > 30
    assert all(link.startswith("https://") for link in links), links
    assert "](https://raw.githubusercontent.com/gpu-tomoclass/gpu_tomoclass/main/docs/images/overview.png)" in metadata
    dependencies = sysconfig.get_path("purelib")  # -S: an editable install is not found
    code = "from gpu_tomoclass.device.sources import kernels_folder; from gpu_tomoclass.cli.pages import pages_folder; "
    code += "print(kernels_folder(), pages_folder(), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(tmp_path / 'site'), dependencies]!r}; {code}"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    inside = tmp_path / "site" / "gpu_tomoclass"
    assert done.stdout.splitlines() == [str(inside / "kernels"), str(inside / "docs")], done.stderr


@pytest.mark.parametrize("file", ["Dockerfile", "gpu_tomoclass.def"])
def test_containers_are_built_from_all_that_the_wheel_holds(file):
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {name.strip("/").split("/")[0] for name in (*wheel["include"], *wheel["force-include"])}
    folders.add(PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["path"].split("/")[0])
    text = (ROOT / "packaging" / file).read_text(encoding="utf-8")
    copied = re.findall(r"^(?:COPY|   ) (\w+) /(?:src|opt/gpu_tomoclass)/(\w+)$", text, re.MULTILINE)
    assert {(name, name) for name in folders} <= set(copied)


def test_kernels_are_found_here_and_their_absence_is_told(monkeypatch, tmp_path):
    assert kernels_folder() == ROOT / "kernels"
    monkeypatch.setattr(
        "gpu_tomoclass.device.sources.__file__", str(tmp_path / "gpu_tomoclass" / "device" / "sources.py")
    )
    with pytest.raises(ResourceError, match="install gpu_tomoclass again"):
        kernels_folder()


def test_pages_are_found_here_and_their_absence_is_told(monkeypatch, tmp_path):
    assert pages_folder() == ROOT / "docs"
    monkeypatch.setattr("gpu_tomoclass.cli.pages.__file__", str(tmp_path / "gpu_tomoclass" / "cli" / "pages.py"))
    with pytest.raises(ResourceError, match="install gpu_tomoclass again"):
        pages_folder()


def test_citation_is_current():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == gpu_tomoclass.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["message"]
    assert citation["authors"]


def floors(items):
    """Name and floor of each requirement, whether pip or conda spells it."""
    pairs = (re.match(r"([A-Za-z0-9_.-]+?)(?:\s*>=([\d.]+))?(?:[,=\s].*)?$", item).groups() for item in items)
    return {
        name.replace("matplotlib-base", "matplotlib"): floor
        and tuple(int(n) for n in re.sub(r"(\.0)+$", "", floor).split("."))
        for name, floor in pairs
    }


def test_conda_asks_for_what_pip_asks_for():
    """The environment of GPU nodes and the conda recipe must not drift from pip's: same packages, same floors."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((ROOT / "packaging/recipe/recipe.yaml").read_text(encoding="utf-8"))
    asked = floors(PROJECT["project"]["dependencies"])
    for conda in (floors(environment["dependencies"]), floors(recipe["requirements"]["run"])):
        assert {name: conda.get(name, "missing") for name in asked} == asked
    assert recipe["context"]["version"] == gpu_tomoclass.__version__
    extras = PROJECT["project"]["optional-dependencies"]
    optional = floors(item.lower() for name in ("dask", "formats", "paint", "napari") for item in extras[name])
    constraints = floors(recipe["requirements"]["run_constraints"])
    assert {name: constraints.get(name, floor) for name, floor in optional.items()} == optional


def test_lock_has_what_ci_installs():
    """`make lock` was run after a package was added."""
    text = (ROOT / "packaging/ci.lock").read_text(encoding="utf-8")
    locked = {name.lower().replace("_", "-") for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"], *extras["test"], *extras["check"], *extras["docs"]]
    assert {re.match(r"[A-Za-z0-9._-]+", item)[0].lower().replace("_", "-") for item in asked} <= locked


def test_python_api_page_shows_every_public_name():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    front = page.partition("\n## Rooms\n")[0]
    shown = re.findall(r"auto(?:class|function|module):: (?:gpu_tomoclass\.)?(\w+)", front)
    assert sorted(shown) == sorted(gpu_tomoclass.__all__)


def test_site_has_every_page():
    """Each page is in one list of contents, so that a reader can find it."""
    listed = []
    for page in (ROOT / "docs").glob("*.md"):
        for block in re.findall(r"```{toctree}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed += [re.sub(r".*<(.*)>", r"\1", line) for line in lines]
    pages = {p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in (ROOT / "docs").glob("*.md")} - {"index"}
    assert sorted(listed) == sorted(pages | {"features/index"})


def said_in_code():
    """Every string of the package but docstrings; NUL stands for what an f-string fills in."""
    for path in (ROOT / "gpu_tomoclass").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield node.value


def test_quoted_messages_are_those_of_the_code():
    """The fixed parts of each message on the page of symptoms stand in one string, in this order."""
    page = (ROOT / "docs/something_is_wrong.md").read_text(encoding="utf-8")
    seen = [line.split("|")[1] for line in page.splitlines() if line.startswith("|")]
    quoted = re.findall(r'"([^"]+)"', "\n".join(seen))
    code = "\n\n".join(said_in_code())
    stale = [q for q in quoted if not re.search("[^\n]*".join(re.escape(part) for part in q.split("..")), code)]
    assert len(quoted) > 20
    assert stale == []


def test_figures_are_those_of_the_results():
    tool = runpy.run_path(str(ROOT / "tools/docs_numbers.py"))
    stated = set()
    for page in tool["pages"]():
        text = page.read_text(encoding="utf-8")
        stated |= {name for name, _ in tool["MARK"].findall(text)}
        assert tool["filled"](text) == text, f"{page.name} differs from benchmarks/results: make docs-numbers"
    assert stated == set(tool["named"]())


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / ".github/workflows").iterdir()))
def test_workflows_call_targets_that_exist(file):
    jobs = yaml.safe_load((ROOT / ".github/workflows" / file).read_text(encoding="utf-8"))["jobs"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for job in jobs.values():
        for step in job["steps"]:
            for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
                assert target in targets
            for command in re.findall(r"^gpu-tomoclass (\w+)", step.get("run", "")):
                assert command in cli.commands


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http", "mailto")):
            assert ((ROOT / page).parent / target).exists(), target
    for name in re.findall(
        r"`((?:benchmarks|docs|examples|gpu_tomoclass|kernels|packaging|tests|tools)/[\w./*-]+)`", text
    ):
        made_elsewhere = name in ("docs/_build/html/index.html", "gpu_tomoclass/kernels")
        assert made_elsewhere or list(ROOT.glob(name)) or list(ROOT.glob(f"{name}.py")), name


def commands_of(page):
    """The gpu-tomoclass commands in the shell blocks of a page."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.split("#")[0].strip()
            if line.startswith("gpu-tomoclass "):
                yield line


PAGES = ["README.md", *sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_documented_flags_exist(page):
    lines = list(commands_of(ROOT / page))
    assert lines or page not in ("README.md", "docs/streaming.md", "docs/facility.md")
    for line in lines:
        words = line.split()[1:]
        if words[0].startswith("-"):
            continue
        command = cli.commands[words[0]]
        if isinstance(command, click.Group):
            command = command.commands[words[1]]
        flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {
            "--help",
            "-h",
        }
        unknown = [w.split("=")[0] for w in words if re.match(r"--?[a-z]", w) and w.split("=")[0] not in flags]
        assert not unknown, line


COMMANDS = {
    f"{name} {inner}".strip(): command
    for name, outer in cli.commands.items()
    for inner, command in (("", outer), *(outer.commands.items() if isinstance(outer, click.Group) else ()))
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_has_help(name):
    command = COMMANDS[name]
    assert command.help
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0
    for option in command.params:
        if option.param_type_name == "option":
            named = f"{name} {option.opts}"
            assert getattr(option, "help", None) or option.metavar, named


def test_lines_of_the_changelog_are_gathered(tmp_path, capsys):
    """Under the unreleased version, in the order of their names; the README stays; without such a version nothing."""
    main = runpy.run_path(str(ROOT / "tools/changelog.py"))["main"]
    (tmp_path / "changelog.d").mkdir()
    for name, text in (("README.md", "how"), ("b.md", "Second"), ("a.md", "First,\nlonger.\n")):
        (tmp_path / "changelog.d" / name).write_text(text)
    old = "# Changelog\n\n## 2.0 (unreleased)\n\n- Old\n\n## 1.0\n\n- Older\n"
    (tmp_path / "CHANGELOG.md").write_text(old)
    assert main(tmp_path) == 0
    expected = old.replace("- Old\n", "- First,\n  longer.\n- Second\n- Old\n", 1)
    assert (tmp_path / "CHANGELOG.md").read_text() == expected
    assert [path.name for path in (tmp_path / "changelog.d").iterdir()] == ["README.md"]
    (tmp_path / "CHANGELOG.md").write_text("## 1.0\n")
    (tmp_path / "changelog.d" / "c.md").write_text("Third")
    assert main(tmp_path) == 1
    assert (tmp_path / "changelog.d" / "c.md").exists()
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "tools/changelog.py"))["UNRELEASED"] in changelog
