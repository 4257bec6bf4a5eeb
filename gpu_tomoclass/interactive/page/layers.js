// The plane in view as pictures of its own size: grey values, strokes, labels, uncertainty.
import { fromRuns } from "./decode.js";
import { on, state, tell } from "./state.js";

function picture() {
  const canvas = document.createElement("canvas");
  return { canvas, context: canvas.getContext("2d"), data: null, ready: false };
}

export const layers = { image: picture(), marks: picture(), labels: picture(), uncertainty: picture() };
export const values = { grey: null, marks: null, labels: null, uncertainty: null, labelsOf: -1 };
const planes = new Map(); // z -> grey bytes; the last ones seen
const MOST_PLANES = 12;

export function hasPlane(z) {
  return planes.has(z);
}

export function showPlane(z) {
  values.grey = planes.get(z) || null;
  values.marks = values.labels = values.uncertainty = null;
  layers.marks.ready = layers.labels.ready = layers.uncertainty.ready = false;
  if (values.grey) paintGrey();
  else layers.image.ready = false;
  tell("redraw");
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
  layer.ready = true;
}

function paintGrey() {
  const pixels = room(layers.image, state.volume.shape.slice(1));
  const table = new Uint32Array(256);
  const span = Math.max(1, state.white - state.black);
  for (let i = 0; i < 256; i++) {
    const grey = Math.max(0, Math.min(255, Math.round((255 * (i - state.black)) / span)));
    table[i] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[values.grey[i]];
  put(layers.image);
}

function colours(opacity) {
  const table = new Uint32Array(256);
  for (const c of state.classes) {
    const [r, g, b] = c.colour;
    table[c.value] = ((opacity << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  return table;
}

function paintMarks() {
  const pixels = room(layers.marks, state.volume.shape.slice(1));
  const table = colours(255);
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[values.marks[i]];
  put(layers.marks);
}

function paintLabels() {
  const [ny, nx] = state.volume.shape.slice(1);
  const pixels = room(layers.labels, [ny, nx]);
  const table = colours(255);
  const labels = values.labels;
  if (!state.show.outlines) {
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[labels[i]];
  } else {
    pixels.fill(0);
    for (let y = 0, i = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, i++) {
        const edge = (x + 1 < nx && labels[i + 1] !== labels[i]) || (x > 0 && labels[i - 1] !== labels[i]) ||
          (y + 1 < ny && labels[i + nx] !== labels[i]) || (y > 0 && labels[i - nx] !== labels[i]);
        if (edge) pixels[i] = table[labels[i]];
      }
    }
  }
  put(layers.labels);
}

// From nothing over violet to yellow, as in the colour map plasma: its lightness rises with uncertainty.
const RAMP = [[0, 13, 8, 135], [90, 156, 23, 158], [170, 237, 121, 83], [255, 240, 249, 33]];

function paintUncertainty() {
  const pixels = room(layers.uncertainty, state.volume.shape.slice(1));
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const k = RAMP.findIndex((step, j) => j > 0 && i <= step[0]);
    const t = (i - RAMP[k - 1][0]) / (RAMP[k][0] - RAMP[k - 1][0]);
    const [r, g, b] = [1, 2, 3].map((c) => Math.round(RAMP[k - 1][c] + t * (RAMP[k][c] - RAMP[k - 1][c])));
    const opacity = Math.min(230, Math.round(i * 1.4));
    table[i] = ((opacity << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  for (let i = 0; i < pixels.length; i++) pixels[i] = table[values.uncertainty[i]];
  put(layers.uncertainty);
}

export function repaint() {
  if (values.grey) paintGrey();
  if (values.marks) paintMarks();
  if (values.labels) paintLabels();
  if (values.uncertainty && state.show.uncertainty) paintUncertainty();
  tell("redraw");
}

on("plane", ({ header, parts }) => {
  planes.delete(header.z);
  planes.set(header.z, parts[0]);
  if (planes.size > MOST_PLANES) planes.delete(planes.keys().next().value);
  if (header.z !== state.z) return;
  values.grey = parts[0];
  paintGrey();
  tell("redraw");
});

on("marks", ({ header, parts }) => {
  if (header.z !== state.z) return;
  values.marks = fromRuns(parts[0], header.shape[0] * header.shape[1]);
  paintMarks();
  tell("marks-shown");
  tell("redraw");
});

on("labels", ({ header, parts }) => {
  if (header.z !== state.z) return;
  values.labels = fromRuns(parts[0], header.shape[0] * header.shape[1]);
  values.uncertainty = parts[1];
  values.labelsOf = header.version;
  paintLabels();
  layers.uncertainty.ready = false;
  if (state.show.uncertainty) paintUncertainty(); // else when it is asked for
  document.body.dataset.overlay = `${header.z}:${header.version}`; // for whoever drives the page
  tell("redraw");
});

let seen = "";
on("state", () => {
  const now = JSON.stringify(state.classes);
  if (now !== seen) repaint();
  seen = now;
});

