// The table of all models: sorting, filters, and the numbers of another task.

const WORDS = ["id", "tasks", "main", "weights", "encoder", "section"]; // columns of text; the others are numbers
const byWords = new Intl.Collator("en", { numeric: true });

let tableRows = [];
let keys = []; // of the columns: WORDS, epochs, clean, and 0, 1, ... for vulnerabilities
let sorted = { key: null, down: false };

function startTable() {
  const table = byId("model-table");
  const heads = [...table.tHead.rows[0].cells];
  keys = heads.map((head) => head.dataset.key);
  tableRows = [...table.tBodies[0].rows].map((row, place) => ({
    row,
    place,
    id: row.id.slice(MODEL_HASH.length - 1),
    words: Object.fromEntries(WORDS.map((key) => [key, row.cells[keys.indexOf(key)].textContent.trim()])),
    numbers: null,
  }));
  for (const head of heads) {
    const words = head.querySelector("span") ? [...head.childNodes] : [element("span", {}, head.textContent)];
    const button = element("button", { type: "button" }, ...words);
    button.addEventListener("click", () => sortTable(head.dataset.key));
    head.replaceChildren(button);
  }
  const form = byId("filters");
  form.addEventListener("input", filterTable);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => requestAnimationFrame(() => (chooseTask(""), filterTable())));
  form.elements.task.addEventListener("change", () => (chooseTask(form.elements.task.value), filterTable()));
  if ([...new FormData(form).values()].some((value) => value !== "")) {
    chooseTask(form.elements.task.value); // a browser that goes back fills the form in again
    filterTable();
  }
}

/** Numbers of a row by key: epochs, the clean error and the vulnerabilities of its main task, or of `task`. */
function rowNumbers(entry, task) {
  const model = data().models[entry.id];
  const letter = task || model.main;
  const measured = model.tasks.includes(letter);
  const clean = measured ? (model.clean[letter]?.[0] ?? null) : null;
  const values = data().columns.map((column) => (measured ? vulnerability(model, letter, column) : null));
  return { epochs: model.epochs, clean, ...values };
}

function chooseTask(task) {
  for (const entry of tableRows) {
    entry.numbers = rowNumbers(entry, task);
    for (const [key, value] of Object.entries(entry.numbers)) {
      if (key !== "epochs") entry.row.cells[keys.indexOf(key)].textContent = number(value);
    }
  }
  if (sorted.key !== null && !WORDS.includes(sorted.key)) orderRows();
}

function sortTable(key) {
  sorted = { key, down: sorted.key === key ? !sorted.down : false };
  orderRows();
  for (const head of byId("model-table").tHead.rows[0].cells) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function orderRows() {
  const { key, down } = sorted;
  const turn = down ? -1 : 1;
  const task = byId("filters").elements.task.value;
  const compare =
    WORDS.includes(key)
      ? (a, b) => turn * byWords.compare(a.words[key], b.words[key]) || a.place - b.place
      : (a, b) => {
          const [x, y] = [a, b].map((entry) => (entry.numbers ??= rowNumbers(entry, task))[key]);
          if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place; // nothing goes last
          return turn * (x - y) || a.place - b.place;
        };
  tableRows.sort(compare);
  byId("model-table").tBodies[0].append(...tableRows.map((entry) => entry.row));
}

function filterTable() {
  const wanted = byId("filters").elements;
  const text = wanted.text.value.trim().toLowerCase();
  const tasks = [...wanted.tasks.value.replace(/[\s,]/g, ""), ...wanted.task.value];
  let shown = 0;
  for (const { row, words } of tableRows) {
    const { id, section, encoder, tasks: own } = words;
    const fits =
      id.toLowerCase().includes(text) &&
      (!wanted.section.value || section === wanted.section.value) &&
      (!wanted.encoder.value || encoder === wanted.encoder.value) &&
      (!wanted.size.value || own.length === Number(wanted.size.value)) &&
      tasks.every((letter) => own.includes(letter));
    row.hidden = !fits;
    shown += fits;
  }
  const thousands = (count) => count.toLocaleString("en").replaceAll(",", "\u202f");
  byId("count").textContent = `${thousands(shown)} of ${thousands(tableRows.length)} models`;
}

/** Ids of the models as the table shows them now. */
const shownModels = () => tableRows.filter((entry) => !entry.row.hidden).map((entry) => entry.id);
