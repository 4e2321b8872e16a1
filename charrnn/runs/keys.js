// Pictures of a sweep's keys: parallel coordinates with brushes, and best bpc against each key.

// An axis: the position of a job's value on it, from 0 to 1, and its marks.
function axisOf(name, values) {
  const present = values.filter((value) => value !== null);
  const isNumber = present.length && present.every((value) => typeof value === "number");
  if (!isNumber) {
    const names = [...new Set(present)].sort(compare);
    const position = (value) => (names.length > 1 ? names.indexOf(value) / (names.length - 1) : 0.5);
    const marks = names.map((value) => [position(value), text(value)]);
    return { name, position, marks, ordered: names, isNumber };
  }
  const low = Math.min(...present), high = Math.max(...present);
  const wide = low > 0 && high >= 8 * low, scale = wide ? Math.log10 : Number;
  const position = (value) => (high > low ? (scale(value) - scale(low)) / (scale(high) - scale(low)) : 0.5);
  const distinct = [...new Set(present)].sort((a, b) => a - b);
  let marked = distinct;
  if (distinct.length > 6) marked = [0, 0.25, 0.5, 0.75, 1].map((share) => wide
    ? low * (high / low) ** share : low + share * (high - low));
  return { name, position, marks: marked.map((value) => [position(value), short(value)]), isNumber, wide };
}

// Axes reach over the jobs that have a line: the values of failed ones may be far away.
const measured = jobs.filter((job) => job.best !== null);
const AXES = [
  ...keys.map((key, i) => axisOf(key.short, measured.map((job) => job.values[i]))),
  axisOf("best bpc", jobs.map((job) => job.best)),
];
const valueOn = (axis, job) => (axis < keys.length ? jobs[job].values[axis] : jobs[job].best);

function positionOf(axis, job) {
  const value = valueOn(axis, job);
  return value === null ? null : AXES[axis].position(value);
}

function drawAxes(plot) {
  const { ctx, bbox } = plot, ratio = devicePixelRatio;
  ctx.save();
  ctx.lineWidth = ratio;
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  AXES.forEach(({ name, marks }, i) => {
    const x = plot.valToPos(i, "x", true), last = i === AXES.length - 1;
    ctx.strokeStyle = color("--soft");
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const range = state.ranges.get(i);
    if (range) {
      const [top, bottom] = [range[1], range[0]].map((share) => plot.valToPos(share, "y", true));
      ctx.fillStyle = color("--low");
      ctx.globalAlpha = 0.3;
      ctx.fillRect(x - 6 * ratio, top, 12 * ratio, bottom - top);
      ctx.globalAlpha = 1;
    }
    ctx.textAlign = last ? "right" : "left";
    let before = Infinity;
    for (const [share, label] of marks) {
      const y = plot.valToPos(share, "y", true);
      if (Math.abs(before - y) < 12 * ratio) continue;  // it would cover the last one
      before = y;
      const shown = label.length > 18 ? `${label.slice(0, 17)}…` : label;
      const width = ctx.measureText(shown).width, left = last ? x - 8 * ratio - width : x + 6 * ratio;
      ctx.fillStyle = color("--page");
      ctx.globalAlpha = 0.75;
      ctx.fillRect(left - 2 * ratio, y - 7 * ratio, width + 4 * ratio, 14 * ratio);
      ctx.globalAlpha = 1;
      ctx.fillStyle = color("--ink");
      ctx.fillText(shown, last ? x - 8 * ratio : x + 6 * ratio, y);
    }
    ctx.textAlign = i === 0 ? "left" : last ? "right" : "center";
    ctx.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    ctx.fillStyle = color("--ink");
    const room = bbox.width / Math.max(1, AXES.length - 1) / (6.2 * ratio);
    const title = name.length > room ? `${name.slice(0, Math.max(3, room - 1))}…` : name;
    ctx.fillText(title, i === 0 ? x - 6 * ratio : last ? x + 6 * ratio : x, bbox.top - 12 * ratio);
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  });
  ctx.restore();
}

function drawParallel() {
  const numbers = jobs.map((_, i) => i).filter((i) => jobs[i].best !== null).reverse();
  find("parallel-part").hidden = !keys.length || numbers.length < 2;
  if (find("parallel-part").hidden) return;
  const columns = [AXES.map((_, i) => i), ...numbers.map((job) => AXES.map((_, i) => positionOf(i, job)))];
  const entry = chart(find("parallel"), 320, () => ({
    padding: [26, 14, 8, 14],
    scales: { x: { time: false, range: [0, AXES.length - 1] }, y: { range: [-0.04, 1.04] } },
    cursor: { points: { show: false }, x: false, y: false, drag: { x: false, y: false } },
    axes: [{ show: false }, { show: false }],
    series: [{}, ...jobSeries(numbers)],
    hooks: { draw: [drawAxes] },
  }), columns);
  followLines(entry, numbers);
  brush(entry);
}

