// Binary messages of the server; the other end is messages.py. Used by the worker unpack.js, and runs by layers.js too.
const text = new TextDecoder();

export async function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(text.decode(new Uint8Array(buffer, 4, length)));
  const stream = new Blob([new Uint8Array(buffer, 4 + length)]).stream();
  const bytes = await new Response(stream.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
  const parts = [];
  let start = 0;
  for (const n of header.lengths) {
    parts.push(new Uint8Array(bytes, start, n));
    start += n;
  }
  if (!["marks", "labels"].includes(header.kind)) return { header, parts };
  const runs = readRuns(parts[0]), [ny, nx] = header.shape;
  return { header, parts, runs, values: runs && spread(runs, new Uint8Array(ny * nx)) };
}

// null where nothing is labelled, which then need not be painted
function readRuns(part) {
  const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
  const count = view.getUint32(0, true);
  const values = part.subarray(4 + 4 * count);
  if (count === 1 && values[0] === 0) return null;
  const ends = new Uint32Array(count);
  for (let i = 0; i < count; i++) ends[i] = view.getUint32(4 + 4 * i, true);
  return { ends, values };
}

const SHORT = 32; // pixels that are written faster one by one than by a call

export function spread({ ends, values }, pixels, table) {
  for (let i = 0, start = 0; i < ends.length; i++) {
    const end = ends[i], value = table ? table[values[i]] : values[i];
    if (end - start > SHORT) pixels.fill(value, start, end);
    else for (let at = start; at < end; at++) pixels[at] = value;
    start = end;
  }
  return pixels;
}
