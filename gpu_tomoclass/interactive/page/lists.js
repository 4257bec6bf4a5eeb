// Scores, strokes and suggestions, and what the background is doing.
import { values } from "./layers.js";
import { jump } from "./planes.js";
import { ask } from "./socket.js";
import { byId, className, colour, on, refill, state, tell } from "./state.js";

const WORK = { features: "computing features", forest: "learning", plane: "classifying", check: "checking the model", score: "testing on held-out strokes", suggestions: "looking for places", cache: "keeping features" };
const scores = { oob: null, held: null, fit: null, seconds: null };
let connected = false, stranger = false, adapting = false, doing = "";

function patch(value) {
  const box = document.createElement("span");
  box.className = "patch";
  box.style.background = `rgb(${colour(value)})`;
  return box;
}

function showScores() {
  const rows = [];
  if (scores.held) {
    rows.push(["held-out Dice", scores.held.mean_dice === undefined ? "mark more" : scores.held.mean_dice.toFixed(3)]);
    for (const [value, dice] of Object.entries(scores.held.dice || {})) rows.push([`  ${className(Number(value))}`, dice === null ? "-" : dice.toFixed(3)]);
  }
  if (scores.oob !== null) rows.push(["out-of-bag error", `${(100 * scores.oob).toFixed(2)} %`]);
  if (scores.seconds !== null) rows.push(["stroke to overlay", `${scores.seconds.toFixed(2)} s`]);
  if (scores.fit) rows.push(["opened model", scores.fit.verdict]);
  byId("adapt").hidden = adapting || !(scores.fit && scores.fit.verdict !== "fits" && !scores.fit.reason);
  byId("scores").replaceChildren(...rows.flatMap(([name, value]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
  byId("scores").title = scores.held && scores.held.reason ? scores.held.reason
    : "Held-out: each stroke is classified by a forest that has not seen it. Out-of-bag is usually too good: pixels of one stroke resemble each other.";
}

function showLists() {
  refill(byId("suggestions"), state.suggestions.map((s) => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.textContent = `plane ${s.z}, y ${s.y}, x ${s.x}: ${s.uncertainty.toFixed(2)}`;
    button.addEventListener("click", () => jump(s));
    item.append(button);
    return item;
  }));
  byId("n-strokes").textContent = state.n_strokes ? `(${state.n_strokes})` : "";
  refill(byId("strokes"), state.strokes.map((s) => {
    const item = document.createElement("li"), go = document.createElement("button"), gone = document.createElement("button");
    go.append(patch(s.value), `plane ${s.z} ${className(s.value)} ${s.pixels} px`);
    go.addEventListener("click", () => jump(s));
    gone.textContent = "✕";
    gone.className = "delete";
    gone.setAttribute("aria-label", `Delete this stroke of ${className(s.value)} on plane ${s.z}`);
    gone.addEventListener("click", () => ask({ do: "delete", number: s.number }));
    item.append(go, gone);
    return item;
  }));
  byId("undo").disabled = !state.can_undo;
  byId("redo").disabled = !state.can_redo;
  byId("live").setAttribute("aria-pressed", state.live);
  byId("live").textContent = state.live ? "Live" : "Live is off";
}

function showWork() {
  const marked = Object.values(state.counts).filter(Boolean).length;
  const idle = marked > 1 || values.labels ? "up to date" : `mark ${marked ? "one more class" : "two classes"} to see labels`;
  byId("work").textContent = connected ? doing || idle : stranger
    ? "the server was started again: open the address that its terminal shows" : "no connection; trying again";
  byId("work").classList.toggle("busy", connected && Boolean(doing));
  byId("work").classList.toggle("lost", !connected);
}

on("state", () => {
  showWork();
  showLists();
  showScores();
});
on("trained", (data) => {
  scores.oob = data.oob_error;
  scores.fit = null; // what is shown is not the opened model's any more
  showScores();
});
on("score", (data) => {
  scores.held = data;
  document.body.dataset.score = data.version;
  showScores();
});
byId("adapt").addEventListener("click", () => {
  adapting = ask({ do: "adapt" });
  if (!adapting) return;
  showScores();
  tell("message", { text: "The model is being adapted to this volume.", fine: true });
});
on("fit", (data) => {
  scores.fit = data;
  adapting = false;
  if (data.reason) tell("message", { text: data.reason, fine: true });
  showScores();
});
on("trouble", () => {
  adapting = false; // or something else went wrong: then a click more is refused
  showScores();
});
on("overlay", (data) => {
  if (data.z === state.z && data.since_stroke !== null && data.since_stroke !== undefined) scores.seconds = data.since_stroke;
  showScores();
});
on("work", (data) => {
  const place = ["features", "plane", "cache"].includes(data.what) ? ` plane ${data.z}` : "";
  doing = data.what ? `${WORK[data.what] || data.what}${place}` : "";
  showWork();
  document.body.dataset.work = data.what;
});
on("connected", (now) => {
  connected = now;
  stranger = stranger && !now;
  showWork();
  document.body.dataset.connected = now;
});
on("stranger", () => {
  stranger = true; // until a connection comes
  showWork();
});
on("volume", () => {
  const v = state.volume;
  document.title = byId("title").textContent = v.name;
  const voxel = v.voxel ? `, voxel ${v.voxel.map((n) => +n.toPrecision(4)).join(" x ")} nm` : ", voxel size unknown";
  byId("facts").textContent = `${v.shape.join(" x ")} (z, y, x) ${v.dtype}${voxel}`;
  const short = (path) => path.split(/[\\/]/).pop();
  byId("targets").textContent = `${short(v.targets.model)}, ${short(v.targets.labels)}`;
  byId("targets").title = `${v.targets.model}\n${v.targets.labels}`;
});
