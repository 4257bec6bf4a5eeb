// Pan, zoom and the picture on the screen: drawn again only when something has changed.
import { layers, painted } from "./layers.js";
import { byId, colour, on, state, tell } from "./state.js";

const canvas = byId("view");
const context = canvas.getContext("2d");
export const view = { scale: 1, left: 0, top: 0, fitted: false, moved: false }; // screen = left + scale * pixel, in CSS pixels
export const stroke = { points: [], value: 0, width: 1, waiting: false }; // being painted, or on its way
let wanted = false;

export function redraw() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    draw();
  });
}

export function toPlane(event) {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left - view.left) / view.scale, y: (event.clientY - box.top - view.top) / view.scale };
}

export function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.max(0.05, Math.min(60, view.scale * factor));
  view.left = x - ((x - view.left) * scale) / view.scale;
  view.top = y - ((y - view.top) * scale) / view.scale;
  view.scale = scale;
  view.moved = true;
  redraw();
}

export function pan(dx, dy) {
  view.left += dx;
  view.top += dy;
  view.moved = true;
  redraw();
}

export function fit() {
  if (!state.volume) return;
  const [ny, nx] = state.volume.shape.slice(1);
  view.scale = Math.min(canvas.clientWidth / nx, canvas.clientHeight / ny) * 0.96;
  view.left = (canvas.clientWidth - nx * view.scale) / 2;
  view.top = (canvas.clientHeight - ny * view.scale) / 2;
  view.fitted = true;
  view.moved = false;
  redraw();
}

export function centre(y, x) {
  if (!view.moved) view.scale = Math.max(2, 1.5 * view.scale);
  view.moved = true;
  view.left = canvas.clientWidth / 2 - x * view.scale;
  view.top = canvas.clientHeight / 2 - y * view.scale;
  state.cursor = { y, x };
  redraw();
}

export function intoView() {
  const x = view.left + state.cursor.x * view.scale, y = view.top + state.cursor.y * view.scale;
  if (x < 0 || y < 0 || x > canvas.clientWidth || y > canvas.clientHeight) centre(state.cursor.y, state.cursor.x);
}

function draw() {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  if (!state.volume) return;
  context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.left, ratio * view.top);
  context.imageSmoothingEnabled = view.scale < 1;
  layer(layers.image, state.show.image, 1);
  layer(layers.labels, state.show.labels, state.show.outlines ? 1 : state.alpha);
  layer(layers.uncertainty, state.show.uncertainty, 1);
  context.imageSmoothingEnabled = false;
  layer(layers.marks, state.show.marks, 0.85);
  drawStroke();
  drawCursor();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  drawScaleBar(width, height);
  document.body.dataset.frames = Number(document.body.dataset.frames || 0) + 1;
}

function layer(picture, shown, alpha) {
  if (!shown || !picture.ready) return;
  context.globalAlpha = alpha;
  context.drawImage(painted(picture), 0, 0);
  context.globalAlpha = 1;
}

function drawStroke() {
  if (!stroke.points.length) return;
  const [r, g, b] = stroke.value ? colour(stroke.value) : [120, 120, 120];
  context.strokeStyle = context.fillStyle = `rgba(${r}, ${g}, ${b}, 0.85)`;
  context.lineWidth = stroke.width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  const [[y, x], ...rest] = stroke.points;
  if (rest.length) {
    context.moveTo(x, y);
    for (const [py, px] of rest) context.lineTo(px, py);
    context.stroke();
  } else {
    context.arc(x, y, stroke.width / 2, 0, 2 * Math.PI);
    context.fill();
  }
}

function drawCursor() {
  const { y, x } = state.cursor;
  const radius = Math.max(state.width / 2, 1 / view.scale);
  for (const [style, width] of [["#000", 3], [state.value ? `rgb(${colour(state.value)})` : "#fff", 1.5]]) {
    context.strokeStyle = style;
    context.lineWidth = width / view.scale;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.moveTo(x - 3 / view.scale, y);
    context.lineTo(x + 3 / view.scale, y);
    context.moveTo(x, y - 3 / view.scale);
    context.lineTo(x, y + 3 / view.scale);
    context.stroke();
  }
}

export function niceLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map((step) => step * power).find((length) => length <= most) || power;
}

function drawScaleBar(width, height) {
  const voxel = state.volume.voxel;
  const unit = voxel ? voxel[2] : 1;
  const length = niceLength((Math.min(width / 4, 180) / view.scale) * unit);
  const pixels = (length / unit) * view.scale;
  const text = !voxel ? `${+length.toPrecision(3)} px` : length >= 1000 ? `${+(length / 1000).toPrecision(3)} µm` : `${+length.toPrecision(3)} nm`;
  const x = width - 20 - pixels, y = height - 18;
  context.fillStyle = "#0009";
  context.fillRect(x - 8, y - 24, pixels + 16, 34);
  context.fillStyle = "#fff";
  context.fillRect(x, y, pixels, 4);
  context.font = "13px system-ui, 'DejaVu Sans', sans-serif";
  context.textAlign = "center";
  context.fillText(text, x + pixels / 2, y - 6);
}

export function size() {
  if (view.moved) redraw();
  else fit(); // a plane that fitted the window fits it again
}

new ResizeObserver(size).observe(byId("frame"));
on("redraw", redraw);
on("volume", () => {
  if (!view.fitted) fit();
});
on("marks-shown", () => {
  if (stroke.waiting) {
    stroke.points = [];
    stroke.waiting = false;
  }
});
export { canvas };
