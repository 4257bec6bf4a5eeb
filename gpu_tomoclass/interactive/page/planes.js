// Which plane is in view: the slider, its marks, and going from plane to plane.
import { hasPlane, showPlane } from "./layers.js";
import { ask } from "./socket.js";
import { byId, on, state, tell } from "./state.js";
import { canvas, centre } from "./view.js";

const slider = byId("plane"), ticks = byId("ticks");

export function look(z) {
  const planes = state.volume.planes;
  if (!planes.includes(z)) return;
  state.z = z;
  slider.value = planes.indexOf(z);
  byId("plane-text").textContent = `${z} (0 to ${state.volume.shape[0] - 1})`;
  const known = hasPlane(z);
  showPlane(z);
  ask({ do: "look", z, plane: !known });
  const place = planes.indexOf(z);
  for (const next of [planes[place + 1], planes[place - 1]]) {
    if (next !== undefined && !hasPlane(next)) ask({ do: "peek", z: next });
  }
  drawTicks();
  tell("looked");
}

export function step(n) {
  const planes = state.volume.planes;
  const place = Math.max(0, Math.min(planes.length - 1, planes.indexOf(state.z) + n));
  if (planes[place] !== state.z) look(planes[place]);
}

export function jump({ z, y, x }) {
  if (z !== state.z) look(z);
  centre(y + 0.5, x + 0.5);
  tell("cursor");
}

let lastSuggestion = -1;
export function nextSuggestion(n) {
  if (!state.suggestions.length) return;
  lastSuggestion = (lastSuggestion + n + state.suggestions.length) % state.suggestions.length;
  jump(state.suggestions[lastSuggestion]);
  canvas.focus({ preventScroll: true }); // to be marked by the arrows and Enter
}

function drawTicks() {
  const ratio = devicePixelRatio || 1, width = ticks.clientWidth, height = ticks.clientHeight;
  ticks.width = width * ratio;
  ticks.height = height * ratio;
  const context = ticks.getContext("2d");
  context.scale(ratio, ratio);
  const planes = state.volume.planes, thumb = 8; // the slider's thumb does not reach the ends
  const at = (z) => thumb + ((width - 2 * thumb) * planes.indexOf(z)) / Math.max(1, planes.length - 1);
  context.fillStyle = "#fff";
  for (const z of state.marked) if (planes.includes(z)) context.fillRect(at(z) - 1, 0, 3, height - 2);
  context.fillStyle = "#e69f00";
  for (const { z } of state.suggestions) {
    context.beginPath();
    context.moveTo(at(z) - 4, 0);
    context.lineTo(at(z) + 4, 0);
    context.lineTo(at(z), 7);
    context.fill();
  }
}

slider.addEventListener("input", () => look(state.volume.planes[Number(slider.value)]));
new ResizeObserver(() => state.volume && drawTicks()).observe(ticks);
on("volume", () => {
  slider.max = state.volume.planes.length - 1;
  look(state.volume.planes.includes(state.z) && document.body.dataset.looked ? state.z : nearest(state.volume.view));
  document.body.dataset.looked = "yes";
});
on("state", () => state.volume && drawTicks());
on("suggestions", () => (lastSuggestion = -1));

function nearest(z) {
  return state.volume.planes.reduce((best, plane) => (Math.abs(plane - z) < Math.abs(best - z) ? plane : best));
}
