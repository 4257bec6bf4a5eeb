// Binary messages of the server; the other end is messages.py.
const text = new TextDecoder();

export async function decode(buffer) {
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
  return { header, parts };
}

// null where nothing is labelled, which then need not be painted
export function fromRuns(part, n) {
  const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
  const count = view.getUint32(0, true);
  const values = part.subarray(4 + 4 * count);
  if (count === 1 && values[0] === 0) return null;
  const labels = new Uint8Array(n);
  let start = 0;
  for (let i = 0; i < count; i++) {
    const end = view.getUint32(4 + 4 * i, true);
    if (values[i]) labels.fill(values[i], start, end);
    start = end;
  }
  return labels;
}
