// The classes: which one is painted, their names and colours.
import { ask } from "./socket.js";
import { byId, className, on, refill, state } from "./state.js";
import { redraw } from "./view.js";

// Okabe and Ito's colours, which colour-blind people tell apart.
const COLOURS = [[0, 114, 178], [230, 159, 0], [0, 158, 115], [213, 94, 0], [204, 121, 167], [86, 180, 233], [240, 228, 66], [60, 60, 60]];

export function choose(value) {
  if (value && !state.classes.some((c) => c.value === value)) return;
  state.value = value;
  show();
  redraw();
}

function hex(colour) {
  return `#${colour.map((v) => v.toString(16).padStart(2, "0")).join("")}`;
}

function change(value, what) {
  ask({ do: "classes", classes: state.classes.map((c) => (c.value === value ? { ...c, ...what } : c)) });
}

function remove(c) {
  const rest = state.classes.filter((other) => other.value !== c.value);
  if (!state.counts[c.value] && state.value === c.value && rest.length) choose(rest[0].value);
  ask({ do: "classes", classes: rest }); // refused by name if it has strokes
}

function show() {
  byId("eraser").setAttribute("aria-pressed", state.value === 0);
  for (const item of byId("classes").children) {
    item.classList.toggle("chosen", Number(item.dataset.value) === state.value);
    item.firstChild.setAttribute("aria-pressed", Number(item.dataset.value) === state.value);
  }
}

function row(c) {
  const item = document.createElement("li");
  item.dataset.value = c.value;
  const key = document.createElement("button");
  key.textContent = c.value;
  key.title = c.value < 10 ? `Paint ${c.name} (${c.value})` : `Paint ${c.name}`;
  key.addEventListener("click", () => choose(c.value));
  const tint = document.createElement("input");
  tint.type = "color";
  tint.value = hex(c.colour);
  tint.setAttribute("aria-label", `Colour of ${c.name}`);
  tint.addEventListener("change", () => change(c.value, { colour: [1, 3, 5].map((i) => parseInt(tint.value.slice(i, i + 2), 16)) }));
  const name = document.createElement("input");
  name.type = "text";
  name.value = c.name;
  name.setAttribute("aria-label", `Name of class ${c.value}`);
  name.addEventListener("focus", () => choose(c.value));
  name.addEventListener("change", () => change(c.value, { name: name.value }));
  name.addEventListener("keydown", (event) => event.key === "Enter" && name.blur());
  const n = document.createElement("span");
  n.className = "n";
  n.textContent = 0;
  n.title = "marked pixels";
  const gone = document.createElement("button");
  gone.textContent = "✕";
  gone.className = "delete";
  gone.setAttribute("aria-label", `Remove class ${c.name}`);
  gone.addEventListener("click", () => remove(c));
  item.append(key, tint, name, n, gone);
  return item;
}

let shown = "";
function fill() {
  shown = JSON.stringify(state.classes);
  refill(byId("classes"), state.classes.map(row));
}

on("state", () => {
  const inText = byId("classes").contains(document.activeElement) && document.activeElement.type === "text";
  if (!inText && shown !== JSON.stringify(state.classes)) fill();
  for (const item of byId("classes").children) {
    const n = state.counts[item.dataset.value] || 0, name = className(Number(item.dataset.value));
    item.querySelector(".n").textContent = n;
    item.querySelector(".delete").title = n ? `${name} has strokes: erase them before it is removed` : `Remove ${name}`;
  }
  show();
});
on("trouble", () => { // a name that was refused is taken back
  for (const item of byId("classes").children) {
    const name = item.querySelector("input[type=text]");
    if (name !== document.activeElement) name.value = className(Number(item.dataset.value));
  }
});
byId("class-add").addEventListener("click", () => {
  const value = 1 + Math.max(0, ...state.classes.map((c) => c.value));
  const colour = COLOURS[(value - 1) % COLOURS.length];
  ask({ do: "classes", classes: [...state.classes, { value, name: `class ${value}`, colour }] });
});
byId("eraser").addEventListener("click", () => choose(0));
