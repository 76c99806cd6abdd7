// The page: reads the manifest, holds the worker that runs the model, and wires both to what is seen.

import { PickedFolder, readManifest, UrlFolder } from "./folder.js";
import { make, View } from "./view.js";

const el = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map(found => [found.id.replace(/-(\w)/g, (_, c) => c.toUpperCase()), found]),
);
const view = new View(el);
const ORDER = ["fp32", "fp16", "int8", "int4"]; // the manifest has its keys by the alphabet
const IDS = [6109, 3626, 6100, 345]; // "Every effort moves you", where the vocabulary is GPT-2's
const WHY = {
  stop: " — in front of the stop",
  end: " — the end of the text",
  stopped: " — stopped",
  context: " — the context is full",
  length: "",
};
const SAID = { stop: "In front of the stop.", end: "The text has ended.", stopped: "Stopped.", context: "The context is full.", length: "Done." };

let folder = { base: new URL("artifact/", location.href).href };
let manifest = null;
let worker = null;
let state = "loading"; // loading, ready, running, failed

function become(next) {
  state = next;
  const focused = document.activeElement;
  el.go.disabled = state !== "ready";
  el.goOn.disabled = state !== "ready" || !view.text();
  el.copy.disabled = !view.text();
  el.stop.disabled = state !== "running";
  if (focused === el.go && state === "running") el.stop.focus(); // a button that is disabled loses the keyboard
  if (focused === el.stop && state === "ready") el.go.focus();
  el.loading.hidden = state !== "loading";
  el.keys.hidden = state === "loading";
  el.output.setAttribute("aria-busy", String(state === "running"));
}

function fail(message) {
  el.error.textContent = message;
  el.error.hidden = false;
}

function say(text) {
  el.status.replaceChildren(make("p", {}, text));
}

/** Reads the manifest of `folder` and opens one of its variants. */
async function openFolder(wanted) {
  become("loading");
  el.error.hidden = true;
  try {
    manifest = await readManifest(folder.files ? new PickedFolder(folder.files) : new UrlFolder(folder.base));
  } catch (error) {
    fail(error.message);
    become("failed");
    return;
  }
  const place = name => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  const names = Object.keys(manifest.variants).sort((a, b) => place(a) - place(b));
  el.name.textContent = document.title = manifest.name;
  el.variant.replaceChildren(...names.map(name => new Option(`${name} (${megabytes(variantBytes(name))})`, name)));
  el.variant.value = names.includes(wanted) ? wanted : names[0];
  el.count.max = manifest.model.context_length;
  el.count.value = Math.min(el.count.value, el.count.max);
  showFacts();
  if (wanted && !names.includes(wanted)) fail(`The artifact has no variant “${wanted}”; it has ${names.join(", ")}.`);
  openVariant();
}

/** Opens the chosen variant in a new worker: the memory of WebAssembly grows and never shrinks. */
function openVariant() {
  worker?.terminate();
  become("loading");
  const name = el.variant.value;
  el.loadingWhat.textContent = `Loading ${name}, ${megabytes(variantBytes(name))}`;
  el.progress.removeAttribute("value");
  say(`Loading ${name}.`);
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const own = worker;
  own.addEventListener("message", ({ data }) => own === worker && on[data.is](data));
  own.addEventListener("error", event => {
    if (own !== worker) return;
    event.preventDefault();
    on.failed({ message: `The page's worker did not start (${event.message ?? "a file of it is missing"}); load the page again.` });
  });
  own.postMessage({ do: "open", folder, variant: name });
}

