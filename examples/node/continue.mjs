// Continues a prompt with an artifact, by transformers.js: node continue.mjs ARTIFACT [PROMPT] [DTYPE]
//
// The text is printed as it grows. DTYPE is transformers.js's name of a variant: fp32, fp16, q8 or q4.

import { basename, dirname, resolve } from "node:path";
import { env, pipeline, TextStreamer } from "@huggingface/transformers";

async function main([artifact, prompt = "Every effort moves you", dtype = "fp32"]) {
  if (!artifact) throw new Error("name an artifact: node continue.mjs ARTIFACT [PROMPT] [fp32|fp16|q8|q4]");
  env.allowRemoteModels = false; // the folder has everything: a file that is missing is an error, not a download
  env.localModelPath = dirname(resolve(artifact));
  const generator = await pipeline("text-generation", basename(resolve(artifact)), { dtype });

  let tokens = 0;
  const streamer = new TextStreamer(generator.tokenizer, {
    skip_prompt: true,
    callback_function: piece => process.stdout.write(piece),
    token_callback_function: () => tokens++,
  });
  process.stdout.write(prompt);
  const begun = performance.now();
  await generator(prompt, { max_new_tokens: 40, do_sample: false, streamer });
  const seconds = (performance.now() - begun) / 1000;

  console.log();
  console.error(`${tokens} tokens, ${(tokens / seconds).toFixed(0)} a second`);
}

main(process.argv.slice(2)).catch(error => {
  console.error(`Error: ${error.message}`);
  process.exitCode = 1;
});
