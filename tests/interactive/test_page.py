"""The page of ``gpu-tomoclass paint`` in a real browser, driven as a person does; and who is kept out of its server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from commands import Commands
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import gpu_tomoclass as gt
from gpu_tomoclass.studies.simulation.pillar import simulate_sample

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--features", "gaussian_blur,hessian,variance", "--trees", "20", "--no-cache")
PATIENCE = 1_200_000  # ms, for a busy machine


@contextlib.contextmanager
def server(volume: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of ``paint`` and the address that it prints; killed at the end if it still runs."""
    command = [sys.executable, "-m", "gpu_tomoclass", "paint", str(volume), "--no-browser", *OPTIONS, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().removeprefix("open: ").strip()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """What the sample is made of."""
    return simulate_sample(shape=(8, 64, 56), diameter=60.0, seed=0).truth


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    sample = simulate_sample(shape=(8, 64, 56), diameter=60.0, seed=0).volume
    with gt.create_volume(
        tmp_path / "sample.tif", shape=sample.shape, dtype=sample.dtype, voxel_size=(0.5,) * 3
    ) as out:
        for z, plane in enumerate(sample):
            out.write_plane(z, plane)
    return tmp_path / "sample.tif"


def asked(
    address: str, path: str = "/", *, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, str, str]:
    """Status, Set-Cookie and text of an answer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=1200)
    connection.request(
        method, path, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    return answer.status, answer.getheader("set-cookie", ""), answer.read().decode()


def test_strangers_are_kept_out(volume: Path) -> None:
    """Not without a token, nor with a used one, nor by another name, nor from another page; no path reaches a file."""
    with server(volume) as (process, address):
        at = urlsplit(address)
        here = f"http://{at.netloc}"
        assert asked(address)[0] == 403
        assert asked(address, "/?token=%C3%A9")[0] == 403
        assert asked(address, f"/?{at.query}", Host="evil.example:80")[0] == 421
        assert asked(address, "/page/main.js")[0] == 403
        status, cookie, _ = asked(address, f"/?{at.query}")
        assert status == 303
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        mine = cookie.partition(";")[0]
        assert asked(address, Cookie=mine)[0] == 200
        assert asked(address, f"/?{at.query}")[0] == 403
        assert process.stdout is not None
        assert process.stdout.readline().startswith("open: ")  # whoever sits there may want another browser
        for path in ("/page/../server.py", "/page/%2e%2e/server.py", "/page//etc/passwd", "/sample.tif"):
            assert asked(address, path, Cookie=mine)[0] == 404
        assert asked(address, "/open?name=m.tcm", method="POST", body=b"", Cookie=mine)[0] == 403
        assert (
            asked(address, "/open?name=m.tcm", method="POST", body=b"", Cookie=mine, Origin="http://evil.example")[0]
            == 403
        )
        for name, content, said in (
            ("m.tcm", b"no model", "is not a gpu_tomoclass model"),
            ("../m.sh", b"", "cannot be opened here"),
            ("a.tif", b"II*", "error"),
        ):
            status, _, text = asked(
                address, f"/open?name={name}", method="POST", body=content, Cookie=mine, Origin=here
            )
            assert status == 400
            assert said in text
            assert "upload" not in text  # the file is named as its owner knows it
        for origin, cookies in (("http://evil.example", mine), (None, mine), (here, "")):
            with pytest.raises(InvalidStatus):
                connect(f"ws://{at.netloc}/talk", origin=origin, additional_headers={"Cookie": cookies})  # type: ignore[arg-type]
        with connect(f"ws://{at.netloc}/talk", origin=here, additional_headers={"Cookie": mine}) as talk:  # type: ignore[arg-type]
            assert json.loads(talk.recv(timeout=1200))["kind"] == "volume"
            requests = (
                "no JSON", "[]", '{"do": "rm"}', '{"do": ["x"]}', '{"do": "look", "z": 99}', '{"do": "look"}',
                '{"do": "stroke", "z": 1}', '{"do": "classes", "classes": [{"value": 1}]}',
                '{"do": "peek", "z": 1e999}', '{"do": "delete", "number": {}}',
                '{"do": "stroke", "z": 1, "points": [[1, NaN]], "value": 1, "width": 3}',
            )  # fmt: skip
            for request in requests:
                talk.send(request)
                while True:
                    answer = talk.recv(timeout=1200)
                    if isinstance(answer, str) and json.loads(answer)["kind"] == "trouble":
                        break
        process.terminate()
        assert process.wait(1200) == 0


def test_a_server_that_is_not_installed_is_said(volume: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from gpu_tomoclass.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "paint", volume], capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "pip install 'gpu_tomoclass[paint]'" in done.stderr
    assert not volume.with_name("sample_strokes.ome.zarr").exists()


def browser_path() -> str:
    """A Chromium of the system; where the checks of a change run, there must be one."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        if os.environ.get("GPU_TOMOCLASS_NEEDS_BROWSER"):
            pytest.fail("no Chromium is installed: apt-get install chromium")
        pytest.skip("no Chromium is installed")
    return found


class Person:
    """Someone at the page: knows where a pixel of the plane is on the screen."""

    def __init__(self, page, shape: Sequence[int]) -> None:  # type: ignore[no-untyped-def]
        self.page = page
        box = page.locator("#view").bounding_box()
        self.scale = min(box["width"] / shape[1], box["height"] / shape[0]) * 0.96
        self.left = box["x"] + (box["width"] - shape[1] * self.scale) / 2
        self.top = box["y"] + (box["height"] - shape[0] * self.scale) / 2

    def drag(self, way: Sequence[tuple[float, float]], button: str = "left") -> None:
        """With the button held, through pixels (y, x)."""
        points = [(self.left + self.scale * (x + 0.5), self.top + self.scale * (y + 0.5)) for y, x in way]
        self.page.mouse.move(*points[0])
        self.page.mouse.down(button=button)
        for point in points[1:]:
            self.page.mouse.move(*point, steps=3)
        self.page.mouse.up(button=button)

    def wait(self, selector: str) -> None:
        self.page.wait_for_selector(selector, timeout=PATIENCE, state="attached")

    def count(self, value: int) -> int:
        """Marked pixels of a class, as the list says."""
        return int(self.page.locator(f'#classes li[data-value="{value}"] .n').inner_text())

    def until_count(self, value: int, wanted: int | None = None, *, other_than: int = -1) -> int:
        """Wait until the list says so."""
        for _ in range(PATIENCE // 50):
            now = self.count(value)
            if now == wanted or (wanted is None and now != other_than):
                return now
            self.page.wait_for_timeout(50)
        raise AssertionError(f"class {value} has {now} pixels, not {wanted}")


def run_of(plane: np.ndarray, value: int, length: int) -> tuple[int, int]:
    """(y, x) where ``length`` pixels to the right, and those above and below, are of a class."""
    for y in range(6, plane.shape[0] - 6, 2):
        for x in range(4, plane.shape[1] - length - 4):
            if (plane[y - 1 : y + 2, x : x + length] == value).all():
                return y, x
    raise AssertionError(f"no run of class {value}")


def test_a_person_marks_looks_corrects_and_classifies(
    volume: Path, truth: np.ndarray, tmp_path: Path, command: Commands
) -> None:
    from playwright.sync_api import sync_playwright

    z, troubles = 4, []
    names = ("--class-names", "vacuum,rubber,silica")
    chromium = {"executable_path": browser_path(), "args": ["--no-sandbox"] if os.geteuid() == 0 else []}
    with sync_playwright() as playwright, contextlib.closing(playwright.chromium.launch(**chromium)) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        with server(volume, *names) as (_, address):
            page.goto(address)
            person = Person(page, truth.shape[1:])
            person.wait('body[data-connected="true"][data-looked]')
            assert "token" not in page.url
            assert page.locator("#plane-text").inner_text() == "4 (0 to 7)"
            # Rubber by the mouse.
            y, x = run_of(truth[z], 2, 10)
            page.keyboard.press("2")
            person.drag([(y, x), (y, x + 5), (y + 0.4, x + 9)])
            rubber = person.until_count(2, other_than=0)
            # Vacuum by the keyboard alone: from the cursor to the corner, brush down, along, brush up.
            page.keyboard.press("1")
            page.locator("#view").focus()
            for _ in range(8):
                page.keyboard.press("Shift+ArrowUp")
                page.keyboard.press("Shift+ArrowLeft")
            for key in ("ArrowDown", "ArrowDown", "Enter", "Shift+ArrowRight", "Enter"):
                page.keyboard.press(key)
            vacuum = person.until_count(1, other_than=0)
            person.wait("body[data-overlay]")
            first = page.locator("body").get_attribute("data-overlay")
            assert first is not None
            assert first.startswith("4:")
            # A correction, as a third class, and what it takes back.
            y, x = run_of(truth[z], 3, 6)
            page.keyboard.press("3")
            person.drag([(y, x), (y, x + 5)])
            silica = person.until_count(3, other_than=0)
            page.keyboard.press("]")
            person.drag([(y, x), (y + 20, x)])
            person.until_count(3, other_than=silica)
            page.keyboard.press("z")
            assert person.until_count(3, silica) == silica
            assert (person.count(1), person.count(2)) == (vacuum, rubber)
            person.drag([(y, x + 40), (y, x + 44)], button="right")  # the right button erases nothing there
            for key in ("u", "o", "x", "l", "i", "m", "f", ".", ",", "n"):
                page.keyboard.press(key)
            person.wait('body[data-score][data-work=""]')
            assert "out-of-bag" in page.locator("#scores").inner_text()
            assert page.locator("#suggestions li").count() > 0
            page.keyboard.press("n")
            at = page.locator("#place").inner_text().split(" · ")[:3]
            assert ", ".join(at).replace("z ", "plane ") in page.locator("#suggestions").inner_text()
            page.keyboard.press("f")
            page.screenshot(path=str(tmp_path / "page.png"))
            # A class that is not needed goes; one with strokes stays. The strokes as a file on this side.
            page.locator("#class-add").click()
            person.wait('#classes li[data-value="4"]')
            page.locator('#classes li[data-value="4"] .delete').click()
            page.wait_for_selector('#classes li[data-value="4"]', timeout=PATIENCE, state="detached")
            page.locator('#classes li[data-value="3"] .delete').click()
            page.wait_for_selector("#messages li:has-text('silica has strokes')", timeout=PATIENCE)
            name = page.locator('#classes li[data-value="2"] input[type=text]')
            name.fill("vacuum")
            name.press("Enter")
            page.wait_for_selector("#messages li:has-text('different values and names')", timeout=PATIENCE)
            assert name.input_value() == "rubber"
            with page.expect_download(timeout=PATIENCE) as download:
                page.locator("#strokes-as").click()
            assert download.value.suggested_filename == "sample_marks.tif"
            download.value.save_as(tmp_path / "saved_marks.tif")
            page.locator("#recipe").click()
            person.wait("#recipe-box[open]")
            recipe = page.locator("#recipe-command").input_value()
            # Killed here, without warning.
        marks = gt.load_annotation(tmp_path / "sample_strokes.ome.zarr", volume_shape=truth.shape)
        assert marks.counts() == {1: vacuum, 2: rubber, 3: silica}
        saved_marks = gt.load_annotation(tmp_path / "saved_marks.tif", volume_shape=truth.shape)
        assert np.array_equal(saved_marks.plane_labels(z), marks.plane_labels(z))
        assert marks.planes().tolist() == [z]
        of_rubber = marks.plane_labels(z) == 2
        assert (truth[z][of_rubber] == 2).mean() > 0.6  # it is where it was painted
        with server(volume, "--port", str(urlsplit(address).port)) as (process, address):
            person.wait("#work:has-text('open the address that its terminal shows')")  # the cookie was the other's
            page.goto(address)
            person.wait("body[data-overlay]")
            assert (person.count(1), person.count(2), person.count(3)) == (vacuum, rubber, silica)
            assert page.locator('#classes li[data-value="3"] input[type=text]').input_value() == "silica"
            page.locator("#classify").click()
            person.wait("body[data-classified]")
            page.locator("#save").click()
            page.wait_for_selector("#messages li:has-text('model saved')", timeout=PATIENCE)
            process.terminate()
            assert process.wait(1200) == 0
    # The connection was lost when the server was killed, which a browser says itself.
    assert [text for text in troubles if not any(w in text for w in ("WebSocket", "ERR_CONNECTION", "403"))] == []
    train, classify = (shlex.split(line)[1:] for line in recipe.splitlines())
    swap = {str(tmp_path / "sample_model.tcm"): str(tmp_path / "typed.tcm"),
            str(tmp_path / "sample_labels.ome.zarr"): str(tmp_path / "typed.tif")}  # fmt: skip
    for words in (train, classify):
        assert command(*(swap.get(word, word) for word in words), *(["--no-cache"] if words is train else [])).code == 0
    here, there = gt.open_volume(tmp_path / "sample_labels.ome.zarr"), gt.open_volume(tmp_path / "typed.tif")
    assert np.array_equal(np.asarray(here), np.asarray(there))
    assert [c.name for c in here.classes] == ["vacuum", "rubber", "silica"]
    saved, typed = (gt.load_model(tmp_path / name) for name in ("sample_model.tcm", "typed.tcm"))
    assert np.array_equal(saved.forest.threshold, typed.forest.threshold)
