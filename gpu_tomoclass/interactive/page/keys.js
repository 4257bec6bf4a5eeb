// All keys, and the list of them.
import { cancel, keyboard, move, penKey } from "./brush.js";
import { choose } from "./classes.js";
import { nextSuggestion, step } from "./planes.js";
import { ask } from "./socket.js";
import { byId, state } from "./state.js";
import { canvas, fit, redraw, zoom } from "./view.js";

const width = (n) => {
  byId("width").value = Math.round(state.width + n);
  byId("width").dispatchEvent(new Event("input"));
};
const toggle = (name) => byId(`show-${name}`).click();

// [keys, what they do, how it is said]
const KEYS = [
  ["1 2 3 4 5 6 7 8 9", (key) => choose(Number(key)), "1 to 9: paint this class"],
  ["0 e", () => choose(0), "0, e: erase; so does the right button"],
  ["[ -", () => width(-1), "[: narrower brush"],
  ["] +", () => width(1), "]: wider brush"],
  ["z Ctrl+z", () => ask({ do: "undo" }), "z: undo"],
  ["y Ctrl+y Ctrl+Z", () => ask({ do: "redo" }), "y: redo"],
  [", PageUp", () => step(-1), "comma, Page up: plane before; Shift and wheel too"],
  [". PageDown", () => step(1), "full stop, Page down: plane after"],
  ["n", () => nextSuggestion(1), "n: next place to mark"],
  ["p", () => nextSuggestion(-1), "p: place before"],
  ["v", () => ask({ do: "live", live: !state.live }), "v: live on and off"],
  ["t", () => ask({ do: "once" }), "t: learn once, now"],
  ["i", () => toggle("image"), "i: image"],
  ["m", () => toggle("marks"), "m: strokes"],
  ["l", () => toggle("labels"), "l: labels"],
  ["o", () => toggle("outlines"), "o: labels as outlines"],
  ["u", () => toggle("uncertainty"), "u: uncertainty"],
  ["x", () => toggle("sections"), "x: sections"],
  ["f", fit, "f: fit the plane into the window"],
  ["= Z", () => zoom(1.25), "=: closer; so does the wheel"],
  ["_ X", () => zoom(0.8), "_: farther"],
  ["h ?", () => byId("help").showModal(), "h: these keys"],
];
const ON_PLANE = [
  ["ArrowUp", () => move(-pace(), 0)], ["ArrowDown", () => move(pace(), 0)],
  ["ArrowLeft", () => move(0, -pace())], ["ArrowRight", () => move(0, pace())],
  ["Enter", penKey],
];
const EXTRA = [
  "Arrows: move the cursor (Shift: ten pixels)", "Enter: brush down; Enter again: lift it", "Escape: forget the stroke",
  "Alt and drag, middle button, or Space and drag: move the plane", "Tab: to the buttons and lists",
];
let shifted = false;
const pace = () => (shifted ? 10 : 1);
const table = new Map(KEYS.flatMap(([keys, action]) => keys.split(" ").map((key) => [key, action])));
const onPlane = new Map(ON_PLANE);

document.addEventListener("keydown", (event) => {
  const target = event.target;
  const writing = target.matches("input[type=text], textarea, select") || document.querySelector("dialog[open]");
  if (writing || !state.volume || event.altKey || event.metaKey) return;
  shifted = event.shiftKey;
  if (event.key === "Escape") return cancel();
  if (event.key === " " && target === canvas) {
    keyboard.space = true;
    return event.preventDefault();
  }
  const slides = target.matches("input[type=range]") && /^(Arrow|Page)/.test(event.key);
  const action = target === canvas && !event.ctrlKey ? onPlane.get(event.key) : null;
  const other = slides ? null : table.get(event.ctrlKey ? `Ctrl+${event.key}` : event.key);
  if (!action && !other) return undefined;
  event.preventDefault();
  (action || other)(event.key);
  return undefined;
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") keyboard.space = false;
});
window.addEventListener("blur", () => (keyboard.space = false));

const list = byId("key-list");
for (const line of [...KEYS.map((row) => row[2]), ...EXTRA]) {
  const at = line.indexOf(": ");
  const term = document.createElement("dt"), text = document.createElement("dd");
  term.textContent = line.slice(0, at);
  text.textContent = line.slice(at + 2);
  list.append(term, text);
}
byId("help-open").addEventListener("click", () => byId("help").showModal());
redraw();
