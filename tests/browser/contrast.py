"""Text that can hardly be read on what is behind it, measured in a page as it was drawn."""

from __future__ import annotations

CONTRAST = 4.5
"""WCAG 2.2, 1.4.3, level AA, for text of any size."""

LOW_CONTRAST = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const over = (base, color) => {  // any CSS colour painted over another, as the browser would
    canvas.fillStyle = `rgb(${base.join(" ")})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = color => color.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    const chain = [];
    for (let e = element; e; e = e.parentElement) chain.unshift(e);
    return chain.reduce((base, e) => over(base, getComputedStyle(e).backgroundColor), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
    if (!text || element.closest("title, desc, style, .sr") || !element.checkVisibility()) continue;
    const base = behind(element), style = getComputedStyle(element);
    const [a, b] = [light(over(base, element.closest("svg") ? style.fill : style.color)), light(base)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < LIMIT) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
})()
""".replace("LIMIT", str(CONTRAST))
"""An expression whose value lists the texts below the limit, each with its contrast."""
