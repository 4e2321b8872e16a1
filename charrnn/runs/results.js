// A sweep's page: the table of jobs, learning curves, groups. What is hovered, picked and brushed is
// the same in all of them.

const data = JSON.parse(find("data").textContent);
const { jobs, keys, groups } = data;
// over: a job or -1; picked: jobs; ranges: of axes of the parallel picture, by number.
const state = { over: -1, picked: new Set(), ranges: new Map(), sort: null, down: false };

// Neighbors in rank have hues far apart: the golden angle divides the circle ever more finely.
const hue = (rank) => (215 + rank * 137.508) % 360;
const paint = (job) => {
  const light = parseFloat(color("--light")) + [0, 10, -8][job % 3];
  return `hsl(${hue(job).toFixed(0)} ${color("--chroma")} ${light}%)`;
};
const faded = (job) => `hsl(${hue(job).toFixed(0)} 20% 55% / 0.18)`;

const text = (value) => (value === null ? "" : typeof value === "number" ? short(value) : value);

function isKept(job) {
  for (const [axis, [low, high]] of state.ranges) {
    const at = positionOf(axis, job);
    if (at === null || at < low || at > high) return false;
  }
  return true;
}

// Whether a job stands out: kept by the brushes, and picked where any is.
function isClear(job) {
  if (!isKept(job)) return false;
  return job === state.over || !state.picked.size || state.picked.has(job);
}

const strokeOf = (job) => (isClear(job) ? paint(job) : faded(job));
const widthOf = (job) => (job === state.over || state.picked.has(job) ? 3 : 1.6);

function update() {
  for (const entry of drawn) {
    entry.restyle?.(entry.plot);
    entry.plot.redraw(false);
  }
  for (const row of find("jobs").querySelectorAll("tbody tr")) {
    row.classList.toggle("over", row.job === state.over);
    row.classList.toggle("picked", state.picked.has(row.job));
    row.classList.toggle("dim", !isClear(row.job));
  }
  find("clear").hidden = !state.picked.size && !state.ranges.size;
  const job = jobs[state.over];
  find("hint").textContent = job
    ? `${job.folder}: best ${text(job.best)}, last ${text(job.last)} bpc, ${job.state}`
    : "Validation bpc against windows. Hover to see a job, click to pick it out.";
}

function hover(job) {
  if (job === state.over) return;
  state.over = job;
  update();
}

function pick(job) {
  if (job < 0) return;
  state.picked.has(job) ? state.picked.delete(job) : state.picked.add(job);
  update();
}

// Lines of jobs in a chart: styles, the nearest to the cursor, and clicks.
function jobSeries(numbers, more = {}) {
  return numbers.map((job) => ({
    label: jobs[job].folder, stroke: () => strokeOf(job), width: widthOf(job), spanGaps: true,
    points: { show: false }, ...more,
  }));
}

function followLines(entry, numbers) {
  entry.restyle = (plot) => numbers.forEach((job, i) => { plot.series[i + 1].width = widthOf(job); });
  entry.parent.addEventListener("mousemove", () => {
    const { left, top, idx } = entry.plot.cursor;
    let nearest = -1, least = 20;
    if (left >= 0) numbers.forEach((job, i) => {
      const distance = distanceTo(entry.plot, entry.data, i + 1, left, top);
      if (distance < least && isKept(job)) { least = distance; nearest = job; }
    });
    hover(nearest);
  });
  entry.parent.addEventListener("mouseleave", () => hover(-1));
  entry.parent.addEventListener("click", () => { if (!state.down) pick(state.over); });
}

// The vertical distance of a point to a line of a chart, in pixels.
function distanceTo(plot, columns, number, left, top) {
  const xs = columns[0], ys = columns[number];
  let before = -1, after = -1;
  for (let i = 0; i < xs.length; i++) {
    if (ys[i] === null) continue;
    if (plot.valToPos(xs[i], "x") <= left) before = i;
    else { after = i; break; }
  }
  if (before < 0 && after < 0) return Infinity;
  const [a, b] = [before < 0 ? after : before, after < 0 ? before : after];
  const [x1, x2] = [xs[a], xs[b]].map((x) => plot.valToPos(x, "x"));
  if (left < x1 - 8 || left > x2 + 8) return Infinity;
  const [y1, y2] = [ys[a], ys[b]].map((y) => plot.valToPos(y, "y"));
  const share = x2 > x1 ? Math.min(1, Math.max(0, (left - x1) / (x2 - x1))) : 0;
  return Math.abs(y1 + share * (y2 - y1) - top);
}

function drawCurves() {
  const numbers = jobs.map((_, i) => i).filter((i) => jobs[i].curve[0].length).reverse();
  find("curves-part").hidden = !numbers.length;
  if (!numbers.length) return;
  const single = numbers.every((i) => jobs[i].curve[0].length === 1);
  followLines(chart(find("curves"), 360, () => ({
    scales: { x: { time: false } },
    cursor: { points: { show: false }, drag: { x: true, y: true, uni: 20 } },
    axes: [{ label: "windows", labelSize: 20 }, { size: 50 }],
    series: [{}, ...jobSeries(numbers, single ? { points: { show: true, size: 6 } } : {})],
  }), joined(numbers.map((i) => jobs[i].curve))), numbers);
}

