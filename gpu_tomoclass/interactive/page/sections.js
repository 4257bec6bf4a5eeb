// The other two sections through the cursor; a click in one goes there.
import { jump } from "./planes.js";
import { ask } from "./socket.js";
import { byId, on, state } from "./state.js";

const canvases = { y: byId("section-y"), x: byId("section-x") };
let step = 1, asked = 0;

export function showSections(shown) {
  byId("sections").hidden = !shown;
  request();
}

function request() {
  if (!state.show.sections || !state.volume) return;
  clearTimeout(asked);
  asked = setTimeout(() => {
    const [, ny, nx] = state.volume.shape;
    const y = Math.max(0, Math.min(ny - 1, Math.floor(state.cursor.y)));
    const x = Math.max(0, Math.min(nx - 1, Math.floor(state.cursor.x)));
    ask({ do: "section", y, x });
  }, 60);
}

on("section", ({ header, parts }) => {
  const canvas = canvases[header.axis], [nz, n] = header.shape;
  step = header.step;
  const voxel = state.volume.voxel || [1, 1, 1];
  const tall = voxel[0] / (header.axis === "y" ? voxel[2] : voxel[1]);
  const small = document.createElement("canvas");
  small.width = n;
  small.height = nz;
  const context = small.getContext("2d"), data = context.createImageData(n, nz);
  const span = Math.max(1, state.white - state.black);
  for (let i = 0; i < n * nz; i++) {
    const grey = Math.max(0, Math.min(255, (255 * (parts[0][i] - state.black)) / span));
    data.data.set([grey, grey, grey, 255], 4 * i);
  }
  context.putImageData(data, 0, 0);
  canvas.width = n;
  canvas.height = Math.max(1, Math.round(nz * tall));
  const shown = canvas.getContext("2d");
  shown.imageSmoothingEnabled = tall > 1;
  shown.drawImage(small, 0, 0, canvas.width, canvas.height);
  shown.fillStyle = "#56b4e9";
  shown.fillRect(0, (state.z / step + 0.5) * tall - 0.5, n, 1);
  const across = (header.axis === "y" ? state.cursor.x : state.cursor.y) / step;
  shown.fillRect(across - 0.5, 0, 1, canvas.height);
  byId(`caption-${header.axis}`).textContent =
    header.axis === "y" ? `y = ${Math.floor(state.cursor.y)}: z down, x right` : `x = ${Math.floor(state.cursor.x)}: z down, y right`;
});

for (const [axis, canvas] of Object.entries(canvases)) {
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const left = (box.width - canvas.width * scale) / 2, top = (box.height - canvas.height * scale) / 2;
    const across = ((event.clientX - box.left - left) / scale) * step;
    const down = (event.clientY - box.top - top) / scale / canvas.height;
    const wanted = down * state.volume.shape[0];
    const z = state.volume.planes.reduce((best, p) => (Math.abs(p - wanted) < Math.abs(best - wanted) ? p : best));
    jump(axis === "y" ? { z, y: Math.floor(state.cursor.y), x: across } : { z, y: across, x: Math.floor(state.cursor.x) });
    request();
  });
}

on("cursor", request);
on("looked", request);
on("overview", ({ done, total }) => {
  if (done === total || done % 20 === 0) request();
});
