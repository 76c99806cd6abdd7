// A person at the page, by playwright-core in Chromium: a request on stdin, what was seen on stdout, both JSON.
//
// {url, chromium, scenario, ...} -> what the scenario returns, with `requests`, `console` and `failed` of the whole visit.

import { text } from "node:stream/consumers";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const request = JSON.parse(await text(process.stdin));
const browser = await chromium.launch({
  executablePath: request.chromium,
  args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
});
const context = await browser.newContext({
  viewport: { width: request.width ?? 1280, height: 900 },
  colorScheme: request.dark ? "dark" : "light",
});
const seen = { requests: [], console: [], failed: [] };
context.on("request", one => seen.requests.push(one.url()));
context.on("requestfailed", one => seen.failed.push(`${one.url()}: ${one.failure()?.errorText}`));
context.on("console", one => seen.console.push(`${one.type()}: ${one.text()}`));
context.on("weberror", one => seen.console.push(`error: ${one.error().message}`));
const page = await context.newPage();
page.setDefaultTimeout(60_000);

const ready = () => page.waitForSelector("#go:enabled");
const error = async () => ((await page.isVisible("#error")) ? await page.textContent("#error") : null);

/** What the page shows of a generation that has ended. */
async function shown() {
  await ready();
  return page.evaluate(() => ({
    ids: [...document.querySelectorAll("#rows tr")].map(row => Number(row.cells[3].textContent)),
    text: document.querySelector("#output").textContent,
    top: [...document.querySelectorAll("#top li")].map(item => ({
      word: item.querySelector("code").textContent,
      share: parseFloat(item.querySelector(".n").textContent) / 100,
      taken: item.classList.contains("taken"),
    })),
    step: document.querySelector("#step").getAttribute("aria-valuetext"),
    speed: document.querySelector("#speed").textContent,
    engine: document.querySelector("#engine").textContent,
    status: document.querySelector("#status").textContent,
    isolated: crossOriginIsolated,
  }));
}

async function write({ prompt, count, temperature = "0", topK = "" }) {
  await page.fill("#prompt", prompt);
  await page.fill("#count", String(count));
  await page.fill("#temperature", temperature);
  await page.fill("#top-k", topK);
  await page.click("#go");
}