const on = {
  loading({ share }) {
    el.progress.value = share;
    if (share === 1) el.loadingWhat.textContent = `Preparing ${el.variant.value}`;
  },
  ready({ engine, seconds, threads, unit }) {
    el.promptLabel.textContent = unit === "ids" ? "Prompt, as token ids: this artifact has no tokenizer" : "Prompt";
    if (unit === "ids" && !/^[\d\s,]*$/.test(el.prompt.value)) {
      const known = IDS.every(id => id < manifest.model.vocab_size);
      el.prompt.value = known ? IDS.join(" ") : "0";
    }
    const several = threads === 1 ? "1 thread" : `${threads} threads`;
    el.engine.textContent = `${engine}, WebAssembly, ${several}. Loaded in ${seconds.toFixed(1)} s. The model runs in this browser; what you type is not sent anywhere.`;
    say("Ready.");
    become("ready");
  },
  accepted({ prompt }) {
    view.begin(prompt);
    say("Writing.");
  },
  step(step) {
    view.add(step);
  },
  done({ reason, piece }) {
    view.end(piece, WHY[reason]);
    el.status.append(make("p", {}, SAID[reason]));
    become("ready");
  },
  failed({ message }) {
    fail(message);
    become(state === "running" ? "ready" : "failed");
  },
};

const numberOrNull = field => (field.value === "" ? null : Number(field.value));

function generate() {
  if (state !== "ready") return;
  el.error.hidden = true; // whatever comes next is about this text, a field that is not filled in too
  if (!el.form.reportValidity()) return;
  become("running");
  const settings = {
    count: Number(el.count.value),
    temperature: Number(el.temperature.value),
    topK: numberOrNull(el.topK),
    topP: numberOrNull(el.topP),
    seed: numberOrNull(el.seed),
    stop: el.stopText.value,
  };
  worker.postMessage({ do: "generate", prompt: el.prompt.value, settings });
}

/** Takes the text that is there for the prompt, and continues it. */
function goOn() {
  if (state !== "ready" || !view.text()) return;
  el.prompt.value = view.text();
  generate();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(view.text());
    say("Copied.");
    el.copy.textContent = "Copied";
  } catch {
    el.copy.textContent = "Not allowed";
  }
  setTimeout(() => (el.copy.textContent = "Copy"), 1500);
}

function stop() {
  if (state === "running") worker.postMessage({ do: "stop" });
}

function showFacts() {
  const { model, parity } = manifest;
  const cache = manifest.variants[el.variant.value].cache;
  const facts = [
    ["Vocabulary", model.vocab_size.toLocaleString("en")],
    ["Context", model.context_length.toLocaleString("en")],
    ...(cache?.n_layers ? [["Layers", cache.n_layers], ["Heads", `${cache.n_heads} × ${cache.head_dim}`]] : []),
    ...(parity ? [["Parity with eager", verdict(parity)]] : []),
  ];
  el.facts.replaceChildren(...facts.map(([name, value]) => {
    const item = make("div");
    item.append(make("dt", {}, name), describe(value));
    return item;
  }));
}

/** Whether the artifact gave its model's logits, with a link to the report where the server has it. */
function verdict(parity) {
  const says = parity.passed ? "passed" : "failed";
  if (folder.files || !("report.html" in manifest.files)) return says;
  return make("a", { href: new URL("report.html", folder.base).href }, `${says}, see the report`);
}

function describe(value) {
  const dd = make("dd");
  dd.append(value);
  return dd;
}

function variantBytes(name) {
  const { path } = manifest.variants[name];
  return [path, `${path}_data`].reduce((sum, file) => sum + (manifest.files[file]?.size_bytes ?? 0), 0);
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

el.form.addEventListener("submit", event => {
  event.preventDefault();
  generate();
});
el.form.addEventListener("invalid", () => (el.error.hidden = true), true); // the browser's own word comes beside it
el.stop.addEventListener("click", stop);
el.goOn.addEventListener("click", goOn);
el.copy.addEventListener("click", copy);
el.variant.addEventListener("change", () => {
  el.error.hidden = true;
  showFacts();
  openVariant();
});
el.folder.addEventListener("change", () => {
  if (!el.folder.files.length) return;
  folder = { files: PickedFolder.of(el.folder.files).files };
  openFolder(null);
});
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate();
  if (event.key === "Escape") stop();
});

openFolder(new URLSearchParams(location.search).get("variant"));
