// Painting with the pointer, and with the keyboard alone.
import { values } from "./layers.js";
import { ask } from "./socket.js";
import { byId, className, on, state, tell } from "./state.js";
import { canvas, intoView, pan, redraw, stroke, toPlane, zoom } from "./view.js";
import { step } from "./planes.js";

let pointer = null; // {id, what: "paint" | "pan", x, y}
export const keyboard = { down: false, space: false };

function begin(value) {
  stroke.points = [[state.cursor.y, state.cursor.x]];
  stroke.value = value;
  stroke.width = state.width;
  stroke.waiting = false;
  redraw();
}

function extend() {
  const last = stroke.points[stroke.points.length - 1];
  if (Math.hypot(last[0] - state.cursor.y, last[1] - state.cursor.x) >= 0.25) {
    stroke.points.push([state.cursor.y, state.cursor.x]);
  }
  redraw();
}

function end() {
  const points = stroke.points.map((p) => p.map((v) => Math.round(v * 100) / 100));
  stroke.waiting = ask({ do: "stroke", z: state.z, points, value: stroke.value, width: stroke.width, depth: state.depth });
  if (!stroke.waiting) stroke.points = [];
  redraw();
}

export function cancel() {
  if (stroke.waiting) return;
  stroke.points = [];
  keyboard.down = false;
  pointer = null;
  redraw();
}

export function penKey() {
  if (keyboard.down) end();
  else begin(state.value);
  keyboard.down = !keyboard.down;
}

export function move(dy, dx) {
  const [ny, nx] = state.volume.shape.slice(1);
  state.cursor.y = Math.max(0.5, Math.min(ny - 0.5, Math.floor(state.cursor.y) + 0.5 + dy));
  state.cursor.x = Math.max(0.5, Math.min(nx - 0.5, Math.floor(state.cursor.x) + 0.5 + dx));
  if (keyboard.down) extend();
  intoView();
  tell("cursor");
  redraw();
}

function showPlace() {
  if (!state.volume) return;
  const [ny, nx] = state.volume.shape.slice(1);
  const y = Math.floor(state.cursor.y), x = Math.floor(state.cursor.x);
  const inside = y >= 0 && x >= 0 && y < ny && x < nx;
  const parts = [`z ${state.z}`, `y ${y}`, `x ${x}`];
  if (inside) {
    const at = y * nx + x;
    const [low, high] = state.volume.limits;
    if (values.image) parts.push(`about ${+(low + (values.image[at] / 255) * (high - low)).toPrecision(4)}`);
    if (values.labels) parts.push(`${className(values.labels[at])}, uncertainty ${(values.uncertainty[at] / 255).toFixed(2)}`);
    if (values.marks && values.marks[at]) parts.push(`marked ${className(values.marks[at])}`);
  }
  const text = parts.join("  ·  ");
  if (byId("place").textContent !== text) byId("place").textContent = text; // lest the page is laid out for nothing
}

on("cursor", showPlace);
on("redraw", showPlace); // other values there
canvas.addEventListener("pointerdown", (event) => {
  if (!state.volume) return;
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  state.cursor = toPlane(event);
  const pans = event.button === 1 || event.altKey || keyboard.space;
  pointer = { what: pans ? "pan" : "paint", x: event.clientX, y: event.clientY };
  if (pans) canvas.classList.add("panning");
  else begin(event.button === 2 ? 0 : state.value);
  event.preventDefault();
});

canvas.addEventListener("pointermove", (event) => {
  if (!state.volume || keyboard.down) return;
  if (pointer && pointer.what === "pan") {
    pan(event.clientX - pointer.x, event.clientY - pointer.y);
    pointer.x = event.clientX;
    pointer.y = event.clientY;
    return;
  }
  const events = pointer && event.getCoalescedEvents ? event.getCoalescedEvents() : [event];
  for (const one of events.length ? events : [event]) {
    state.cursor = toPlane(one);
    if (pointer) extend();
  }
  tell("cursor");
  redraw();
});

function up(event) {
  if (pointer && pointer.what === "paint") {
    state.cursor = toPlane(event);
    extend();
    end();
  }
  canvas.classList.remove("panning");
  pointer = null;
}
canvas.addEventListener("pointerup", up);
canvas.addEventListener("pointercancel", cancel);
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    if (event.shiftKey) {
      step(Math.sign(event.deltaY || event.deltaX));
      return;
    }
    const box = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - box.left, event.clientY - box.top);
  },
  { passive: false },
);
