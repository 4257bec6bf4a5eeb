// What the page knows, and who wants to be told when a part of it changes.
export const state = {
  volume: null, // name, shape, voxel, planes, limits, contrast
  classes: [], counts: {}, strokes: [], marked: [], suggestions: [],
  live: true, version: 0, can_undo: false, can_redo: false,
  z: 0, value: 1, width: 5, depth: 0,
  cursor: { y: 0, x: 0 }, // in pixels of the plane
  show: { image: true, marks: true, labels: true, outlines: false, uncertainty: false, sections: false },
  alpha: 0.4, black: 0, white: 255,
};

const listeners = new Map();

export function on(topic, listener) {
  if (!listeners.has(topic)) listeners.set(topic, []);
  listeners.get(topic).push(listener);
}

export function tell(topic, data) {
  for (const listener of listeners.get(topic) || []) listener(data);
}

export const byId = (id) => document.getElementById(id);

// New rows for a list; who is in it by the keyboard stays at the same place.
export function refill(list, rows) {
  const reached = () => [...list.querySelectorAll("button, input")];
  const place = reached().indexOf(document.activeElement);
  list.replaceChildren(...rows);
  const now = reached();
  if (place >= 0 && now.length) now[Math.min(place, now.length - 1)].focus({ preventScroll: true });
}

export function colour(value) {
  const found = state.classes.find((c) => c.value === value);
  return found ? found.colour : [255, 255, 255];
}

export function className(value) {
  const found = state.classes.find((c) => c.value === value);
  return found ? found.name : value === 0 ? "unlabelled" : `class ${value}`;
}
