// What is seen of a generation: the text with its tokens, the top 5 of a step, the table, the figures.

const SENTENCE = /[.!?:;\n]["'”’)]*\s*$/;

export class View {
  #steps = [];
  #unsaid = "";
  #shown = -1;
  #following = true;

  constructor(element) {
    this.el = element;
    this.el.step.addEventListener("input", () => this.show(Number(this.el.step.value) - 1, true));
    this.el.output.addEventListener("click", event => {
      const token = event.target.closest(".token");
      if (token) this.show(Number(token.dataset.step), true);
    });
  }

  /** Begins a text that goes on from `prompt`. */
  begin(prompt) {
    this.#steps = [];
    this.#unsaid = "";
    this.#shown = -1;
    this.#following = true;
    this.el.output.replaceChildren(make("span", { className: "prompt" }, prompt));
    this.el.rows.replaceChildren();
    this.el.top.replaceChildren();
    this.el.speed.replaceChildren();
    this.el.shade.hidden = true;
    this.el.step.disabled = true;
    this.el.step.value = this.el.step.max = 1;
    this.el.stepSays.textContent = "none yet";
  }

  /** One more token. */
  add(step) {
    const index = this.#steps.push(step) - 1;
    const token = make("span", { className: "token" }, step.piece);
    token.dataset.step = index;
    token.style.setProperty("--doubt", (1 - step.probability).toFixed(3));
    this.el.output.append(token);
    this.el.rows.append(row(step, index));
    this.#say(step.piece);
    this.el.step.max = index + 1;
    this.el.step.disabled = this.el.shade.hidden = false;
    if (this.#following) this.show(index);
    this.figures(step.speed, index + 1);
  }

  /** The end: what was waiting for more bytes, and why it ended. */
  end(piece, why) {
    this.el.output.append(piece);
    if (why) this.el.output.append(make("span", { className: "why" }, why));
    this.#say(piece, true);
  }

  /** The prompt and all that has come after it. */
  text() {
    return [...this.el.output.childNodes].filter(node => !node.classList?.contains("why") && !node.classList?.contains("empty"))
      .map(node => node.textContent).join("");
  }

  /** Shows the top 5 of a step; once the user has chosen one, new tokens no longer move it. */
  show(index, chosen = false) {
    if (chosen) this.#following = index === this.#steps.length - 1;
    const step = this.#steps[index];
    if (!step) return;
    this.#token(this.#shown)?.classList.remove("shown");
    this.#token(index)?.classList.add("shown");
    this.#shown = index;
    this.el.step.value = index + 1;
    const says = `${index + 1} of ${this.#steps.length}: ${spoken(step.text)}`;
    this.el.stepSays.textContent = `${index + 1} of ${this.#steps.length}`;
    this.el.step.setAttribute("aria-valuetext", says);
    const taken = step.top.some(other => other.id === step.id);
    const all = taken ? step.top : [...step.top, { id: step.id, text: step.text, probability: step.probability }];
    this.el.top.replaceChildren(...all.map(other => bar(other, other.id === step.id)));
  }

  figures({ firstMs, perSecond }, count) {
    const all = [
      ["tokens a second", perSecond === null ? "…" : perSecond.toFixed(perSecond < 10 ? 1 : 0)],
      ["to the first token", firstMs < 1000 ? `${firstMs.toFixed(0)} ms` : `${(firstMs / 1000).toFixed(1)} s`],
      [count === 1 ? "token" : "tokens", String(count)],
    ];
    this.el.speed.replaceChildren(...all.map(([name, value]) => {
      const item = make("div");
      item.append(make("dt", {}, name), make("dd", {}, value));
      return item;
    }));
  }

  #token(index) {
    return this.el.output.querySelector(`[data-step="${index}"]`);
  }

  /** Gives assistive technology whole clauses, not tokens. */
  #say(piece, last = false) {
    this.#unsaid += piece;
    if (!this.#unsaid.trim() || !(last || SENTENCE.test(this.#unsaid) || this.#unsaid.length > 120)) return;
    this.el.status.append(make("p", {}, this.#unsaid));
    while (this.el.status.children.length > 4) this.el.status.firstChild.remove();
    this.#unsaid = "";
  }
}

/** An element with properties and text. */
export function make(name, properties = {}, text = null) {
  const element = Object.assign(document.createElement(name), properties);
  if (text !== null) element.textContent = text;
  return element;
}

export const percent = p => `${(100 * p).toFixed(p >= 0.0995 ? 0 : p >= 0.00095 ? 1 : 2)} %`;

function bar(other, taken) {
  const item = make("li", { className: taken ? "taken" : "" });
  item.style.setProperty("--share", `${(100 * other.probability).toFixed(2)}%`);
  const word = make("span", { className: "word" });
  word.append(visible(other.text));
  if (taken) word.append(make("span", { className: "mark" }, "taken"));
  item.append(word, make("span", { className: "n" }, percent(other.probability)));
  return item;
}

function row(step, index) {
  const tr = make("tr");
  const taken = make("td"), top = make("td");
  taken.append(visible(step.text));
  step.top.forEach((other, i) => {
    if (i) top.append(", ");
    const word = make("span", { className: "nowrap" });
    word.append(visible(other.text), ` ${percent(other.probability)}`);
    top.append(word);
  });
  tr.append(
    make("th", { scope: "row", className: "n" }, String(index + 1)), taken,
    make("td", { className: "n" }, percent(step.probability)), make("td", { className: "n" }, String(step.id)), top,
  );
  return tr;
}

/** A token with its blanks to be seen; they are signs for the eye, and read as what they are. */
function visible(text) {
  const code = make("code");
  for (const part of text.split(/([ \n\t])/).filter(Boolean)) {
    const sign = { " ": "␣", "\n": "⏎", "\t": "⇥" }[part];
    code.append(sign ? make("i", {}, sign) : part);
  }
  return code;
}

function spoken(text) {
  return text.trim() || { " ": "space", "\n": "line break", "\t": "tab" }[text] || "blank";
}
