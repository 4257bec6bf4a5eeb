// The one connection to the server; it comes back by itself.
import { state, tell } from "./state.js";

let socket = null;
let pause = 500;
let order = Promise.resolve(); // messages are handled in the order in which they came
let last = 0;
const unpacked = new Map(); // number -> who waits for it
const worker = new Worker(new URL("./unpack.js", import.meta.url), { type: "module" });
worker.onmessage = ({ data: { number, message, error } }) => {
  const [resolve, reject] = unpacked.get(number);
  unpacked.delete(number);
  if (error) reject(new Error(error));
  else resolve(message);
};

function unpack(buffer) {
  return new Promise((resolve, reject) => {
    unpacked.set(++last, [resolve, reject]);
    worker.postMessage({ number: last, buffer }, [buffer]);
  });
}

// Tells whether it could be sent.
export function ask(request) {
  const open = Boolean(socket) && socket.readyState === WebSocket.OPEN;
  if (open) socket.send(JSON.stringify(request));
  else tell("message", { text: "There is no connection to the server: nothing was done." });
  return open;
}

// A server that was started again has another secret: only its own address lets a page in.
async function isStranger() {
  try {
    return (await fetch(location.href, { method: "HEAD", cache: "no-store" })).status === 403;
  } catch {
    return false; // nobody listens
  }
}

export function connect() {
  const address = new URL("talk", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.search = "";
  address.hash = "";
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    pause = 500;
    tell("connected", true);
  };
  socket.onclose = async () => {
    tell("connected", false);
    if (await isStranger()) tell("stranger");
    setTimeout(connect, pause);
    pause = Math.min(2 * pause, 8000);
  };
  socket.onmessage = (event) => {
    const ready = typeof event.data === "string" ? JSON.parse(event.data) : unpack(event.data);
    order = order.then(() => ready).then(take).catch((error) => console.error(error));
  };
}

function take(message) {
  if (message.header) {
    tell(message.header.kind, message);
    return;
  }
  const { kind, ...data } = message;
  if (kind === "volume") state.volume = data;
  if (kind === "state") Object.assign(state, data);
  tell(kind, data);
}
