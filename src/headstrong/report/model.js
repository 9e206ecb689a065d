// The view of one model, at #model=<id>: what it is, its errors, training curves, attacks and pictures.

let opener = null; // the model last looked at, to come back to its row

function startModels() {
  addEventListener("hashchange", route);
  route();
}

function route() {
  const id = location.hash.startsWith(MODEL_HASH) ? decodeURIComponent(location.hash.slice(MODEL_HASH.length)) : null;
  const view = byId("model-view");
  if (id === null) {
    if (!view.hidden) closeModel(view);
    return;
  }
  const model = data().models[id];
  view.replaceChildren(...(model ? modelParts(id, model) : unknownModel(id)));
  view.hidden = false;
  document.body.classList.add("one-model");
  opener = id;
  document.title = `headstrong: ${id}`;
  scrollTo(0, 0);
  view.querySelector("h2").focus({ preventScroll: true });
  for (const place of view.querySelectorAll("[data-draw]")) drawAt(place);
}

function closeModel(view) {
  view.hidden = true;
  document.body.classList.remove("one-model");
  document.title = byId("model-table").dataset.title ?? document.title;
  const target = byId(decodeURIComponent(location.hash.slice(1)));
  if (target && target.id !== "models") return target.scrollIntoView();
  const row = byId(`model=${opener}`);
  if (!row || row.hidden) return byId("models").scrollIntoView();
  row.scrollIntoView({ block: "center" });
  row.querySelector("a").focus({ preventScroll: true });
}

function unknownModel(id) {
  return [
    element("h2", { tabindex: "-1" }, "No such model"),
    element("p", {}, `This study has no model called ${id}. `, element("a", { href: "#models" }, "All models")),
  ];
}

function modelParts(id, model) {
  const pictures = data().pictures.models[id];
  const history = data().histories[model.run];
  const curves = data().curves[id];
  const none = (words) => element("p", {}, words);
  return [
    modelNavigation(id),
    element("h2", { tabindex: "-1" }, id),
    modelFacts(model),
    element(
      "div",
      { class: "side-by-side" },
      element("section", {}, element("h3", {}, "Training"), history ? historyPlot(model, history) : none("No training history came with these results.")),
      element("section", {}, element("h3", {}, "How the attack proceeds"), curves ? curvePlot(model, curves) : none("No curve of the attack that the tables show.")),
    ),
    ...(pictures ? pictureParts(model, pictures) : []),
    element("h3", {}, "Errors, clean and under attack"),
    element("p", {}, "Each task's error (100 − mIoU for s, mean squared error for the others). Below it its relative task vulnerability: how much it grew, as a multiple of the clean error. Attacked tasks are framed."),
    errorTable(id, model),
  ];
}

function modelNavigation(id) {
  const shown = shownModels();
  const place = shown.indexOf(id);
  const links = [element("a", { href: "#models" }, "← All models")];
  if (place > 0) links.push(element("a", { href: MODEL_HASH + shown[place - 1], rel: "prev" }, "previous"));
  if (place >= 0 && place < shown.length - 1) links.push(element("a", { href: MODEL_HASH + shown[place + 1], rel: "next" }, "next"));
  return element("nav", { "aria-label": "Models" }, element("ul", {}, ...links.map((link) => element("li", {}, link))));
}

function modelFacts(model) {
  const facts = {
    section: model.section,
    encoder: model.encoder,
    tasks: [...model.tasks].map(taskWords).join(", "),
    weights: model.weights === "uniform" ? "uniform" : `${model.weights}; main task ${model.main}`,
    epochs: model.epochs,
    layout: model.layout,
    "trained against": model.adversarial,
    "protocol switches": model.switches,
  };
  const rows = Object.entries(facts).filter(([, value]) => value !== undefined);
  return element("dl", { class: "facts" }, ...rows.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, String(value))]));
}

/** The single-task model of the same encoder and epochs, to compare with. */
function singleTaskModel(model, task) {
  const found = Object.entries(data().models).find(
    ([, one]) => one.tasks === task && one.encoder === model.encoder && one.epochs === model.epochs && !one.switches && !one.adversarial && !one.layout,
  );
  return found ?? null;
}

