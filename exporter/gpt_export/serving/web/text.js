// Text to token ids and back, by the artifact's own tokenizer.json.

import { Tokenizer } from "./node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs";
import { ArtifactError, readJson } from "./folder.js";

/** The tokenizer of an artifact; where it has none, texts are ids with spaces between them. */
export async function openText(folder, manifest) {
  const tokenizer = await readJson(folder, manifest, "tokenizer.json");
  if (!tokenizer) return new Ids(manifest.model.vocab_size);
  const config = (await readJson(folder, manifest, "tokenizer_config.json")) ?? {};
  const generation = (await readJson(folder, manifest, "generation_config.json")) ?? {};
  return new Words(new Tokenizer(tokenizer, config), generation.eos_token_id);
}

class Words {
  unit = "text";

  constructor(tokenizer, ends) {
    this.tokenizer = tokenizer;
    const end = ends ?? tokenizer.token_to_id("<|endoftext|>");
    this.ends = new Set(end === undefined ? [] : [end].flat());
  }

  encode(text) {
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  /** What a single token says; bytes that are no whole character become U+FFFD. */
  show(id) {
    return this.#decode([id]);
  }

  stream() {
    return new Stream(ids => this.#decode(ids));
  }

  #decode(ids) {
    return this.tokenizer.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }
}

class Ids {
  unit = "ids";
  ends = new Set();

  constructor(vocabularySize) {
    this.vocabularySize = vocabularySize;
  }

  encode(text) {
    return text.split(/[\s,]+/).filter(Boolean).map(word => {
      const id = Number(word);
      if (/^\d+$/.test(word) && id < this.vocabularySize) return id;
      throw new ArtifactError(`“${word}” is no id of this model; it takes whole numbers from 0 to ${this.vocabularySize - 1}.`);
    });
  }

  show(id) {
    return String(id);
  }

  stream() {
    return { feed: id => ` ${id}`, end: () => "" };
  }
}

/** Tells text up to a stop, and holds back what may be the beginning of one. */
export class Stop {
  #stop;
  #held = "";
  ended = false;

  /** @param stop the text that ends it; empty for none */
  constructor(stop) {
    this.#stop = stop;
  }

  /** The part of what was held and `piece` that is certain to come before the stop. */
  feed(piece) {
    if (!this.#stop) return piece;
    const text = this.#held + piece, at = text.indexOf(this.#stop);
    this.ended = at >= 0;
    let kept = this.ended ? at : text.length;
    if (!this.ended) {
      let overlap = Math.min(this.#stop.length - 1, text.length);
      while (overlap && !text.endsWith(this.#stop.slice(0, overlap))) overlap--;
      kept -= overlap;
    }
    this.#held = this.ended ? "" : text.slice(kept);
    return text.slice(0, kept);
  }

  /** What was held and has become no stop. */
  end() {
    const held = this.#held;
    this.#held = "";
    return held;
  }
}

/** Text out of ids that come one at a time; a character whose bytes are spread over several ids comes whole. */
class Stream {
  #decode;
  #ids = [];
  #told = "";

  constructor(decode) {
    this.#decode = decode;
  }

  /** The text that is certain now and was not before. */
  feed(id) {
    this.#ids.push(id);
    const text = this.#decode(this.#ids);
    return text.endsWith("\uFFFD") ? "" : this.#tell(text); // the rest of its bytes may be yet to come
  }

  /** The text that was still waiting. */
  end() {
    return this.#tell(this.#decode(this.#ids));
  }

  #tell(text) {
    const piece = text.slice(this.#told.length);
    this.#told = text;
    return piece;
  }
}
