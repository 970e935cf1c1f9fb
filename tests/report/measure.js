// Measures pages in frames, and leaves what it found as text in #found.
"use strict";

const TEXT = 4.5, LARGE = 3;

function luminance([r, g, b]) {
  const linear = [r, g, b].map((part) => {
    const c = part / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function colour(text) {
  const parts = text.match(/[\d.]+/g).map(Number);
  return parts.length > 3 && parts[3] === 0 ? null : parts.slice(0, 3);
}

function ground(view, element) {
  for (let at = element; at; at = at.parentElement) {
    const found = colour(view.getComputedStyle(at).backgroundColor);
    if (found) return found;
  }
  return [255, 255, 255];
}

function written(doc) {
  const walker = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT);
  const found = new Set();
  for (let node; (node = walker.nextNode()); ) {
    const element = node.parentElement;
    const unseen = element.closest("title, desc, script, style");
    if (node.data.trim() && !unseen) found.add(element);
  }
  return [...found];
}

function faint(view, elements) {
  const found = new Set();
  for (const element of elements) {
    const style = view.getComputedStyle(element);
    const ink = colour(element.closest("svg") ? style.fill : style.color);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const reached = contrast(ink, ground(view, element));
    if (reached < (large ? LARGE : TEXT))
      found.add(`${element.tagName} ${element.className} ${reached.toFixed(2)}`);
  }
  return [...found];
}

function wide(view, doc) {
  const most = doc.documentElement.clientWidth;
  const found = [];
  if (doc.documentElement.scrollWidth > most) found.push("the page itself");
  for (const element of doc.body.querySelectorAll("*")) {
    if (element.parentElement.closest(".scroll")) continue;
    const box = element.getBoundingClientRect();
    const beyond = box.right > most + 1 || box.left < -1;
    if (box.width > 1 && beyond) found.push(element.tagName + "." + element.className);
  }
  return found;
}

function scrolling(doc) {
  const tables = [...doc.querySelectorAll(".scroll")];
  return tables.filter((t) => t.scrollWidth > t.clientWidth + 1).map((t) => t.ariaLabel);
}

function crowded(doc) {
  const found = [];
  for (const plot of doc.querySelectorAll("svg.plot")) {
    const view = plot.viewBox.baseVal;
    const boxes = [...plot.querySelectorAll("text")].map((t) => [t.textContent, t.getBBox()]);
    boxes.forEach(([text, box], place) => {
      if (box.x < -1 || box.x + box.width > view.width + 1) found.push(`cut: ${text}`);
      if (box.y < -1 || box.y + box.height > view.height + 1) found.push(`cut: ${text}`);
      for (const [other, b] of boxes.slice(place + 1)) {
        const across = Math.min(box.x + box.width, b.x + b.width) - Math.max(box.x, b.x);
        const down = Math.min(box.y + box.height, b.y + b.height) - Math.max(box.y, b.y);
        if (across > 0.5 && down > 2) found.push(`over each other: ${text} | ${other}`);
      }
    });
  }
  return found;
}

function drawn(letter, font) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 40;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.font = font;
  pen.fillText(letter, 4, 28);
  return pen.getImageData(0, 0, 40, 40).data.join();
}

function glyphless(view, elements) {
  const asked = new Map();
  for (const element of elements) {
    const style = view.getComputedStyle(element);
    const font = `${style.fontWeight} 20px ${style.fontFamily}`;
    if (!asked.has(font)) asked.set(font, new Set());
    for (const letter of element.textContent) asked.get(font).add(letter);
  }
  const found = new Set();
  for (const [font, letters] of asked) {
    const none = drawn("\u{10FFFD}", font);
    for (const letter of letters)
      if (letter.trim() && drawn(letter, font) === none) found.add(letter);
  }
  return [...found];
}

function measured(frame) {
  const view = frame.contentWindow, doc = frame.contentDocument;
  const elements = written(doc);
  return {
    name: frame.title,
    width: doc.documentElement.clientWidth,
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    texts: elements.length,
    wide: wide(view, doc),
    scrolling: scrolling(doc),
    folded: [...doc.querySelectorAll("details table")].filter((t) => !t.checkVisibility({
      contentVisibilityAuto: true })).map((t) => t.caption.textContent),
    faint: faint(view, elements),
    crowded: crowded(doc),
    glyphless: glyphless(view, elements),
  };
}

addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(measured);
  document.getElementById("found").textContent = JSON.stringify(found);
});
