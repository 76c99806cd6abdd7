// The model in a thread of its own, so that the page stays alive while it computes.
//
// From the page: {do: "open", folder, variant} once, then {do: "generate", prompt, settings} and {do: "stop"}.
// To the page: {is: "loading"|"ready"|"accepted"|"step"|"done"|"failed", ...}.

import { ArtifactError, PickedFolder, readManifest, UrlFolder } from "./folder.js";
import { engine, openModel, threadCount } from "./model.js";
import { choose, likeliest, randomFrom, softmax } from "./sampling.js";
import { openText, Stop } from "./text.js";

const SHOWN = 5;
let model, text;
let stopped = false;

/** Lets messages in: a computation in WebAssembly holds the thread until it ends. */
const turn = new MessageChannel();
const breathe = () => new Promise(done => {
  turn.port1.onmessage = done;
  turn.port2.postMessage(null);
});

async function open({ folder, variant }) {
  const files = folder.files ? new PickedFolder(folder.files) : new UrlFolder(folder.base);
  const manifest = await readManifest(files);
  const begun = performance.now();
  text = await openText(files, manifest);
  let told = 0;
  model = await openModel(files, manifest, variant, share => {
    if (share < 1 && share - told < 0.01) return;
    told = share;
    postMessage({ is: "loading", share });
  });
  const seconds = (performance.now() - begun) / 1000;
  postMessage({ is: "ready", engine, seconds, threads: threadCount(), unit: text.unit, sizeBytes: model.sizeBytes });
}

async function generate({ prompt, settings }) {
  stopped = false;
  const ids = promptIds(prompt);
  postMessage({ is: "accepted", prompt });
  const sequence = model.sequence(), stream = text.stream();
  const stop = new Stop(settings.stop), random = randomFrom(settings.seed);
  const begun = performance.now();
  let first = null, reason = "length", next = ids, count = 0;
  while (count < settings.count) {
    if (ids.length + count > model.contextLength) {
      reason = "context";
      break;
    }
    const logits = await sequence.feed(next, () => stopped);
    await breathe();
    if (stopped || !logits) {
      reason = "stopped";
      break;
    }
    const id = choose(logits, settings, random);
    first ??= performance.now();
    count++;
    const ended = text.ends.has(id);
    const piece = ended ? "" : stop.feed(stream.feed(id));
    postMessage({ is: "step", ...describe(id, logits), piece, ended, speed: speed(begun, first, count) });
    if (ended || stop.ended) {
      reason = ended ? "end" : "stop";
      break;
    }
    next = [id];
  }
  const waiting = reason === "stop" ? "" : stop.feed(stream.end()) + stop.end();
  postMessage({ is: "done", reason, piece: waiting, contextLength: model.contextLength });
}

function promptIds(prompt) {
  const ids = text.encode(prompt);
  if (!ids.length) throw new ArtifactError("The prompt is empty; type at least one character.");
  if (ids.length > model.contextLength) {
    throw new ArtifactError(`The prompt has ${ids.length} tokens, the model's context ${model.contextLength}; shorten it.`);
  }
  return ids;
}

function describe(id, logits) {
  const probability = softmax(logits);
  const top = likeliest(logits, SHOWN).map(other => ({ id: other, text: text.show(other), probability: probability(other) }));
  return { id, text: text.show(id), probability: probability(id), top };
}

/** Milliseconds to the first token, and tokens a second after it. */
function speed(begun, first, count) {
  const seconds = (performance.now() - first) / 1000;
  return { firstMs: first - begun, perSecond: count > 1 && seconds > 0 ? (count - 1) / seconds : null };
}

const calls = { open, generate, stop: () => void (stopped = true) };

addEventListener("message", async ({ data }) => {
  try {
    await calls[data.do](data);
  } catch (error) {
    const message = error instanceof ArtifactError ? error.message : explain(error);
    postMessage({ is: "failed", message });
  }
});

function explain(error) {
  const what = error?.message ?? String(error);
  return /memory|allocation/i.test(what)
    ? "The model does not fit in the memory that this browser gives WebAssembly; open a smaller variant."
    : `The model could not be run: ${what.replace(/\.?\s*$/, "")}; choose another variant or load the page again.`;
}