// A drag along an axis keeps the jobs in its range; a click there drops the range.
function brush(entry) {
  let axis = -1, start = 0;
  const position = (event) => {
    const box = entry.plot.over.getBoundingClientRect();
    return [event.clientX - box.left, entry.plot.posToVal(event.clientY - box.top, "y")];
  };
  entry.parent.addEventListener("pointerdown", (event) => {
    const [x, share] = position(event);
    axis = AXES.findIndex((_, i) => Math.abs(entry.plot.valToPos(i, "x") - x) < 14);
    start = share;
    state.down = axis >= 0;
    if (axis < 0) return;
    event.preventDefault();
    entry.parent.setPointerCapture(event.pointerId);
  });
  entry.parent.addEventListener("pointermove", (event) => {
    if (axis < 0) return;
    const [, share] = position(event);
    if (Math.abs(share - start) < 0.02) return;
    state.ranges.set(axis, [Math.min(start, share), Math.max(start, share)]);
    update();
  });
  const end = (event) => {
    if (axis < 0) return;
    if (Math.abs(position(event)[1] - start) < 0.02) state.ranges.delete(axis);
    axis = -1;
    update();
    setTimeout(() => { state.down = false; });  // after the click that ends the drag
  };
  entry.parent.addEventListener("pointerup", end);
  entry.parent.addEventListener("pointercancel", end);
}

// The marks of an axis whose labels do not cover the ones before them; null in place of the others.
function withRoom(plot, values) {
  let end = -Infinity;
  return values.map((value) => {
    const middle = plot.valToPos(value, "x"), half = 3.5 * short(value).length;
    if (middle - half < end + 6) return null;
    end = middle + half;
    return value;
  });
}

// Best bpc against one key: points, spread over the names where the values are no numbers.
function drawKey(number) {
  const axis = AXES[number], shown = jobs.map((_, i) => i)
    .filter((i) => jobs[i].best !== null && jobs[i].values[number] !== null);
  if (!shown.length) return;
  const box = make(find("keys"), "div", "chart");
  make(box, "h3", "", keys[number].name);
  const position = (i) => (axis.isNumber ? jobs[i].values[number] : axis.ordered.indexOf(jobs[i].values[number]));
  const xs = [...new Set(shown.map(position))].sort((a, b) => a - b);
  const columns = [xs, ...shown.map((i) => xs.map((x) => (x === position(i) ? jobs[i].best : null)))];
  const few = xs.length <= 5 ? { splits: () => xs, filter: withRoom } : {};
  const names = axis.isNumber ? few : {
    splits: () => axis.ordered.map((_, i) => i),
    values: (plot) => {
      const room = Math.max(3, plot.bbox.width / devicePixelRatio / axis.ordered.length / 7.5);
      return axis.ordered.map((name) => (name.length > room ? `${name.slice(0, room - 1)}…` : name));
    },
  };
  const pad = axis.isNumber ? (xs.at(-1) - xs[0]) * 0.05 || Math.abs(xs[0]) * 0.1 || 1 : 0.5;
  const range = axis.wide ? [xs[0] / 1.3, xs.at(-1) * 1.3] : [xs[0] - pad, xs.at(-1) + pad];
  const point = (job) => ({ points: {
    show: true, size: 9, stroke: () => strokeOf(job), fill: () => strokeOf(job), width: 1,
  }, paths: () => null });
  followLines(chart(make(box, "div"), 220, () => ({
    scales: { x: { time: false, range: () => range, distr: axis.wide ? 3 : 1, log: 10 } },
    cursor: { points: { show: false }, drag: { x: false, y: false } },
    axes: [{ ...names }, { size: 50 }],
    series: [{}, ...shown.map((job) => ({ ...jobSeries([job])[0], ...point(job) }))],
  }), columns), shown);
}

document.querySelector("h1").textContent = data.name;
const counts = {};
for (const job of jobs) counts[job.state] = (counts[job.state] ?? 0) + 1;
find("summary").textContent = `${jobs.length} jobs: ` +
  Object.entries(counts).map(([name, count]) => `${count} ${name}`).join(", ");
makeTable();
makeGroups();
makeImportances();
drawCurves();
drawParallel();
keys.forEach((_, i) => drawKey(i));
find("keys-part").hidden = !find("keys").children.length;
find("clear").addEventListener("click", () => {
  state.picked.clear();
  state.ranges.clear();
  update();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const row of find("jobs").querySelectorAll("tbody tr")) row.style.setProperty("--key", paint(row.job));
});
