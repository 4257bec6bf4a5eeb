"""Frames of the page of ``paint`` in a headless Chromium with 2048 x 2048 planes: moving, zooming, painting, leafing.

``python benchmarks/bench_page.py [--size 2048] [--json FILE]``. An overlay is shown all the time. In each frame one
event is given to the page, as a person's hand gives it; *between frames*: time from one `requestAnimationFrame` to the
next; *main thread*: what the page's own thread worked per frame (DevTools' TaskDuration), which alone says on a busy
machine, or without a GPU, whether 60 frames per second (16.7 ms) can be kept. Milliseconds, 50th and 95th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright
from shared import processor

import gpu_tomoclass as gt

FRAMES = 90
PLANES = 6
PATIENCE = 600_000  # ms

DRIVE = """async ([kind, n]) => {
  const view = document.getElementById("view"), box = view.getBoundingClientRect();
  const next = () => new Promise(requestAnimationFrame);
  const point = (type, i, extra = {}) => view.dispatchEvent(new PointerEvent(type, {
    pointerId: 1, bubbles: true, cancelable: true, clientX: box.left + box.width * (0.3 + 0.4 * i / n),
    clientY: box.top + box.height * (0.5 + 0.2 * Math.sin(i / 9)), button: 0, buttons: 1, ...extra }));
  view.setPointerCapture = () => {};
  const slide = (id, value) => {
    const input = document.getElementById(id);
    input.value = value;
    input.dispatchEvent(new Event("input"));
  };
  const gaps = [], work = [];
  const alt = { altKey: kind === "pan" };
  if (kind === "pan" || kind === "brush") point("pointerdown", 0, alt);
  let last = await next();
  for (let i = 1; i <= n; i++) {
    const began = performance.now();
    if (kind === "pan" || kind === "brush") point("pointermove", i, alt);
    else if (kind === "zoom") view.dispatchEvent(new WheelEvent("wheel", { deltaY: i % 30 < 15 ? -60 : 60,
      clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, cancelable: true }));
    else if (kind === "contrast") slide("black", i % 60);
    else if (kind === "planes") slide("plane", Math.floor(i / 3) % PLANES);
    work.push(performance.now() - began);
    const now = await next();
    gaps.push(now - last);
    last = now;
  }
  if (kind === "pan") point("pointerup", n, alt);
  if (kind === "brush") document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  return { gaps, work };
}""".replace("PLANES", str(PLANES))

SLIDE = """z => {
  const slider = document.getElementById("plane");
  slider.value = z;
  slider.dispatchEvent(new Event("input"));
}"""


def write_volume(path: Path, size: int) -> None:
    """Noise with bright and dark areas."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    shape = (np.sin(x / 90) * np.cos(y / 70) > 0) * 9000
    with gt.create_volume(path, shape=(PLANES, size, size), dtype="uint16", voxel_size=(0.5,) * 3) as writer:
        for z in range(PLANES):
            writer.write_plane(z, (20_000 + shape + rng.normal(0, 3000, (size, size))).astype(np.uint16))


def measure(size: int, browser_path: str) -> dict[str, dict[str, float]]:
    """Percentiles by what was done."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.tif")
        write_volume(path, size)
        command = [sys.executable, "-m", "gpu_tomoclass", "paint", str(path), "--no-browser", "--no-cache",
                   "--trees", "10", "--features", "gaussian_blur"]  # fmt: skip
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process,
            sync_playwright() as playwright,
        ):
            assert process.stdout is not None
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.goto(process.stdout.readline().removeprefix("open: ").strip())
            page.wait_for_selector('body[data-connected="true"][data-looked]', timeout=PATIENCE)
            box = page.locator("#view").bounding_box()
            for key, at in (("1", 0.45), ("2", 0.55)):
                page.keyboard.press(key)
                page.mouse.move(box["x"] + box["width"] * at, box["y"] + box["height"] * 0.4)
                page.mouse.down()
                page.mouse.move(box["x"] + box["width"] * at, box["y"] + box["height"] * 0.6, steps=4)
                page.mouse.up()
            page.wait_for_selector("body[data-overlay]", timeout=PATIENCE)
            page.wait_for_timeout(1000)
            page.wait_for_selector('body[data-work=""]', timeout=PATIENCE)
            for z in range(PLANES):  # all have been seen
                page.evaluate(SLIDE, z)
                page.wait_for_timeout(1500)
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

            def busy() -> float:
                metrics = {m["name"]: m["value"] for m in devtools.send("Performance.getMetrics")["metrics"]}
                return 1000 * metrics["TaskDuration"]

            for kind in ("pan", "zoom", "brush", "contrast", "planes"):
                began = busy()
                seen = page.evaluate(DRIVE, [kind, FRAMES])
                task = (busy() - began) / FRAMES
                gap50, gap95 = np.percentile(seen["gaps"], [50, 95])
                found[kind] = {"between_frames_p50": round(gap50, 1), "between_frames_p95": round(gap95, 1),
                               "main_thread_cpu": round(task, 2)}  # fmt: skip
                print(f"{kind:10}{gap50:12.1f}{gap95:12.1f}{task:14.2f}", flush=True)
            browser.close()
            process.terminate()
    return found


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "page.json")
    options = parser.parse_args()
    browser = next((p for p in map(shutil.which, ("chromium", "google-chrome")) if p), None)
    if browser is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    print(f"{'':10}{'frames p50':>12}{'p95':>12}{'main thread':>14}   ms")
    found = measure(options.size, browser)
    version = subprocess.run([browser, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "processor": processor(),
        "browser": version,
        "load": round(os.getloadavg()[0], 1),
        "size": options.size,
        **found,
    }
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
