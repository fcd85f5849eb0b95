// The page: sliders and buttons say what to draw, the worker draws, the canvases show it.
const worker = new Worker("./worker.js", { type: "module" });
const waiting = new Map();
let calls = 0;

function ask(message, transfer = []) {
  return new Promise((resolve, reject) => {
    const id = ++calls;
    waiting.set(id, { resolve, reject });
    worker.postMessage({ ...message, id }, transfer);
  });
}
worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error) reject(new Error(data.error));
  else resolve(data);
};
worker.onerror = (event) => fail(new Error(event.message || "this browser can't run the program"));

const $ = (id) => document.getElementById(id);
const most = 20; // images in "one of each"
let model = null, chosen = 0, walking = false, drawing = false, again = false, planned = false, undrawn = false;
const times = [];

function fail(error) {
  $("status").textContent = error.message;
  $("status").className = "error";
  $("status").hidden = false;
  document.documentElement.dataset.state = "failed";
}

function paint(canvas, pixels, first) {
  const { height, width, channels } = model;
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; ++i) {
    for (let c = 0; c < 3; ++c)
      image.data[4 * i + c] = pixels[first + channels * i + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// One drawing at a time; what changes meanwhile is drawn after it.
async function draw() {
  if (drawing) {
    again = true;
    return;
  }
  drawing = true;
  try {
    do {
      again = false;
      const value = Number($("seed").value), seed = Math.floor(value);
      $("seed-text").textContent = walking || value !== seed ? value.toFixed(2) : seed;
      const noise = { kind: "draw", seed, other: seed + 1, mix: value - seed };
      const one = await ask({ ...noise, chosen, count: 1 });
      paint($("image"), one.pixels, 0);
      // The first drawing of a model plans it as well.
      if (planned) times.push(one.milliseconds);
      if (times.length > 21) times.shift();
      const median = [...times].sort((a, b) => a - b)[times.length >> 1];
      $("time").textContent = planned
        ? `${median.toFixed(1)} ms an image`
        : `${one.milliseconds.toFixed(0)} ms the first image, with planning`;
      planned = true;
      if (!walking) {
        const count = Math.min(most, Math.max(model.names.length, 1));
        const all = await ask({ ...noise, chosen: 0, count });
        const size = all.pixels.length / count;
        [...$("all").children].forEach((canvas, i) => paint(canvas, all.pixels, i * size));
      }
    } while (again);
    // What else went wrong stays to be read.
    if (undrawn) $("status").hidden = true;
    undrawn = false;
    document.documentElement.dataset.state = "drawn";
  } catch (error) {
    undrawn = true;
    fail(error);
  } finally {
    drawing = false;
  }
}

function choose(number) {
  chosen = number;
  [...$("classes").querySelectorAll("button")].forEach((button, i) =>
    button.setAttribute("aria-pressed", i === number));
  draw();
}

async function open(bytes) {
  model = await ask({ kind: "open", bytes }, [bytes]);
  $("status").hidden = true;
  document.querySelector(".work").hidden = false;
  $("classes").querySelectorAll("button").forEach((button) => button.remove());
  $("classes").hidden = model.names.length === 0;
  model.names.slice(0, 200).forEach((name, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.onclick = () => choose(i);
    $("classes").append(button);
  });
  $("all").replaceChildren();
  for (let i = 0; i < Math.min(most, Math.max(model.names.length, 1)); ++i) {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-label", model.names[i] ?? "a sample");
    $("all").append(canvas);
  }
  times.length = 0;
  planned = false;
  choose(Math.min(3, Math.max(model.names.length - 1, 0)));
}

function walk() {
  if (!walking) return;
  if (!drawing) {
    const next = Number($("seed").value) + 0.05;
    $("seed").value = next > 999 ? 0 : next;
    draw();
  }
  requestAnimationFrame(walk);
}

$("seed").oninput = draw;
$("next").onclick = () => {
  $("seed").value = Math.floor(Math.random() * 1000);
  draw();
};
$("walk").onclick = () => {
  walking = !walking;
  $("walk").setAttribute("aria-pressed", walking);
  if (walking) walk();
  else draw();
};
let own = false; // a file of the visitor's is open, or about to be
$("file").onchange = async ({ target }) => {
  if (!target.files.length) return;
  own = true;
  try {
    await open(await target.files[0].arrayBuffer());
  } catch (error) {
    fail(error);
  }
};

const name = new URLSearchParams(location.search).get("model") ?? "generator.fxn";
try {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  const bytes = await response.arrayBuffer();
  if (!own) await open(bytes);
} catch (error) {
  if (!own) fail(error);
}
