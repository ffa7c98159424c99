"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const DASH = "–";
// What a cell begins with whose column sorts as numbers; html.py has the same.
const NUMBER = /^[+\-−]?\d[\d,]*(\.\d+)?(e[+\-]?\d+)?(?=$|[\s%])/;

/** A new element; its text is text, whatever it says. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Tables

/** What a row is sorted by: the number that its cell begins with, or its text. */
function sortKey(row, column, numeric) {
  const text = row.cells[column].textContent.trim();
  if (!numeric) return text;
  const found = NUMBER.exec(text);
  return found ? Number(found[0].replaceAll(",", "").replace("−", "-")) : null;
}

/** Sort a table by a column: numbers the largest first, texts from A; again, the other way round. What has no value stays last. */
function sortBy(table, head) {
  const numeric = !head.classList.contains("text");
  const first = numeric ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") !== first ? first : numeric ? "ascending" : "descending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) => (numeric ? a - b : a.localeCompare(b));
  const keyed = [...table.tBodies[0].rows].map((row) => ({ row, key: sortKey(row, head.cellIndex, numeric) }));
  const empty = ({ key }) => key === null || key === "" || key === DASH;
  const filled = keyed.filter((line) => !empty(line)).sort((a, b) => sign * compare(a.key, b.key));
  table.tBodies[0].append(...[...filled, ...keyed.filter(empty)].map(({ row }) => row));
}

for (const table of document.querySelectorAll("main table:not(.words)")) {
  for (const head of table.tHead.rows[0].cells) {
    if (head.classList.contains("fixed")) continue;
    const button = element("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head));
    head.append(button);
  }
}
for (const note of document.querySelectorAll(".scripted")) note.hidden = false;

// Dark and light

const root = document.documentElement;
const themeButton = document.getElementById("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
}

function nameTheme() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
}

themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
prefersDark.addEventListener("change", nameTheme);
nameTheme();
if (innerWidth < 1024) document.querySelector("nav details").open = false;

// What a point says

const tip = document.getElementById("tip");

