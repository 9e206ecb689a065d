// The table of all models: sorting, filters, and the numbers of another task.

const FIRST_NUMBER = 6; // columns before are text
const CLEAN_COLUMN = 7;
const byWords = new Intl.Collator("en", { numeric: true });

let tableRows = [];
let sorted = { column: -1, down: false };

function startTable() {
  const table = byId("model-table");
  tableRows = [...table.tBodies[0].rows].map((row, place) => ({
    row,
    place,
    id: row.id.slice(MODEL_HASH.length - 1),
    words: [...row.cells].slice(0, FIRST_NUMBER).map((cell) => cell.textContent.trim()),
    numbers: null,
  }));
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = element("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => sortTable(column));
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

/** Numbers of every row, by column: epochs, clean error and vulnerabilities of its main task, or of `task`. */
function rowNumbers(entry, task) {
  const model = data().models[entry.id];
  const letter = task || model.main;
  const measured = model.tasks.includes(letter);
  const clean = measured ? (model.clean[letter]?.[0] ?? null) : null;
  return [model.epochs, clean, ...data().columns.map((column) => (measured ? vulnerability(model, letter, column) : null))];
}

function chooseTask(task) {
  for (const entry of tableRows) {
    entry.numbers = rowNumbers(entry, task);
    entry.numbers.slice(1).forEach((value, place) => {
      entry.row.cells[CLEAN_COLUMN + place].textContent = number(value);
    });
  }
  if (sorted.column >= FIRST_NUMBER) orderRows();
}

function sortTable(column) {
  sorted = { column, down: sorted.column === column ? !sorted.down : false };
  orderRows();
  for (const [place, head] of [...byId("model-table").tHead.rows[0].cells].entries()) {
    if (place === column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function orderRows() {
  const { column, down } = sorted;
  const turn = down ? -1 : 1;
  const task = byId("filters").elements.task.value;
  const compare =
    column < FIRST_NUMBER
      ? (a, b) => turn * byWords.compare(a.words[column], b.words[column]) || a.place - b.place
      : (a, b) => {
          const [x, y] = [a, b].map((entry) => (entry.numbers ??= rowNumbers(entry, task))[column - FIRST_NUMBER]);
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
    const [id, section, encoder, own] = words;
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
