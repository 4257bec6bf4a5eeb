"""The pictures of ``docs/tutorial.md``: the real page, driven as a person does, and the real commands.

``python tools/make_tutorial_pictures.py [--folder docs/images/tutorial] [--keep FOLDER] [--quick]``. It simulates the
sample, paints where the truth says, follows the suggestions, classifies, measures and draws the figure; with the extra
``paint``, Playwright, and a Chromium of the system. The commands are read from the tutorial, so that they run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.image import imread, imsave
from scipy import ndimage

import gpu_tomoclass as gt
from gpu_tomoclass.annotations import load_annotation

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
PATIENCE = 300_000  # ms
SUGGESTED = 3  # strokes at suggestions
QUICK = {  # what --quick adds
    "simulate": ["--shape", "10,120,110"],
    "paint": ["--features", "gaussian_blur,hessian,variance", "--trees", "20", "--no-cache"],
}


def commands(text: str) -> list[list[str]]:
    """The command lines of the tutorial, in order."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, flags=re.S) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("gpu-tomoclass")]


def run(words: list[str], folder: Path) -> str:
    """A command as a person runs it; what it printed."""
    print("$", shlex.join(words), flush=True)
    done = subprocess.run([sys.executable, "-m", "gpu_tomoclass", *words[1:]], cwd=folder, text=True,
                          capture_output=True, check=False, env=dict(os.environ))  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    print(done.stdout, flush=True)
    return done.stdout