// The table.
const COLUMNS = [
  { name: "job", of: (job) => job.number },
  ...keys.map((key, i) => ({ name: key.short, title: key.name, of: (job) => job.values[i] })),
  { name: "best bpc", of: (job) => job.best, digits: 4 },
  { name: "last bpc", of: (job) => job.last, digits: 4 },
  { name: "characters/s", of: (job) => job.speed, digits: 0 },
  { name: "parameters", of: (job) => job.parameters, digits: 0 },
  { name: "state", of: (job) => job.state },
];

// Numbers by size, then text, then what is missing.
function compare(a, b) {
  const kind = (value) => (value === null ? 2 : typeof value === "string" ? 1 : 0);
  if (kind(a) !== kind(b)) return kind(a) - kind(b);
  return kind(a) === 1 ? a.localeCompare(b) : a - b;
}

function sortBy(column) {
  const again = state.sort?.column === column;
  state.sort = { column, down: again ? !state.sort.down : false };
  const { of } = COLUMNS[column], rows = [...find("jobs").querySelectorAll("tbody tr")];
  rows.sort((a, b) => {
    const [x, y] = [of(jobs[a.job]), of(jobs[b.job])];
    if (x === null || y === null) return compare(x, y);
    return (state.sort.down ? -1 : 1) * compare(x, y) || a.job - b.job;
  });
  find("jobs").querySelector("tbody").append(...rows);
  find("jobs").querySelectorAll("th").forEach((head, i) => {
    head.setAttribute("aria-sort", i !== column ? "none" : state.sort.down ? "descending" : "ascending");
  });
}

function makeTable() {
  const head = make(make(find("jobs"), "thead"), "tr"), body = make(find("jobs"), "tbody");
  const isNumber = COLUMNS.map(({ of }, i) => i && jobs.every((job) => typeof of(job) !== "string"));
  COLUMNS.forEach((column, i) => {
    const cell = make(head, "th", isNumber[i] ? "number" : "");
    const button = make(cell, "button", "", column.name);
    button.title = column.title ?? "";
    button.addEventListener("click", () => sortBy(i));
  });
  jobs.forEach((job, number) => {
    const row = make(body, "tr");
    row.job = number;
    row.tabIndex = 0;
    row.style.setProperty("--key", paint(number));
    COLUMNS.forEach(({ of, digits }, i) => {
      const value = of(job), cell = make(row, "td", isNumber[i] ? "number" : "");
      if (!i) make(cell, "span", "dot");
      const shown = digits === undefined || value === null ? text(value)
        : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
      if (!i && job.link) {
        const link = make(cell, "a", "", shown);
        link.href = job.link;
        link.title = "the run's report";
        link.addEventListener("click", (event) => event.stopPropagation());
      } else cell.append(shown);
      if (i === COLUMNS.length - 1 && job.reason) make(cell, "div", job.state, job.reason);
    });
    row.addEventListener("mouseenter", () => hover(number));
    row.addEventListener("mouseleave", () => hover(-1));
    row.addEventListener("click", () => pick(number));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") pick(number); });
  });
}

function makeGroups() {
  find("seeds-part").hidden = !groups.length;
  if (!groups.length) return;
  const head = make(make(find("seeds"), "thead"), "tr"), body = make(find("seeds"), "tbody");
  const names = keys.filter((key) => key.name !== "seed").map((key) => key.short);
  for (const name of [...names, "mean bpc", "sd", "seeds", "difference", "± error", ""]) {
    const cell = make(head, "th", name && !names.includes(name) ? "number" : "");
    cell.style.padding = ".4rem .7rem";
    cell.textContent = name;
  }
  const all = groups.flatMap((group) => group.best), low = Math.min(...all), high = Math.max(...all);
  const at = (bpc) => `${high > low ? 4 + (92 * (bpc - low)) / (high - low) : 50}%`;
  const fixed = (value, sign = "") => (value === null ? "" : (value > 0 ? sign : "") + value.toFixed(4));
  for (const group of groups) {
    const row = make(body, "tr");
    for (const value of group.values) make(row, "td", "", text(value));
    const numbers = [fixed(group.mean), fixed(group.sd), group.best.length,
                     fixed(group.difference, "+"), fixed(group.error)];
    for (const number of numbers) make(row, "td", "number", number);
    const spread = make(make(row, "td"), "div", "spread");
    if (group.sd !== null) {
      const line = make(spread, "i");
      line.style.left = at(Math.max(low, group.mean - group.sd));
      line.style.right = `calc(100% - ${at(Math.min(high, group.mean + group.sd))})`;
    }
    for (const bpc of group.best) make(spread, "s").style.left = at(bpc);
    make(spread, "b").style.left = at(group.mean);
  }
}

function makeImportances() {
  find("importances-part").hidden = !data.importances.length;
  for (const [key, share] of data.importances) {
    const row = make(find("importances"), "tr");
    make(row, "td", "", key);
    make(row, "td", "number", `${(100 * share).toFixed(1)} %`);
    const cell = make(row, "td");
    cell.style.width = "60%";
    make(cell, "div", "bar").style.width = `${100 * share}%`;
  }
}
