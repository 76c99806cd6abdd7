// Ids and texts by transformers.js: {folder, texts} on stdin -> {version, ids, texts} on stdout, both JSON.

import { basename, dirname } from "node:path";
import { text } from "node:stream/consumers";
import { AutoTokenizer, env } from "@huggingface/transformers";

env.allowRemoteModels = false;
const { folder, texts } = JSON.parse(await text(process.stdin));
env.localModelPath = dirname(folder);
const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
const ids = texts.map(one => tokenizer.encode(one));
const back = ids.map(row => tokenizer.decode(row, { clean_up_tokenization_spaces: false }));
process.stdout.write(JSON.stringify({ version: env.version, ids, texts: back }));