function errorTable(id, model) {
  const tasks = [...model.tasks];
  const row = (head, cells) => element("tr", {}, element("th", { scope: "row" }, ...head), ...cells);
  const cell = (parts, attacked = false) => element("td", attacked ? { class: "alone" } : {}, ...parts);
  const small = (words, kind = null) => element("small", { class: kind }, words);
  const parts = [];
  const lines = [row(["clean"], tasks.map((task) => cell([plusMinus(...(model.clean[task] ?? [null]))])))];
  if (tasks.length > 1) {
    const others = tasks.map((task) => singleTaskModel(model, task));
    const cells = others.map((one, place) => cell(one ? [modelLink(one[0], number(one[1].clean[tasks[place]]?.[0]))] : ["–"]));
    if (others.some(Boolean)) lines.push(row(["clean, the single-task models"], cells));
  }
  parts.push(element("tbody", {}, ...lines));
  let last = null;
  for (const [setting, balancer, attacked, values] of model.attacks) {
    if (setting !== last) {
      const head = element("th", { scope: "rowgroup", colspan: String(tasks.length + 1) }, data().settings[setting].words);
      parts.push(element("tbody", {}, element("tr", { class: "setting" }, head)));
      last = setting;
    }
    const words = balancer === "single" ? `${attacked} attacked` : `${attacked} attacked, ${balancer.replaceAll("_", " ")}`;
    const cells = tasks.map((task) => {
      const [error, grown, doubt] = values[task] ?? [null, null, null];
      const frame = attacked.includes(task);
      return cell([number(error), small(grown === null ? "" : `+${plusMinus(grown, doubt)}`.replace("+−", "−"), "below")], frame);
    });
    parts.at(-1).append(row([words], cells));
  }
  const heads = ["", ...tasks.map(taskWords)].map((words) => element("th", { scope: "col" }, words));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), ...parts);
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Errors of ${id}` }, table);
}

function linePlot(name, rows, options) {
  DRAWERS[name] = (width) => {
    const Plot = plotLibrary();
    const lines = { x: "x", y: "y", stroke: "task", z: "line" };
    const chart = Plot.plot({
      width: Math.min(width, 720),
      height: Math.min(320, Math.max(220, width * 0.5)),
      marginLeft: 56,
      marginBottom: 36,
      grid: true,
      ...taskScales(unique(rows.map((one) => one.task))),
      symbol: undefined,
      ...options,
      marks: [
        Plot.line(rows.filter((one) => !one.together), lines),
        Plot.line(rows.filter((one) => one.together), { ...lines, strokeDasharray: "5,3" }),
        Plot.dot(rows, { x: "x", y: "y", fill: "task", r: rows.length > 120 ? 1.2 : 2.5, title: "title", tip: true }),
      ],
    });
    return [Plot.legend({ color: chart.scale("color"), label: "task" }), chart];
  };
  return element("div", { class: "plot", "data-draw": name, role: "group" });
}

function historyPlot(model, history) {
  const rows = Object.entries(history.loss).flatMap(([task, losses]) =>
    losses
      .map((y, place) => ({ task, line: task, x: history.epochs[place], y, title: `${taskWords(task)}\nepoch ${history.epochs[place]}: ${number(y)}` }))
      .filter((one) => one.y !== null),
  );
  const positive = rows.every((one) => one.y > 0);
  const plot = linePlot("history", rows, {
    x: { label: "epoch", tickFormat: "d", ticks: Math.max(1, Math.min(8, history.epochs.at(-1) - history.epochs[0])) },
    y: { label: "mean training loss", type: positive ? "log" : "linear", tickFormat: (value) => `${value}`, ticks: 5 },
  });
  const last = history.epochs.at(-1);
  const early = last > model.epochs ? ` This model is the checkpoint of this run after epoch ${model.epochs} of ${last}.` : "";
  return element("div", {}, plot, element("p", {}, element("small", {}, `Run ${model.run}, file models/${model.run}/history.csv.${early}`)));
}

function curvePlot(model, curves) {
  const shown = curves.filter(([attacked]) => attacked.length === 1 || attacked === model.tasks);
  const rows = shown.flatMap(([attacked, task, values], line) =>
    values
      .map((y, x) => ({ task, line, x, y, together: attacked.length > 1, title: `${taskWords(task)}, ${attacked} attacked\nafter ${x} steps: ${number(y)}` }))
      .filter((one) => one.y !== null),
  );
  const plot = linePlot("curve", rows, { x: { label: "step", tickFormat: "d" }, y: { label: "loss / clean loss − 1", tickFormat: (value) => (value === 0 ? "0" : number(value, 2)) } });
  const words = `${data().settings[0].words}. Each task attacked by itself${model.tasks.length > 1 ? ", dashed all at once" : ""}: the attacked task's loss, mean over the test images.`;
  return element("div", {}, plot, element("p", {}, element("small", {}, words)));
}

function pictureParts(model, pictures) {
  const picture = (source, words, note = "") =>
    element("figure", {}, element("img", { src: source, alt: words }), element("figcaption", {}, words, note ? element("br") : null, note));
  const parts = pictures.images.map((image) => {
    const rows = [
      element("div", { class: "pictures" }, picture(image.input, "image"), picture(image.adversarial, "under attack"), picture(image.difference, `difference, × ${number(pictures.scale, 2)}`)),
    ];
    for (const [task, maps] of Object.entries(image.tasks)) {
      rows.push(
        element("h5", {}, taskWords(task)),
        element("div", { class: "pictures" }, picture(maps.truth, "truth"), picture(maps.before, "prediction", `error ${number(maps.error_before)}`), picture(maps.after, "under attack", `error ${number(maps.error_after)}`)),
      );
    }
    return element("section", { class: "image" }, element("h4", {}, image.name), ...rows);
  });
  return [element("h3", {}, "Pictures"), element("p", {}, `Attack: ${pictures.attack}.`), element("div", { class: "images" }, ...parts)];
}