const scenarios = {
  /** Types a prompt and presses the button. */
  async generate() {
    await page.goto(request.url);
    await ready();
    await write(request);
    return shown();
  },

  /** The same without a mouse: only keys, and what each Tab reached. */
  async keyboard() {
    await page.goto(request.url);
    await ready();
    const reached = [];
    const tabTo = async id => {
      for (let i = 0; i < 30; i++) {
        await page.keyboard.press("Tab");
        const now = await page.evaluate(() => {
          const { id, tagName, className } = document.activeElement;
          const style = getComputedStyle(document.activeElement);
          return { id: id || className || tagName, outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 };
        });
        reached.push(now);
        if (now.id === id) return;
      }
      throw new Error(`Tab never reached ${id}: ${JSON.stringify(reached)}`);
    };
    await tabTo("prompt");
    await page.keyboard.press("Control+a");
    await page.keyboard.type(request.prompt);
    await tabTo("count");
    await page.keyboard.type(String(request.count));
    await tabTo("temperature");
    await page.keyboard.type("0");
    await tabTo("go");
    await page.keyboard.press("Enter");
    const found = await shown();
    const focus = await page.evaluate(() => document.activeElement.id);
    await tabTo("step");
    await page.keyboard.press("Home");
    const first = await shown();
    await tabTo("SUMMARY");
    await page.keyboard.press("Enter");
    const table = await page.isVisible("#rows");
    return { ...found, reached, focus, first: { step: first.step, top: first.top }, table };
  },

  /** Begins a long text and presses Escape at its third token, from inside the page: a driver is too slow. */
  async stop() {
    await page.goto(request.url);
    await ready();
    await page.evaluate(() => new MutationObserver((_, observer) => {
      if (document.querySelectorAll("#rows tr").length < 3) return;
      observer.disconnect();
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    }).observe(document.querySelector("#rows"), { childList: true }));
    await write(request);
    return shown();
  },

  /** Draws twice: top-k of 1 has one outcome, a high temperature many. */
  async sample() {
    await page.goto(request.url);
    await ready();
    await write({ ...request, temperature: "5", topK: "1" });
    const one = await shown();
    await write({ ...request, temperature: "5" });
    return { one, many: await shown() };
  },

  /** Draws twice from one seed, and once more in front of a stop. */
  async seed() {
    await page.goto(request.url);
    await ready();
    const defaults = await page.evaluate(() => ["temperature", "top-k"].map(id => document.getElementById(id).value));
    await page.fill("#seed", "7");
    await page.fill("#top-p", "0.95");
    const runs = [];
    for (let i = 0; i < 2; i++) {
      await write({ ...request, temperature: "3", topK: "50" });
      runs.push(await shown());
    }
    await page.fill("#stop-text", request.stop);
    await write(request);
    return { defaults, runs, stopped: await shown() };
  },

  /** Writes, and goes on from what is there; then copies all of it. */
  async goOn() {
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.goto(request.url);
    await ready();
    const before = await page.isEnabled("#go-on");
    await write(request);
    await shown();
    await page.click("#go-on");
    const after = await shown();
    await page.click("#copy");
    await page.waitForFunction(() => document.querySelector("#copy").textContent === "Copied");
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    return { before, ...after, prompt: await page.inputValue("#prompt"), copied };
  },

  /** Brings an error, and leaves a field empty: what is seen then. */
  async invalid() {
    await page.goto(request.url);
    await ready();
    const first = await page.inputValue("#prompt");
    await write({ ...request, prompt: "" });
    await page.waitForSelector("#error:visible");
    await ready();
    const old = await error();
    await page.fill("#count", "");
    await page.click("#go");
    return { first, old, now: await error() };
  },

  /** Texts that the page cannot continue, one after another: the sentence that each brings. */
  async refuse() {
    await page.goto(request.url);
    await ready();
    const errors = [];
    for (const prompt of request.prompts) {
      await write({ prompt, count: 5 });
      await page.waitForSelector("#error:visible");
      errors.push(await error());
    }
    await write({ prompt: request.prompt, count: 5 });
    return { errors, after: await shown(), gone: await error() };
  },

  /** Opens an artifact that cannot be run. */
  async broken() {
    await page.goto(request.url);
    await page.waitForSelector("#error:visible");
    return { error: await error(), enabled: await page.isEnabled("#go") };
  },

  /** Fetches paths from inside the page: their statuses. */
  async fetch() {
    await page.goto(request.url);
    await ready();
    return { statuses: await page.evaluate(paths => Promise.all(paths.map(async path => (await fetch(path)).status)), request.paths) };
  },

  /** Picks the folder of another artifact on the disk. */
  async pick() {
    await page.goto(request.url);
    await ready();
    await page.setInputFiles("#folder", request.picked);
    await page.waitForFunction(name => document.title === name, request.name);
    await ready();
    await write(request);
    return { ...(await shown()), name: await page.textContent("#name") };
  },

  /** What can be measured of the page before and after a text: contrast, overflow, and axe-core's rules. */
  async look() {
    await page.goto(request.url);
    await ready();
    await write(request);
    await shown();
    await page.evaluate(() => document.querySelectorAll("details").forEach(part => (part.open = true)));
    const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    await page.evaluate(axe);
    const found = await page.evaluate(() => axe.run());
    return {
      violations: found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(node => node.html).join(" ").slice(0, 300)}`),
      passes: found.passes.map(({ id }) => id),
      contrast: await page.evaluate(request.contrast),
      overflow: await page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
      background: await page.evaluate(() => getComputedStyle(document.body).backgroundColor),
      tree: await page.locator("body").ariaSnapshot(),
    };
  },

  /** What axe-core says of the page once a label has been taken away. */
  async unlabelled() {
    await page.goto(request.url);
    await ready();
    await page.evaluate(() => document.querySelector("label[for=prompt]").remove());
    await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
    return { violations: await page.evaluate(async () => (await axe.run()).violations.map(({ id }) => id)) };
  },

  /** A page of somebody else's: what its script left as `globalThis.found`. */
  async foreign() {
    await page.goto(request.url);
    await page.waitForFunction(() => globalThis.found !== undefined);
    return { found: await page.evaluate(() => globalThis.found) };
  },

  /** Follows the link to the parity report. */
  async report() {
    await page.goto(request.url);
    await ready();
    await page.click("#facts a");
    await page.waitForSelector("h1");
    return { title: await page.textContent("h1"), styled: await page.evaluate(() => document.styleSheets.length) };
  },
};

try {
  const found = await scenarios[request.scenario]();
  process.stdout.write(JSON.stringify({ ...found, ...seen }));
} finally {
  await browser.close();
}
