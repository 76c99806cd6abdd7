// Greedy tokens by transformers.js: a request on stdin, the answer on stdout, both JSON.
//
// {jobs: [{folder, dtype, steps, prompts, pad_id}]} -> {version, tokens: one list of rows a job}. Prompts are ids, padded
// on the left as the library's text-generation pipeline pads, or texts, which go through that pipeline; dtype may be null.

import { basename, dirname } from "node:path";
import { text } from "node:stream/consumers";
import { AutoModelForCausalLM, env, pipeline, Tensor } from "@huggingface/transformers";

env.allowRemoteModels = false;

// Exact sums of 8-bit products on processors without VNNI, see docs/variants.md.
const session_options = { extra: { "session.x64quantprecision": "1" } };

function open(load, { folder, dtype }) {
  env.localModelPath = dirname(folder);
  return load(basename(folder), { session_options, ...(dtype ? { dtype } : {}) });
}

async function ofIds({ prompts, pad_id: pad, steps, ...where }) {
  const model = await open((id, options) => AutoModelForCausalLM.from_pretrained(id, options), where);
  const length = Math.max(...prompts.map(ids => ids.length));
  const padded = (row, value, fill) => [...Array(length - row.length).fill(fill), ...row.map(value)];
  const tensor = rows => new Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [rows.length, length]);
  const found = await model.generate({
    inputs: tensor(prompts.map(ids => padded(ids, id => id, pad ?? 0))),
    attention_mask: tensor(prompts.map(ids => padded(ids, () => 1, 0))),
    max_new_tokens: steps,
    do_sample: false,
  });
  await model.dispose();
  return found.tolist().map(row => row.slice(length).map(Number));
}

async function ofTexts({ prompts, steps, ...where }) {
  const generator = await open((id, options) => pipeline("text-generation", id, options), where);
  const found = await generator(prompts, { max_new_tokens: steps, do_sample: false, return_full_text: false });
  await generator.dispose();
  return found.map(row => [row].flat()[0].generated_text);
}

const { jobs } = JSON.parse(await text(process.stdin));
const tokens = [];
for (const job of jobs) tokens.push(await (typeof job.prompts[0] === "string" ? ofTexts : ofIds)(job));
process.stdout.write(JSON.stringify({ version: env.version, tokens }));
