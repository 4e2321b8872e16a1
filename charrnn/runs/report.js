// A run's page: samples and curves along the training, settings, commands.

const data = JSON.parse(find("data").textContent);
const { samples, curves } = data;
const state = { sample: samples.length - 1, playing: 0 };

const NAMES = {
  "train/bpc": "training", "val/bpc": "validation", "train/lr": "Learning rate",
  "train/grad_norm": "Norm of the gradient", "train/chars_per_second": "Characters a second",
};
const COLORS = { "train/bpc": "--low", "val/bpc": "--high" };

// The line of the selected sample, over the curves of loss.
function markSample(plot) {
  if (!samples.length) return;
  const x = plot.valToPos(samples[state.sample].window, "x", true), { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = color("--ink");
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

function lossOptions(names) {
  return {
    cursor: { points: { size: 6 } },
    scales: { x: { time: false } },
    axes: [{ label: "windows", labelSize: 20 }, { size: 46 }],
    series: [{}, ...names.map((name) => ({
      label: NAMES[name], stroke: color(COLORS[name]), width: name === "val/bpc" ? 2 : 1.2,
      spanGaps: true, points: { show: name === "val/bpc", size: 5 },
    }))],
    hooks: { draw: [markSample] },
  };
}

function smallOptions() {
  return {
    cursor: { points: { size: 6 } },
    scales: { x: { time: false } },
    axes: [{}, { size: 50 }],
    series: [{}, { stroke: color("--low"), width: 1.3, spanGaps: true, points: { show: false } }],
  };
}

let loss = null;
function drawCurves() {
  const names = ["train/bpc", "val/bpc"].filter((name) => curves[name]);
  for (const name of names)
    make(find("legend"), "span", "", `${NAMES[name]} bpc`)
      .style.setProperty("--key", `var(${COLORS[name]})`);
  if (names.length) {
    loss = chart(find("loss"), 330, () => lossOptions(names), joined(names.map((n) => curves[n])));
    find("loss").addEventListener("click", () => {
      const { left } = loss.plot.cursor;
      if (left >= 0) showNearest(loss.plot.posToVal(left, "x"));
    });
  }
  for (const name of ["train/lr", "train/grad_norm", "train/chars_per_second"]) {
    if (!curves[name]) continue;
    const box = make(find("small"), "div", "chart");
    make(box, "h3", "", NAMES[name]);
    chart(make(box, "div"), 170, smallOptions, curves[name]);
  }
  if (!find("small").children.length) find("small").parentElement.hidden = true;
}

function showNearest(window) {
  let best = 0;
  samples.forEach((sample, i) => {
    const distance = (j) => Math.abs(samples[j].window - window);
    if (distance(i) < distance(best)) best = i;
  });
  show(best);
}

// The last point of a curve at or before a window: [window, value].
function lastBefore([windows, values] = [[], []], window) {
  const at = windows.findLastIndex((w) => w <= window);
  return at < 0 ? undefined : [windows[at], values[at]];
}

function show(number) {
  if (!samples.length) return;
  state.sample = number;
  const { window, text } = samples[number];
  find("slider").value = number;
  find("sample").textContent = text;
  const validation = lastBefore(curves["val/bpc"], window);
  const [name, bits] = validation?.[0] === window ? ["validation", validation[1]]
    : ["training", lastBefore(curves["train/bpc"], window)?.[1]];
  find("when").textContent = `window ${window.toLocaleString("en")}` +
    (bits === undefined ? "" : `, ${name} ${bits.toFixed(3)} bpc`);
  loss?.plot.redraw(false);
}

function play() {
  const number = ++state.playing, running = find("play").textContent === "Stop";
  find("play").textContent = running ? "Play" : "Stop";
  if (running) return;
  if (state.sample === samples.length - 1) show(0);
  const step = () => {
    if (state.playing !== number) return;
    if (state.sample < samples.length - 1) {
      show(state.sample + 1);
      setTimeout(step, 700);
    } else find("play").textContent = "Play";
  };
  setTimeout(step, 700);
}

function table(id, pairs) {
  const rows = make(find(id), "table");
  for (const [key, value] of pairs) {
    const row = make(rows, "tr");
    make(row, "td", "", key);
    make(row, "td", "", value);
  }
}

document.querySelector("h1").textContent = data.name;
find("state").textContent = data.state;
find("state").classList.toggle("failed", data.state === "failed");
find("reason").textContent = data.reason;
for (const [name, value] of data.facts) {
  const box = make(find("facts"), "div");
  make(box, "dt", "", name);
  make(box, "dd", "", value);
}
table("settings", data.settings);
table("machine", data.machine);
for (const [what, line] of data.commands) {
  const row = make(find("commands"), "div");
  make(row, "span", "", what);
  make(row, "code", "", line);
  const copy = make(row, "button", "", "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(line);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1200);
  });
}
find("search").addEventListener("input", () => {
  const word = find("search").value.toLowerCase();
  for (const row of find("settings").querySelectorAll("tr"))
    row.hidden = !row.textContent.toLowerCase().includes(word);
});
find("slider").max = Math.max(0, samples.length - 1);
find("slider").addEventListener("input", () => { state.playing++; show(Number(find("slider").value)); });
find("play").addEventListener("click", play);
if (!samples.length) {
  find("samples").hidden = find("steps").hidden = true;
  find("learning").textContent = "Loss";
  document.querySelector(".pair").style.gridTemplateColumns = "minmax(0, 1fr)";
}
drawCurves();
show(samples.length - 1);
