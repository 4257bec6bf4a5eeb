// Saving, opening, classifying all planes, and the same as a command.
import { ask } from "./socket.js";
import { byId, on, tell } from "./state.js";

byId("save").addEventListener("click", () => ask({ do: "save" }));
byId("classify").addEventListener("click", () => ask({ do: "classify" }));
byId("stop").addEventListener("click", () => ask({ do: "stop" }));
byId("recipe").addEventListener("click", () => ask({ do: "recipe" }));

byId("open").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (!file) return;
  event.target.value = "";
  const address = new URL("open", location.href);
  address.search = new URLSearchParams({ name: file.name });
  try {
    const answer = await (await fetch(address, { method: "POST", body: file })).json();
    if (answer.error) tell("message", { text: `${file.name}: ${answer.error}` });
    else tell("message", { text: `${file.name} was opened: ${answer.opened}`, fine: true });
  } catch (error) {
    tell("message", { text: `${file.name} could not be sent: ${error.message}` });
  }
});

function running(now) {
  byId("classify").disabled = now;
  byId("stop").hidden = !now;
  byId("progress").hidden = !now;
}

on("classify", (data) => {
  const bar = byId("progress");
  bar.max = data.total;
  bar.value = data.done;
  bar.title = `${data.done} of ${data.total} planes`;
  running(!data.path && !data.error);
  if (data.path) {
    document.body.dataset.classified = data.path;
    tell("message", { text: `${data.total} planes are classified: ${data.path}`, fine: true });
  }
  if (data.error) tell("message", { text: data.error });
});
on("saved", (data) => tell("message", { text: `${data.what} saved: ${data.path}`, fine: true }));
on("recipe", (data) => {
  byId("recipe-command").value = data.command;
  byId("recipe-python").value = data.python;
  byId("recipe-copy").textContent = "Copy command";
  byId("recipe-box").showModal();
});
byId("recipe-copy").addEventListener("click", async () => {
  byId("recipe-command").select();
  try {
    await navigator.clipboard.writeText(byId("recipe-command").value);
  } catch {
    document.execCommand("copy"); // pages without https may not use the clipboard otherwise
  }
  byId("recipe-copy").textContent = "Copied";
});

const MOST = 4; // messages, lest they hide the plane
const SECONDS = { fine: 6, trouble: 20 };
on("message", ({ text, fine }) => {
  const item = document.createElement("li"), close = document.createElement("button");
  item.className = fine ? "fine" : "";
  item.append(text, close);
  close.textContent = "✕";
  close.setAttribute("aria-label", "Dismiss");
  close.addEventListener("click", () => item.remove());
  const shown = byId("messages");
  for (const other of [...shown.children]) if (other.dataset.text === text) other.remove();
  item.dataset.text = text;
  shown.append(item);
  while (shown.children.length > MOST) shown.firstChild.remove();
  setTimeout(() => item.remove(), 1000 * (fine ? SECONDS.fine : SECONDS.trouble));
});
on("trouble", (data) => tell("message", { text: data.message }));
on("note", (data) => tell("message", { text: data.message, fine: true }));
