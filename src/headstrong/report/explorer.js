// The explorer: shared parts, and how the page starts. Everything is drawn from the data inside the page.
"use strict";

const MODEL_HASH = "#model=";
const byId = (id) => document.getElementById(id);

let parsed = null;

/** The study's numbers. Parsed when something needs them first, so that the page shows before. */
function data() {
  parsed ??= JSON.parse(byId("explorer-data").textContent);
  return parsed;
}

/** The drawing library: kept as text until the first plot, since reading half a megabyte of program takes time. */
function plotLibrary() {
  if (!globalThis.Plot) {
    for (const held of document.querySelectorAll("script.library")) {
      const running = document.createElement("script");
      running.textContent = held.textContent;
      document.head.append(running);
    }
  }
  return globalThis.Plot;
}

/** An element with attributes and children; text becomes text, never markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** A number for people, as the page's tables have it: a true minus sign, an en dash where there is none. */
function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  let text;
  if (size !== 0 && (size < 1e-4 || size >= 1e5)) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    text = `${mantissa}·10${[...exponent.replace("+", "")].map((one) => RAISED[one]).join("")}`;
  } else if (size >= 10 ** digits) text = value.toFixed(0);
  else text = size === 0 ? (0).toFixed(digits - 1) : value.toPrecision(digits);
  return text.replaceAll("-", "−");
}

const plusMinus = (value, error) => number(value) + (error === null || error === undefined ? "" : ` ± ${number(error, 2)}`);
const taskWords = (letter) => `${letter} ${data().tasks[letter]?.title ?? ""}`.trim();
const modelLink = (id, words = id) => element("a", { href: MODEL_HASH + id }, words);

/** Relative task vulnerability of a task of a model under the attack of a column; null where it was not measured. */
function vulnerability(model, task, column) {
  const alone = model.tasks.length === 1;
  const wanted = column.balancer === "single" ? task : model.tasks;
  for (const [setting, balancer, attacked, values] of model.attacks) {
    const fits = balancer === column.balancer || (alone && balancer === "single");
    if (setting === column.setting && fits && attacked === wanted && values[task]) return values[task][1];
  }
  return null;
}

/** Put options into a select and keep what was chosen, if it is still there. options: [[value, words]]. */
function setOptions(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, words]) => element("option", { value }, words)));
  if (options.some(([value]) => String(value) === before)) select.value = before;
  select.disabled = options.length < 2;
}

const DRAWERS = {};
const drawn = new Map();

/** Draw into a place as wide as it is; again when its width changes, but not for a scroll bar's width. */
function drawAt(place) {
  const width = Math.max(260, place.clientWidth || 640);
  drawn.set(place, width);
  place.replaceChildren(...DRAWERS[place.dataset.draw](width, place));
}

function watchPlots() {
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting && !drawn.has(entry.target)) drawAt(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  const sized = new ResizeObserver((entries) => {
    requestAnimationFrame(() => {
      for (const { target } of entries) {
        const width = target.clientWidth;
        if (width && drawn.has(target) && Math.abs(width - drawn.get(target)) > 24) drawAt(target);
      }
    });
  });
  for (const place of document.querySelectorAll("[data-draw]")) {
    seen.observe(place);
    sized.observe(place);
  }
  addEventListener("beforeprint", () => {
    for (const place of document.querySelectorAll("[data-draw]")) if (!drawn.has(place)) drawAt(place);
  });
}

document.addEventListener("DOMContentLoaded", () => {
  startTable();
  startMap();
  startScatter();
  watchPlots();
  startModels();
});
