// The next token from its logits, and what else it might have been.

/** The first id of the largest logit, as NumPy's argmax gives it. */
export function argmax(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** The `count` likeliest ids, the likeliest first; of equally likely ones the lower id. */
export function likeliest(logits, count) {
  if (count > 256) return Uint32Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b).subarray(0, count);
  const found = []; // sorted; few ids get in once it is full, where sorting all would take longer than the model
  for (let id = 0; id < logits.length; id++) {
    if (found.length === count && !(logits[id] > logits[found[count - 1]])) continue;
    let at = found.length;
    while (at > 0 && logits[id] > logits[found[at - 1]]) at--;
    found.splice(at, 0, id);
    if (found.length > count) found.pop();
  }
  return found;
}

/** A function from id to probability: softmax over the whole vocabulary, in float64. */
export function softmax(logits) {
  const largest = logits[argmax(logits)];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - largest);
  return id => Math.exp(logits[id] - largest) / sum;
}

/**
 * The id that is taken. Temperature 0 takes the likeliest; above it, logits are divided by the temperature, cut to
 * the `topK` likeliest (null: all), then to the fewest that hold `topP` of the probability (null: all), and drawn from
 * with `random`, a function that gives [0, 1).
 */
export function choose(logits, { temperature, topK, topP = null }, random = Math.random) {
  if (temperature === 0) return argmax(logits);
  const all = topK === null || topK >= logits.length;
  const ids = all && topP === null ? Uint32Array.from(logits.keys()) : likeliest(logits, all ? logits.length : topK);
  const largest = logits[argmax(logits)];
  const weights = Float64Array.from(ids, id => Math.exp((logits[id] - largest) / temperature));
  const kept = topP === null ? weights : weights.subarray(0, nucleus(weights, topP));
  let rest = random() * total(kept);
  for (let i = 0; i < kept.length; i++) if ((rest -= kept[i]) < 0) return ids[i];
  return ids[kept.length - 1]; // rounding left a rest
}

/** How many of the weights, the largest first, hold the share. */
function nucleus(weights, share) {
  const wanted = share * total(weights);
  let held = 0;
  for (let i = 0; i < weights.length; i++) if ((held += weights[i]) >= wanted) return i + 1;
  return weights.length;
}

const total = weights => weights.reduce((sum, weight) => sum + weight, 0);

/** A function that gives [0, 1), the same ones for the same seed (mulberry32); for null the browser's own. */
export function randomFrom(seed) {
  if (seed === null) return Math.random;
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