/** Show lines of text beside a place of the window. */
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 8))}px`;
  tip.style.top = `${y + 14 + height > innerHeight ? y - height - 12 : y + 14}px`;
}

function hideTip() {
  tip.hidden = true;
}

/** A number of at most four digits. */
function number(value) {
  return String(Number(value.toPrecision(Math.abs(value) >= 10 ? 3 : 2)));
}

/** What a row of a chart says, in lines. */
function told(chart, row) {
  const lines = [`${row.method}, ${row.panel}`];
  if (row.at !== undefined) lines.push(`${chart.across}: ${row.at}`);
  lines.push(`${chart.measure}: ${number(row.value)}`);
  if (row.low !== null) lines.push(`${chart.spread}: ${number(row.low)} to ${number(row.high)}`);
  lines.push(`n = ${row.n}`);
  if (row.mark) lines.push("an artefact of the modality's role");
  return lines.join("\n");
}

// Charts

const off = new Set(); // methods that are switched off, in all charts
const redraw = []; // of every chart

/** The rows of a chart, of its columns. */
function rowsOf(columns) {
  const names = Object.keys(columns);
  const values = names.map((name) => columns[name].values ?? columns[name].codes.map((code) => columns[name].levels[code]));
  return values[0].map((_, i) => Object.fromEntries(names.map((name, j) => [name, values[j][i]])));
}

/** The least and the largest of rows, with their intervals if these are shown, and a margin. */
function extent(rows, intervals) {
  const values = rows.flatMap((row) => (intervals ? [row.low, row.value, row.high] : [row.value])).filter((value) => value !== null);
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = 0.04 * (high - low) || 1;
  return [low - margin, high + margin];
}

/** Different values, in the order in which they come. */
function distinct(rows, name) {
  return [...new Set(rows.map((row) => row[name]))];
}

/** How a method's lines look, for its switch. */
function swatch(number) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of Object.entries({ width: 26, height: 10, class: "swatch", "aria-hidden": "true" })) svg.setAttribute(name, value);
  const dash = page.methods[number].dash.map((length) => 2 * length).join(" ");
  const look = { x1: 0, x2: 26, y1: 5, y2: 5, stroke: `var(--m${number})`, "stroke-width": 3, "stroke-dasharray": dash };
  for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

/** Choices of what a chart shows, and a switch for each of its methods. */
function controls(chart, rows, chosen, draw) {
  const choices = element("div", { className: "choices" });
  for (const [name, label] of Object.entries(chart.choices)) {
    const select = element("select", {}, ...distinct(rows, name).map((value) => element("option", { value }, value)));
    select.addEventListener("change", () => {
      chosen[name] = select.value;
      draw();
    });
    choices.append(element("label", {}, `${label} `, select));
  }
  const methods = element("fieldset", {}, element("legend", {}, "Methods"));
  for (const name of distinct(rows, "method")) {
    const index = page.methods.findIndex((method) => method.name === name);
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      off[box.checked ? "delete" : "add"](name);
      for (const each of redraw) each();
    });
    redraw.push(() => (box.checked = !off.has(name)));
    methods.append(element("label", {}, box, swatch(index), name));
  }
  for (const [label, which] of [["all", []], ["none", page.methods.map((method) => method.name)]]) {
    const button = element("button", { type: "button" }, label);
    button.setAttribute("aria-label", `Show ${label === "all" ? "all methods" : "no method"}`);
    button.addEventListener("click", () => {
      off.clear();
      for (const name of which) off.add(name);
      for (const each of redraw) each();
    });
    methods.append(button);
  }
  return [...(choices.childNodes.length ? [choices] : []), methods];
}

/** A panel: a view of Vega's, through whose points the arrow keys go. */
class Panel {
  constructor(chart, title) {
    this.chart = chart;
    this.rows = [];
    this.at = -1;
    this.drawing = element("div", { ariaHidden: "true" }); // Vega names it "Vega visualization"
    this.place = element("div", { tabIndex: 0 }, this.drawing);
    this.place.setAttribute("role", "application");
    this.place.setAttribute("aria-roledescription", "chart");
    this.place.setAttribute("aria-label", `${chart.title}, ${title}. Arrow keys go from point to point.`);
    this.element = element("div", { className: "panel" }, element("h4", {}, title), this.place);
    this.place.addEventListener("keydown", (event) => this.press(event));
    this.place.addEventListener("blur", () => this.point(-1));
  }

  start() {
    this.view = new vega.View(vega.parse(this.chart.spec), { renderer: "svg", container: this.drawing, hover: false });
    this.view.tooltip((_, event, item, row) => (row ? showTip(told(this.chart, row), event.clientX, event.clientY) : hideTip()));
  }

  draw(rows, [low, high], band) {
    this.rows = rows;
    this.at = -1;
    const width = Math.max(200, this.place.clientWidth);
    this.view.signal("from", low).signal("to", high).signal("band", band ? 0.15 : 0).width(width).data("rows", rows).data("cursor", []).run();
  }

  press(event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key === "Escape") this.point(-1);
    if (!(event.key in steps) || !this.rows.length) return;
    event.preventDefault();
    this.point((this.at + steps[event.key] + this.rows.length) % this.rows.length);
  }

  /** Go to a point, and say what it says; −1: to none. */
  point(at) {
    this.at = at;
    const row = this.rows[at];
    this.view.data("cursor", row ? [row] : []).run();
    if (!row) return hideTip();
    const ring = this.place.querySelector(".cursor_marks path")?.getBoundingClientRect() ?? this.place.getBoundingClientRect();
    showTip(told(this.chart, row), ring.left + ring.width / 2, ring.top + ring.height / 2);
  }
}

/** Make a chart of what the page says of it. */
function start(figure) {
  const chart = page.charts[figure.dataset.chart];
  chart.title = figure.querySelector("h3").textContent;
  const rows = rowsOf(chart.columns);
  const chosen = Object.fromEntries(Object.keys(chart.choices).map((name) => [name, rows[0][name]]));
  const panels = new Map();
  const place = figure.querySelector(".panels");
  const draw = () => {
    const here = rows.filter((row) => Object.entries(chosen).every(([name, value]) => row[name] === value));
    const titles = distinct(here, "panel");
    const bands = distinct(here, "method").filter((name) => !off.has(name)).length <= 4; // more would hide each other
    const intervals = bands || chart.kind === "intervals";
    for (const title of titles) if (!panels.has(title)) panels.set(title, new Panel(chart, title));
    place.replaceChildren(...titles.map((title) => panels.get(title).element));
    for (const title of titles) {
      const panel = panels.get(title);
      if (!panel.view) panel.start();
      const shown = here.filter((row) => row.panel === title && !off.has(row.method));
      panel.draw(shown, extent(chart.shared ? here : shown, intervals), bands);
    }
  };
  figure.querySelector(".controls").append(...controls(chart, rows, chosen, draw));
  draw();
  redraw.push(draw);
  figure.querySelector(".controls").hidden = false;
  figure.classList.add("live"); // from now on it stands for the still figure
  let width = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth !== width) draw();
    width = place.clientWidth;
  }).observe(place);
}

for (const figure of document.querySelectorAll(".chart")) start(figure);
