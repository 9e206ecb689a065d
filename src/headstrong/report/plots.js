// Heat maps of pairs of tasks and scatter plots of surrogates.

const QUANTITIES = { single: "main task attacked", multi: "all tasks attacked", clean_error: "clean error" };
const SYMBOLS = ["circle", "square", "diamond", "triangle", "cross", "star", "wye", "times", "plus", "asterisk", "hexagon"];

/** Colours and symbols of tasks, the same in all plots. */
function taskScales(letters) {
  const all = Object.keys(data().tasks);
  const domain = all.filter((letter) => letters.includes(letter));
  return {
    color: { domain, range: domain.map((letter) => data().tasks[letter].colour) },
    symbol: { domain, range: domain.map((letter) => SYMBOLS[all.indexOf(letter) % SYMBOLS.length]) },
  };
}

const unique = (values) => [...new Set(values)];

function startMap() {
  const form = byId("map-choice");
  if (!form) return;
  let ready = false;
  const choose = () => {
    const { group, quantity, setting } = form.elements;
    if (!ready) setOptions(group, unique(data().maps.map((one) => one.group)).map((one) => [one, one]));
    ready = true;
    const ours = data().maps.filter((one) => one.group === group.value);
    const there = Object.keys(QUANTITIES).filter((one) => ours.some((map) => map.quantity === one));
    setOptions(quantity, there.map((one) => [one, QUANTITIES[one]]));
    const maps = ours.filter((one) => one.quantity === quantity.value);
    setOptions(setting, maps.map((one) => (one.setting === null ? ["", "none"] : [one.setting, attackWords(one)])));
    return maps.find((one) => String(one.setting ?? "") === setting.value);
  };
  DRAWERS.map = (width) => drawMap(choose(), form.elements.colour.value, width);
  form.addEventListener("change", () => drawAt(byId("map")));
  form.addEventListener("submit", (event) => event.preventDefault());
}

function attackWords({ setting, quantity }) {
  const { words, joint } = data().settings[setting];
  return quantity === "multi" && joint !== "total" ? `${words}, ${joint.replaceAll("_", " ")}` : words;
}

function drawMap(map, colour, width) {
  const Plot = plotLibrary();
  const letters = Object.keys(data().tasks).filter((one) => map.cells.some(([main, other]) => main === one || other === one));
  const alone = new Map(map.cells.filter((cell) => cell[1] === "").map((cell) => [cell[0], cell[2]]));
  const cells = map.cells.map(([main, other, value, error, model]) => {
    const base = alone.get(main) ?? null;
    return { main, auxiliary: other || main, value, error, model, base, ratio: base ? value / base : null };
  });
  const relative = colour === "alone" && cells.every((one) => one.ratio === null || one.ratio > 0);
  const shade = (one) => (relative ? one.ratio : one.value);
  const values = cells.map(shade).filter((value) => value !== null);
  const far = relative ? Math.max(1.25, ...values.map((value) => Math.max(value, 1 / value))) : 0;
  const positive = values.every((value) => value > 0);
  const size = Math.min(56, (width - 44) / letters.length);
  const title = (one) =>
    (one.main === one.auxiliary ? `${taskWords(one.main)} alone` : `${taskWords(one.main)} with ${taskWords(one.auxiliary)}`) +
    `\n${plusMinus(one.value, one.error)}` +
    (one.ratio === null || one.main === one.auxiliary ? "" : `\n${number(one.ratio)} times the single-task model's`) +
    `\n${one.model}`;
  const ends = [Math.min(...values), Math.max(...values)];
  const part = (value) =>
    relative
      ? Math.abs(Math.log(value) / Math.log(far))
      : positive
        ? Math.log(value / ends[0]) / Math.log(ends[1] / ends[0])
        : (value - ends[0]) / (ends[1] - ends[0]);
  const digits = size < 34 ? 2 : 3;
  const chart = Plot.plot({
    width: Math.min(width, 44 + size * letters.length),
    height: 34 + size * letters.length,
    marginLeft: 40,
    marginRight: 4,
    marginTop: 30,
    marginBottom: 4,
    padding: 0,
    ariaLabel: `Heat map, ${map.group}: ${QUANTITIES[map.quantity]}`,
    x: { domain: letters, axis: "top", label: "auxiliary", tickSize: 0 },
    y: { domain: letters, label: "main", tickSize: 0 },
    color: relative
      ? { type: "diverging-log", pivot: 1, domain: [1 / far, far], scheme: "RdBu", reverse: true }
      : { type: positive ? "log" : "linear", domain: ends, scheme: "YlGnBu" },
    marks: [
      Plot.cell(cells, {
        x: "auxiliary", y: "main", fill: shade, inset: 0.5, title, tip: true,
        stroke: (one) => (one.main === one.auxiliary ? "var(--ink)" : "none"),
        href: (one) => MODEL_HASH + one.model,
        ariaLabel: (one) => title(one).replaceAll("\n", ", "),
      }),
      Plot.text(cells, {
        x: "auxiliary", y: "main", text: (one) => number(one.value, digits), pointerEvents: "none",
        fontSize: Math.max(7, Math.min(12, size / 3.6)), ariaHidden: true,
        fill: (one) => (part(shade(one)) > 0.6 ? "#ffffff" : "#111111"),
      }),
    ].map(withOwnColours),
  });
  const what = map.quantity === "clean_error" ? "Clean error" : `Relative task vulnerability, ${QUANTITIES[map.quantity]}`;
  const meaning = relative ? "times the single-task model's: red is worse, blue better" : "the number itself";
  const legend = Plot.legend({
    color: chart.scale("color"), width: Math.min(width, 320), height: 38, marginBottom: 20, marginTop: 4, marginLeft: 18, marginRight: 18,
    ticks: relative ? [1 / far, 1, far] : ends, tickFormat: (value) => number(value, 2), ariaLabel: `Colour: ${meaning}`,
  });
  const words = element("p", { class: "legend-words" }, element("small", {}, `Colour: ${meaning}`));
  return [element("p", { class: "plot-title" }, `${what}: ${map.group}`), words, legend, chart];
}

