// Charts of uPlot in the colors of the page, and numbers in few digits.

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const short = (value) => {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1e9) return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return size && size < 1e-3 ? Number(value.toPrecision(3)).toExponential() : String(+value.toPrecision(4));
};

const drawn = [];

// Draws a chart, and again where the colors or the width change.
// build: a function to uPlot's options without width, axes' colors; data: its columns.
function chart(parent, height, build, data) {
  const entry = { parent, height, build, data, plot: null };
  drawn.push(entry);
  redraw(entry);
  return entry;
}

function redraw(entry) {
  const scales = entry.plot && Object.fromEntries(
    Object.entries(entry.plot.scales).map(([key, { min, max }]) => [key, { min, max }]));
  entry.plot?.destroy();
  const options = { width: entry.parent.clientWidth, height: entry.height, ...entry.build() };
  options.axes = options.axes.map((axis, number) => ({
    stroke: color("--soft"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
    space: number ? 40 : 75,
    grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 },
    values: (plot, splits) => splits.map(short), ...axis,
  }));
  entry.plot = new uPlot(options, entry.data, entry.parent);
  if (scales && entry.keep) for (const key in scales) entry.plot.setScale(key, scales[key]);
}

const widths = new ResizeObserver(() => {
  for (const entry of drawn) {
    const width = entry.parent.clientWidth;
    if (width && Math.abs(width - entry.plot.width) > 1)
      entry.plot.setSize({ width, height: entry.height });
  }
});

// One table of windows for several curves, each as [windows, values].
function joined(curves) {
  const windows = [...new Set(curves.flatMap(([x]) => x))].sort((a, b) => a - b);
  const at = new Map(windows.map((window, i) => [window, i]));
  return [windows, ...curves.map(([x, y]) => {
    const column = new Array(windows.length).fill(null);
    x.forEach((window, i) => { column[at.get(window)] = y[i]; });
    return column;
  })];
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(redraw));
widths.observe(document.documentElement);
