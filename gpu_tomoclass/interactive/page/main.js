// Puts the parts together: switches, sliders and buttons that belong to no other part.
import "./brush.js";
import "./classes.js";
import "./files.js";
import "./keys.js";
import { repaint } from "./layers.js";
import "./lists.js";
import "./planes.js";
import { showSections } from "./sections.js";
import { ask, connect } from "./socket.js";
import { byId, on, state } from "./state.js";
import { redraw } from "./view.js";

for (const name of Object.keys(state.show)) {
  byId(`show-${name}`).addEventListener("change", (event) => {
    state.show[name] = event.target.checked;
    if (name === "outlines") repaint("labels");
    if (name === "sections") showSections(event.target.checked);
    redraw();
  });
}

function slide(id, take) {
  const input = byId(id);
  const now = () => {
    take(Number(input.value));
    redraw();
  };
  input.addEventListener("input", now);
  now();
}
slide("width", (n) => {
  state.width = n;
  byId("width-text").textContent = `${n} px`;
});
slide("depth", (n) => {
  state.depth = n;
  byId("depth-text").textContent = n ? `${n} planes above and below` : "this plane only";
});
slide("alpha", (n) => (state.alpha = n / 100));

for (const name of ["black", "white"]) {
  byId(name).addEventListener("input", (event) => {
    state[name] = Number(event.target.value);
    repaint("image");
  });
}
on("volume", () => {
  const [low, high] = state.volume.limits, grey = (v) => Math.round((255 * (v - low)) / (high - low || 1));
  [state.black, state.white] = state.volume.contrast.map(grey);
  byId("black").value = state.black;
  byId("white").value = state.white;
  repaint("image");
});

byId("undo").addEventListener("click", () => ask({ do: "undo" }));
byId("redo").addEventListener("click", () => ask({ do: "redo" }));
byId("live").addEventListener("click", () => ask({ do: "live", live: !state.live }));
byId("once").addEventListener("click", () => ask({ do: "once" }));

connect();
