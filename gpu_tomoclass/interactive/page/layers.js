// The plane in view as pictures of its own size: grey values, strokes, labels, uncertainty.
import { spread } from "./decode.js";
import { on, state, tell } from "./state.js";

function picture(paint) {
  const canvas = document.createElement("canvas");
  return { canvas, context: canvas.getContext("2d"), data: null, ready: false, stale: false, paint };
}

export const layers = {
  image: picture(paintGrey), marks: picture(paintMarks), labels: picture(paintLabels), uncertainty: picture(paintUncertainty),
};
export const values = { image: null, marks: null, labels: null, uncertainty: null, labelsOf: -1 };
const runs = { marks: null, labels: null }; // as they came: they are painted faster than pixels
const planes = new Map(); // z -> grey bytes; the last ones seen
const MOST_PLANES = 12;

export function hasPlane(z) {
  return planes.has(z);
}

export function showPlane(z) {
  values.image = planes.get(z) || null;
  values.marks = values.labels = values.uncertainty = null;
  for (const layer of Object.values(layers)) layer.ready = layer.stale = false;
  if (values.image) repaint("image");
  else tell("redraw");
}

// What has changed is painted when it is drawn: several changes cost one painting, and what is hidden none.
export function repaint(...names) {
  for (const name of names) {
    layers[name].stale = layers[name].ready = Boolean(values[name]);
  }
  tell("redraw");
}

export function painted(layer) {
  if (layer.stale) layer.paint();
  layer.stale = false;
  return layer.canvas;
}

function room(layer, shape) {
  const [ny, nx] = shape;
  if (layer.canvas.width !== nx || layer.canvas.height !== ny || !layer.data) {
    layer.canvas.width = nx;
    layer.canvas.height = ny;
    layer.data = layer.context.createImageData(nx, ny);
  }
  return new Uint32Array(layer.data.data.buffer);
}

function put(layer) {
  layer.context.putImageData(layer.data, 0, 0);
}

function paintGrey() {
  const pixels = room(layers.image, state.volume.shape.slice(1)), grey = values.image;
  const table = new Uint32Array(256);
  const span = Math.max(1, state.white - state.black);
  for (let i = 0; i < 256; i++) {
    const level = Math.max(0, Math.min(255, Math.round((255 * (i - state.black)) / span)));
    table[i] = 0xff000000 | (level << 16) | (level << 8) | level;
  }
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[grey[i]];
  put(layers.image);
}

function colours() {
  const table = new Uint32Array(256);
  for (const c of state.classes) {
    const [r, g, b] = c.colour;
    table[c.value] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  return table;
}

function paintRuns(name) {
  spread(runs[name], room(layers[name], state.volume.shape.slice(1)), colours());
  put(layers[name]);
}

function paintMarks() {
  paintRuns("marks");
}

function paintLabels() {
  const [ny, nx] = state.volume.shape.slice(1);
  const labels = values.labels;
  if (!state.show.outlines) {
    paintRuns("labels");
    return;
  }
  const pixels = room(layers.labels, [ny, nx]), table = colours();
  pixels.fill(0);
  for (let y = 0, i = 0; y < ny; y++) {
    for (let x = 0; x < nx; x++, i++) {
      const edge = (x + 1 < nx && labels[i + 1] !== labels[i]) || (x > 0 && labels[i - 1] !== labels[i]) ||
        (y + 1 < ny && labels[i + nx] !== labels[i]) || (y > 0 && labels[i - nx] !== labels[i]);
      if (edge) pixels[i] = table[labels[i]];
    }
  }
  put(layers.labels);
}

// From nothing over violet to yellow, as in the colour map plasma: its lightness rises with uncertainty.
const RAMP = [[0, 13, 8, 135], [90, 156, 23, 158], [170, 237, 121, 83], [255, 240, 249, 33]];

function paintUncertainty() {
  const pixels = room(layers.uncertainty, state.volume.shape.slice(1)), uncertainty = values.uncertainty;
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const k = RAMP.findIndex((step, j) => j > 0 && i <= step[0]);
    const t = (i - RAMP[k - 1][0]) / (RAMP[k][0] - RAMP[k - 1][0]);
    const [r, g, b] = [1, 2, 3].map((c) => Math.round(RAMP[k - 1][c] + t * (RAMP[k][c] - RAMP[k - 1][c])));
    const opacity = Math.min(230, Math.round(i * 1.4));
    table[i] = ((opacity << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[uncertainty[i]];
  put(layers.uncertainty);
}

on("plane", ({ header, parts }) => {
  planes.delete(header.z);
  planes.set(header.z, parts[0]);
  if (planes.size > MOST_PLANES) planes.delete(planes.keys().next().value);
  if (header.z !== state.z) return;
  values.image = parts[0];
  repaint("image");
});

on("marks", ({ header, ...message }) => {
  if (header.z !== state.z) return;
  ({ runs: runs.marks, values: values.marks } = message);
  repaint("marks");
  tell("marks-shown");
});

on("labels", ({ header, parts, ...message }) => {
  if (header.z !== state.z) return;
  ({ runs: runs.labels, values: values.labels } = message);
  values.uncertainty = parts[1];
  values.labelsOf = header.version;
  document.body.dataset.overlay = `${header.z}:${header.version}`; // for whoever drives the page
  repaint("labels", "uncertainty");
});

let seen = "";
on("state", () => {
  const now = JSON.stringify(state.classes);
  if (now !== seen) repaint("marks", "labels");
  seen = now;
});