/** Text carries colours of its own, not values of the colour scale. */
function withOwnColours(mark) {
  if (mark.ariaLabel === "text" && mark.channels.fill) mark.channels.fill.scale = null;
  return mark;
}

function startScatter() {
  const form = byId("scatter-choice");
  if (!form) return;
  let pairs = null;
  const choose = () => {
    const { pair, attack } = form.elements;
    if (!pairs) {
      pairs = unique(data().scatters.map((one) => `${one.proxy} | ${one.target}`));
      setOptions(pair, pairs.map((one) => [one, one.replace(" | ", " against ")]));
    }
    const ours = data().scatters.filter((one) => `${one.proxy} | ${one.target}` === pair.value);
    setOptions(attack, ours.map((one) => [one.attack, QUANTITIES[one.attack]]));
    return ours.find((one) => one.attack === attack.value);
  };
  DRAWERS.scatter = (width) => drawScatter(choose(), form.elements.scale.value, width);
  form.addEventListener("change", () => drawAt(byId("scatter")));
  form.addEventListener("submit", (event) => event.preventDefault());
}

function drawScatter(one, scale, width) {
  const Plot = plotLibrary();
  const points = one.points
    .map(([main, auxiliary, x, ex, y, ey, model]) => ({ main, auxiliary, x, ex, y, ey, model }))
    .filter((point) => point.x !== null && point.y !== null);
  const positive = points.every((point) => point.x > 0 && point.y > 0);
  const shown = scale === "within" && positive ? withinTasks(points) : points;
  const kind = positive && scale !== "linear" ? "log" : "linear";
  const axis = (name) => (one.surrogate === "clean performance" ? name : `relative task vulnerability, ${name}`) + (scale === "within" ? " / mean of the main task" : "");
  const title = (point) =>
    `${taskWords(point.main)}${point.auxiliary ? ` with ${taskWords(point.auxiliary)}` : " alone"}` +
    `\n${one.proxy}: ${plusMinus(point.x, point.ex)}\n${one.target}: ${plusMinus(point.y, point.ey)}\n${point.model}`;
  const channels = { x: "x", y: "y", title, href: (point) => MODEL_HASH + point.model, ariaLabel: (point) => title(point).replaceAll("\n", ", ") };
  const known = (key) => shown.filter((point) => point[key] !== null);
  const chart = Plot.plot({
    width: Math.min(width, 720),
    height: Math.min(460, Math.max(280, width * 0.7)),
    marginLeft: 60,
    marginBottom: 44,
    grid: true,
    ...taskScales(unique(shown.map((point) => point.main))),
    x: { type: kind, label: axis(one.proxy), tickFormat: (value) => `${value}`, ticks: width < 480 ? 4 : 7 },
    y: { type: kind, label: axis(one.target), tickFormat: (value) => `${value}` },
    marks: [
      Plot.link(known("ex"), { x1: (p) => lower(p.x, p.ex, kind), x2: (p) => p.x + p.ex, y1: "y", y2: "y", stroke: "#8c8c8c", strokeWidth: 0.7 }),
      Plot.link(known("ey"), { y1: (p) => lower(p.y, p.ey, kind), y2: (p) => p.y + p.ey, x1: "x", x2: "x", stroke: "#8c8c8c", strokeWidth: 0.7 }),
      Plot.dot(shown, { ...channels, stroke: "main", fill: "main", symbol: "main", r: 4, tip: true }),
      shown.length <= 40 ? Plot.text(shown, { x: "x", y: "y", text: "auxiliary", dx: 8, dy: -6, fontSize: 10, pointerEvents: "none" }) : null,
    ],
  });
  const words = (value) => (value === null ? "none" : number(value, 2));
  byId("scatter-words").textContent =
    `r = ${words(one.pooled)} pooled over ${points.length} cells, ${words(one.within)} within a main task. ` +
    "Colour and shape are the main task, the letter the auxiliary one, lines standard errors; each point leads to its model.";
  const legend = Plot.legend({ symbol: chart.scale("symbol"), color: chart.scale("color"), fill: "color", stroke: "color" });
  return [legend, chart];
}

/** A bar that leaves a logarithmic axis ends at a fiftieth of its point. */
const lower = (value, error, kind) => (kind === "log" ? Math.max(value - error, value / 50) : value - error);

/** Each cell divided by the geometric mean of its main task: what an auxiliary task changes. */
function withinTasks(points) {
  const means = new Map();
  for (const main of unique(points.map((point) => point.main))) {
    const ours = points.filter((point) => point.main === main);
    const mean = (key) => Math.exp(ours.reduce((sum, point) => sum + Math.log(point[key]), 0) / ours.length);
    means.set(main, { x: mean("x"), y: mean("y") });
  }
  return points.map((point) => {
    const { x, y } = means.get(point.main);
    const scaled = (value, by) => (value === null ? null : value / by);
    return { ...point, x: point.x / x, ex: scaled(point.ex, x), y: point.y / y, ey: scaled(point.ey, y) };
  });
}
