// Runs the generator beside the page, so that drawing never stops a finger or a scroll.
import createFluxion from "./fluxion-web.js";

let fluxion = null;

function open(bytes) {
  const place = fluxion._malloc(bytes.byteLength);
  if (!place) throw new Error("the file does not fit into memory");
  fluxion.HEAPU8.set(new Uint8Array(bytes), place);
  const failed = fluxion._web_open(place, bytes.byteLength);
  fluxion._free(place);
  if (failed) throw new Error(fluxion.UTF8ToString(fluxion._web_message()));
  const classes = fluxion._web_classes();
  const names = [];
  for (let i = 0; i < classes; ++i) {
    const name = fluxion.UTF8ToString(fluxion._web_class_name(i));
    names.push(name || String(i));
  }
  return {
    height: fluxion._web_height(),
    width: fluxion._web_width(),
    channels: fluxion._web_channels(),
    names,
    version: fluxion.UTF8ToString(fluxion._web_version()),
  };
}

function draw({ seed, other, mix, chosen, count }) {
  const start = performance.now();
  if (fluxion._web_draw(seed, other, mix, chosen, count))
    throw new Error(fluxion.UTF8ToString(fluxion._web_message()));
  const milliseconds = performance.now() - start;
  const bytes = count * fluxion._web_height() * fluxion._web_width() * fluxion._web_channels();
  const place = fluxion._web_pixels();
  return { pixels: fluxion.HEAPU8.slice(place, place + bytes), milliseconds };
}

onmessage = async ({ data }) => {
  try {
    fluxion ??= await createFluxion();
    const result = data.kind === "open" ? open(data.bytes) : draw(data);
    postMessage({ ...result, id: data.id });
  } catch (error) {
    postMessage({ error: error.message ?? String(error), id: data.id });
  }
};
