// A worker: messages are unpacked here, so that the page's own thread keeps drawing.
import { unpack } from "./decode.js";

onmessage = async ({ data: { number, buffer } }) => {
  try {
    const message = await unpack(buffer);
    const { parts, runs, values } = message;
    postMessage({ number, message }, [...new Set([parts[0], runs && runs.ends, values].filter(Boolean).map((array) => array.buffer))]);
  } catch (error) {
    postMessage({ number, error: String(error) });
  }
};
