// A graph of an artifact in onnxruntime-web: ids in, the last position's logits out, the cache kept in between.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { ArtifactError, readVerified } from "./folder.js";

/** Prompts are read this many tokens at a time: a position's logits take 200 kB for GPT-2's vocabulary. */
const CHUNK = 32;

const PAST = "past_key_values.";

/** How many threads WebAssembly gets: they need shared memory, which a page has only if its server sends for it. */
export function threadCount() {
  const cores = navigator.hardwareConcurrency ?? 1;
  return globalThis.crossOriginIsolated ? Math.min(8, cores <= 4 ? cores : Math.ceil(cores / 2)) : 1;
}

export const engine = `onnxruntime-web ${ort.env.versions.web}`;

/** A model that is ready; `onProgress` is told the share of bytes that have come. */
export async function openModel(folder, manifest, name, onProgress) {
  const variant = manifest.variants[name];
  if (!variant) {
    throw new ArtifactError(`The artifact has no variant “${name}”; it has ${Object.keys(manifest.variants).join(", ")}.`);
  }
  const paths = [variant.path, `${variant.path}_data`].filter(path => path in manifest.files);
  const sizes = paths.map(path => manifest.files[path].size_bytes);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const bytes = [];
  let before = 0;
  for (const [i, path] of paths.entries()) {
    bytes.push(await readVerified(folder, manifest, path, read => onProgress((before + read) / total)));
    before += sizes[i];
  }
  ort.env.wasm.numThreads = threadCount();
  const externalData = paths.slice(1).map((path, i) => ({ path: path.split("/").at(-1), data: bytes[i + 1] }));
  const options = { executionProviders: ["wasm"], externalData, logSeverityLevel: 3 }; // 3: errors
  const session = await ort.InferenceSession.create(bytes[0], options);
  return new Model(session, variant, manifest.model.context_length, total);
}

class Model {
  constructor(session, variant, contextLength, sizeBytes) {
    this.session = session;
    this.variant = variant;
    this.contextLength = contextLength;
    this.sizeBytes = sizeBytes;
  }

  /** A new sequence, of no token yet. */
  sequence() {
    return this.variant.cache ? new CachedSequence(this) : new WholeSequence(this);
  }
}

/** A sequence whose keys and values are kept: each step reads the new tokens alone. */
class CachedSequence {
  #session;
  #past;
  #length = 0;

  constructor({ session, variant }) {
    this.#session = session;
    const type = variant.cache_dtype ?? "float32";
    const numbers = { float16: Uint16Array, int8: Int8Array }[type] ?? Float32Array;
    const empty = dims => new ort.Tensor(type, new numbers(0), dims);
    const past = variant.inputs.filter(({ name }) => name.startsWith(PAST));
    this.#past = new Map(past.map(({ name, dims }) => [name.slice(PAST.length), empty([1, dims[1], 0, dims[3]])]));
  }

  /** The logits behind the last of `ids`, which are appended. */
  async feed(ids, stopped = () => false) {
    let logits = null;
    for (let at = 0; at < ids.length && !stopped(); at += CHUNK) {
      logits = await this.#step(ids.slice(at, at + CHUNK), at + CHUNK >= ids.length);
    }
    return logits;
  }

  async #step(ids, last) {
    const feeds = {
      input_ids: int64(ids, [1, ids.length]),
      attention_mask: int64(Array(this.#length + ids.length).fill(1), [1, this.#length + ids.length]),
      position_ids: int64(ids.map((_, i) => this.#length + i), [1, ids.length]),
    };
    for (const [name, tensor] of this.#past) feeds[PAST + name] = tensor;
    const wanted = [...(last ? ["logits"] : []), ...Array.from(this.#past.keys(), name => `present.${name}`)];
    const found = await this.#session.run(feeds, wanted);
    for (const name of this.#past.keys()) this.#past.set(name, found[`present.${name}`]); // the tensor itself, no copy
    this.#length += ids.length;
    return last ? lastLogits(found.logits) : null;
  }
}

/** A sequence of a graph without a cache: each step reads all of it. */
class WholeSequence {
  #session;
  #ids = [];

  constructor({ session }) {
    this.#session = session;
  }

  async feed(ids) {
    this.#ids.push(...ids);
    const [input] = this.#session.inputNames;
    const found = await this.#session.run({ [input]: int64(this.#ids, [1, this.#ids.length]) });
    return lastLogits(found[this.#session.outputNames[0]]);
  }
}

function int64(values, dims) {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
}

/** The last position's logits as float32, of a tensor [1, positions, vocabulary]. */
function lastLogits({ data, dims, type }) {
  const last = data.subarray(data.length - dims.at(-1));
  return type === "float16" ? Float32Array.from(last, data instanceof Uint16Array ? fromHalf : Number) : last;
}

/** A float16 from its bits (IEEE 754), for browsers without Float16Array. */
function fromHalf(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent === 31 ? (fraction ? NaN : Infinity)
    : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return bits & 0x8000 ? -size : size;
}
