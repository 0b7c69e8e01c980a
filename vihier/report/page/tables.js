// Labels are data: they reach the page as text nodes, and plotly with its markup characters escaped.
const data = JSON.parse(document.getElementById("data").textContent);
const TYPES = { f32: Float32Array, i32: Int32Array, i16: Int16Array, u8: Uint8Array };
// 16-bit measurements are thousandths of a log2 fold change; this one says that there is none.
const MISSING = -32768;
const ROWS_SHOWN = 25, LABELLED_LINES = 150;
// The buttons are named one by one: plotly's own choice has one that uploads the chart.
const CONFIG = {
  responsive: true, displaylogo: false, plotlyServerURL: "", modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};
const NARROW = 560, LONGEST_LINEAGE = 9;
const FONT = { family: "system-ui, sans-serif", size: 12, color: "#1c2733" };

const byId = (id) => document.getElementById(id);
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function decoded(value) {
  if (Array.isArray(value)) return value;
  const [type, text] = Object.entries(value)[0];
  return new TYPES[type](Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => element("option", { value }, text)));
}

const isText = (column) => column.kind === "text" || column.kind === "prose";

function shown(column, row) {
  const value = column.values[row];
  if (isText(column)) return value;
  if (column.kind === "flag") return value ? "yes" : "";
  if (Number.isNaN(value)) return "";
  return column.kind === "integer" ? value.toLocaleString("en-US") : value.toFixed(column.digits);
}

function sortedRows(column, rows, ascending) {
  const sign = ascending ? 1 : -1;
  const values = column.values;
  // Rows without a value come last either way.
  const compare = isText(column)
    ? (a, b) => sign * (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0)
    : (a, b) => Number.isNaN(values[a]) - Number.isNaN(values[b]) || sign * (values[a] - values[b]) || 0;
  return rows.slice().sort(compare);
}

// The cells of a row. A gene that has a page is a link to it.
function cell(column, row) {
  const made = element("td", { class: column.kind });
  const text = shown(column, row);
  if (column.name === "hugo_symbol" && genePages && genePages.place.has(text)) {
    made.append(element("a", { href: `#gene=${encodeURIComponent(text)}` }, text));
  } else {
    made.textContent = text;
    if (column.kind === "text" && text.length > 40) made.title = text;
  }
  return made;
}

// Rows that hold the query in one of their texts.
function matching(columns, nRows, query) {
  const every = Array.from({ length: nRows }, (_, row) => row);
  if (!query) return every;
  const texts = columns.filter(isText);
  return every.filter((row) => texts.some((column) => column.values[row].toLowerCase().includes(query)));
}

// The parts of a table that does not show anything yet.
function tableParts(holder, columns, searchable) {
  const parts = {
    search: element("input", { type: "search", placeholder: "Search", "aria-label": "Search this table" }),
    count: element("span", { class: "count" }),
    body: element("tbody"),
    more: element("button", { type: "button", class: "more" }),
    headings: columns.map((column) => {
      const heading = element("th", { class: column.kind, scope: "col", title: column.about || "" });
      heading.append(element("button", { type: "button" }, column.name));
      return heading;
    }),
  };
  const header = element("tr"), head = element("thead"), table = element("table");
  const scroll = element("div", { class: "scroll" }), controls = element("div", { class: "controls" });
  header.append(...parts.headings);
  head.append(header);
  table.append(head, parts.body);
  scroll.append(table);
  controls.append(parts.search, parts.count);
  holder.append(...(searchable ? [controls] : []), scroll, parts.more);
  return parts;
}

function buildTable(holder, columns, nRows, searchable = true) {
  const { search, count, body, more, headings } = tableParts(holder, columns, searchable);
  const state = { sortedBy: null, ascending: true, query: "", limit: ROWS_SHOWN };
  const n = (number) => number.toLocaleString("en-US");

  function draw() {
    let rows = matching(columns, nRows, state.query);
    if (state.sortedBy) rows = sortedRows(state.sortedBy, rows, state.ascending);
    headings.forEach((heading, place) => {
      const sort = columns[place] !== state.sortedBy ? "none" : state.ascending ? "ascending" : "descending";
      heading.setAttribute("aria-sort", sort);
    });
    body.replaceChildren(...rows.slice(0, state.limit).map((row) => {
      const line = element("tr");
      line.append(...columns.map((column) => cell(column, row)));
      return line;
    }));
    count.textContent = state.query ? `${n(rows.length)} of ${n(nRows)} rows` : `${n(nRows)} rows`;
    more.hidden = rows.length <= state.limit;
    more.textContent = `Show more (${n(Math.min(state.limit, rows.length))} of ${n(rows.length)})`;
  }

  headings.forEach((heading, place) => heading.firstChild.addEventListener("click", () => {
    state.ascending = state.sortedBy === columns[place] ? !state.ascending : true;
    state.sortedBy = columns[place];
    draw();
  }));
  search.addEventListener("input", () => {
    state.query = search.value.trim().toLowerCase();
    state.limit = ROWS_SHOWN;
    draw();
  });
  more.addEventListener("click", () => {
    state.limit *= 4;
    draw();
  });
  draw();
}

function column(name, kind, values, about = "", digits = 3) {
  return { name, kind, values, about, digits };
}