@contextlib.contextmanager
def painting(words: list[str], folder: Path) -> Iterator[str]:
    """The server of ``paint``; the address that it prints."""
    command = [sys.executable, "-m", "gpu_tomoclass", *words[1:], "--no-browser"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("open: ").strip()
        finally:
            process.terminate()


class Hand:
    """Paints in the page where the truth is of a class."""

    def __init__(self, page, truth: np.ndarray) -> None:  # type: ignore[no-untyped-def]
        self.page, self.truth = page, truth

    def wait(self, selector: str) -> None:
        self.page.wait_for_selector(selector, timeout=PATIENCE, state="attached")

    def rest(self) -> None:
        """Until the background rests."""
        self.page.wait_for_timeout(400)
        self.wait('body[data-work=""]')
        self.page.wait_for_timeout(300)

    def stroke(self, z: int, value: int, near: tuple[int, int] | None = None, length: int = 14) -> None:
        """Along the middle of an area of a class, near a place or where it is widest."""
        inside = ndimage.distance_transform_edt(self.truth[z] == value)
        if near is not None:
            y, x = np.mgrid[: inside.shape[0], : inside.shape[1]]
            inside = np.minimum(inside, 4) - 0.2 * np.hypot(y - near[0], x - near[1])
        y, x = (int(v) for v in np.unravel_index(int(inside.argmax()), inside.shape))
        right = x
        while right - x < length and self.truth[z, y, min(right + 1, self.truth.shape[2] - 1)] == value:
            right += 1
        self.page.keyboard.press(str(value))
        (x0, y0), (x1, y1) = self.screen(y, x), self.screen(y, max(right - 2, x + 1))
        self.page.mouse.move(x0, y0)
        self.page.mouse.down()
        self.page.mouse.move(x1, y1, steps=8)
        self.page.mouse.up()

    def screen(self, y: int, x: int) -> tuple[float, float]:
        """Where a pixel is while the plane fits the window."""
        self.page.keyboard.press("f")
        box = self.page.locator("#view").bounding_box()
        ny, nx = self.truth.shape[1:]
        scale = min(box["width"] / nx, box["height"] / ny) * 0.96
        left, top = (box["width"] - nx * scale) / 2, (box["height"] - ny * scale) / 2
        return box["x"] + left + scale * (x + 0.5), box["y"] + top + scale * (y + 0.5)


def paint(words: list[str], folder: Path, pictures: Path, browser_path: str) -> None:
    """The part of the tutorial that happens in the page."""
    from playwright.sync_api import sync_playwright

    truth = np.asarray(gt.open_volume(folder / "sample" / "truth.tif"))
    with (
        sync_playwright() as playwright,
        painting(words, folder) as address,
        contextlib.closing(playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])) as browser,
    ):
        page = browser.new_page(viewport={"width": 1180, "height": 720})
        page.goto(address)
        hand = Hand(page, truth)
        hand.wait('body[data-connected="true"][data-looked]')
        z = int(page.locator("#plane").input_value())
        hand.rest()
        page.screenshot(path=str(pictures / "open.png"))
        for value in (1, 2, 3):
            hand.stroke(z, value, length=30)
        hand.wait("body[data-overlay]")
        hand.rest()
        page.screenshot(path=str(pictures / "first.png"))
        page.keyboard.press("u")
        page.wait_for_timeout(500)
        page.screenshot(path=str(pictures / "unsure.png"))
        page.keyboard.press("u")
        for _ in range(SUGGESTED):
            page.keyboard.press("n")
            page.wait_for_timeout(500)
            found = re.match(r"z (\d+) · y (\d+) · x (\d+)", page.locator("#place").inner_text())
            at = page.locator("#suggestions button").first.inner_text()
            z, y, x = (int(n) for n in re.findall(r"\d+", at)[:3]) if found is None else map(int, found.groups())
            for value in (2, 3, 1):
                if (truth[z, max(0, y - 12) : y + 12, max(0, x - 12) : x + 12] == value).any():
                    hand.stroke(z, value, near=(y, x), length=8)
            hand.rest()
        hand.stroke(z, 1)  # a second one, for the held-out score
        hand.rest()
        ny, nx = truth.shape[1:]
        page.mouse.move(*hand.screen(ny // 2, 2 * nx // 5))  # where the sections are laid
        page.keyboard.press("x")
        page.keyboard.press("o")
        hand.rest()
        page.screenshot(path=str(pictures / "corrected.png"))
        page.locator("#save").click()
        page.wait_for_selector("#messages li:has-text('model saved')", timeout=PATIENCE)
        page.locator("#classify").click()
        hand.wait("body[data-classified]")


def smaller(path: Path) -> None:
    """A PNG in 64 colours less per channel, as a page of documents needs no more."""
    picture = imread(path)[..., :3]
    imsave(path, (np.round(picture * 31) / 31).astype(np.float32))


def main() -> None:
    """Run the tutorial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images" / "tutorial")
    parser.add_argument("--keep", type=Path, help="Work in this folder and leave it.")
    parser.add_argument("--quick", action="store_true",
                        help="A small sample and few features: does every step run? For another --folder.")  # fmt: skip
    options = parser.parse_args()
    if options.quick and options.folder == ROOT / "docs" / "images" / "tutorial":
        parser.error("--quick makes no pictures for the tutorial; give another --folder")
    browser = next((p for p in map(shutil.which, ("chromium", "google-chrome")) if p), None)
    if browser is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = temporary if options.keep is None else options.keep
        folder = Path(folder).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for words in commands(PAGE.read_text(encoding="utf-8")):
            if options.quick:
                words = [{"4,12,20": "2,5,8"}.get(word, word) for word in words] + QUICK.get(words[1], [])
            if words[1] == "paint":
                paint(words, folder, options.folder, browser)
                marks = load_annotation(
                    folder / "sample" / "pillar_strokes.ome.zarr",
                    volume_shape=gt.open_volume(folder / "sample" / "pillar.tif").shape,
                )
                print(f"marked: {marks.counts()} on planes {marks.planes().tolist()}", flush=True)
            else:
                run(words, folder)
        shutil.copy(folder / "figure.png", options.folder / "figure.png")
    for path in options.folder.glob("*.png"):
        smaller(path)


if __name__ == "__main__":
    main()
