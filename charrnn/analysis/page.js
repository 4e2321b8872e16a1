// The neurons page: one model along a text, or two side by side. Each has its list of units, its signals
// and its text; `m` is the one that the list, the maps and the inspector are of.

const data = JSON.parse(find("data").textContent);
const length = data.models[0].characters.length, ROWS = 16, MOST_BITS = 8;
const MARKS = { "\n": "\u21b5", "\t": "\u21e5", " ": "\u2423" };
const SIGNALS = { activation: "activation", reset: "reset gate", update: "update gate" };
const MARKED = "marked text";

const state = { position: 0, signal: "activation", color: "unit" };
const models = data.models.map((own, number) => ({
  ...own, number, count: own.layers * own.hidden, unit: 0, measure: 0, order: [], rank: [], spans: [],
  arrays: {}, options: [],
}));
let m = models[0], colors = [], paints = [];

// A signal of a model, (count, length): activations scaled by 127, gates from 0 to 127.
function signalOf(model, name = state.signal) {
  if (!model.signals.includes(name)) name = "activation";
  model.arrays[name] ??= decode(find(`${name}-${model.number}`));
  return model.arrays[name];
}

function decode(element) {
  const binary = atob(element.textContent), values = new Int8Array(binary.length);
  for (let i = 0; i < binary.length; i++) values[i] = binary.charCodeAt(i);
  element.remove();  // frees its memory
  return values;
}

const glyph = (label) => MARKS[label] ?? label;
const unitName = (unit) => `${Math.floor(unit / m.hidden)}.${unit % m.hidden}`;
const signed = (value, digits) =>
  (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);
const percent = (p) => (p < 0.00095 ? "< 0.1" : (100 * p).toFixed(1)) + " %";
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// The texts: spans are made once, and only their colors change.
function makeText(model) {
  const whole = document.createDocumentFragment(), unknown = new Set(model.unknown);
  let row = make(whole, "div", "row");
  model.characters.forEach((label, position) => {
    const span = make(row, "span", "", label);
    if (label === "\n" || label === "\t") {
      span.textContent = MARKS[label] + (label === "\t" ? "\t" : "");
      span.className = "mark";
    } else if (label.length > 1 && label[0] === "\\") span.className = "mark";
    if (unknown.has(position)) span.classList.add("unknown");
    span.position = position;
    model.spans.push(span);
    if (label === "\n" && position + 1 < length) row = make(whole, "div", "row");
  });
  model.pane = make(find("texts"), "div", "text");
  model.pane.id = model.number ? `text-${model.number}` : "text";
  model.pane.tabIndex = 0;
  model.pane.setAttribute("role", "region");
  model.pane.setAttribute("aria-label", `The text, along ${model.name}`);
  if (models.length > 1) model.head = make(model.pane, "h2", "", model.name);
  model.pane.append(whole);
}

// Colors: from --low over --page to --high.
function makePalette() {
  const style = getComputedStyle(document.documentElement);
  const [low, middle, high] = ["--low", "--page", "--high"].map((name) =>
    style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((x) => parseInt(x, 16)));
  colors = [];
  for (let v = -127; v <= 127; v++) {
    const end = v < 0 ? low : high, share = Math.abs(v) / 127;
    colors.push(middle.map((m, i) => Math.round(m + share * (end[i] - m))));
  }
  paints = colors.map((c) => `rgb(${c.join()})`);
}

function paintText(model) {
  const values = signalOf(model), start = model.unit * length;
  for (let t = 0; t < length; t++) {
    const level = state.color === "unit" ? values[start + t]
      : Math.round(127 * Math.min(1, bitsAt(model, t) / MOST_BITS));
    model.spans[t].style.backgroundColor = paints[level + 127];
  }
}

// Surprisal of the character at a position; that of the first is not known.
const bitsAt = (model, position) =>
  position ? -Math.log2(Math.max(model.actual[position - 1], 1e-38)) : 0;

function paintAll() {
  models.forEach(paintText);
  const [low, bar, high] = find("legend").children, bits = state.color !== "unit";
  const signed = !bits && state.signal === "activation";
  low.textContent = signed ? "\u22121" : "0";
  high.textContent = bits ? `${MOST_BITS} bits` : signed ? "+1" : "1";
  bar.style.background =
    `linear-gradient(90deg, ${signed ? "var(--low), " : ""}var(--page), var(--high))`;
}

// The list of units.
function makeOptions(model) {
  m = model;
  model.options = Array.from({ length: model.count }, (_, unit) => {
    const option = document.createElement("div");
    option.className = "unit";
    option.setAttribute("role", "option");
    option.id = `unit-${unitName(unit)}`;
    option.unit = unit;
    make(option, "span", "", unitName(unit));
    make(option, "i");
    make(option, "b");
    return option;
  });
}

function sort() {
  const { strengths, name, mean } = m.measures[m.measure];
  const spread = name === "standard deviation", counts = /position|indentation/.test(name);
  m.order = Array.from(strengths.keys())
    .sort((a, b) => Math.abs(strengths[b]) - Math.abs(strengths[a]) || a - b);
  m.order.forEach((unit, i) => {
    m.rank[unit] = i;
    const [, bar, value] = m.options[unit].children;
    bar.style.width = `${100 * Math.min(1, Math.abs(strengths[unit]))}%`;
    bar.className = strengths[unit] < 0 ? "negative" : "";
    value.textContent = spread ? strengths[unit].toFixed(3) : signed(strengths[unit], 3);
  });
  find("units").replaceChildren(...m.order.map((unit) => m.options[unit]));
  find("about").textContent = spread
    ? "Standard deviation of the activation along the text."
    : `Correlation of the ${name === MARKED ? SIGNALS[state.signal] : "activation"} with ${name}, ` +
      (counts ? `${mean.toFixed(1)} on average.` : `true at ${percent(mean)} of the characters.`);
}

// Heat maps: rows are the ROWS units around the selected one in the list, columns characters.
function shownUnits() {
  const first = Math.floor(m.rank[m.unit] / ROWS) * ROWS;
  return m.order.slice(first, first + ROWS);
}

const LEFT = 58;
function detailRange() {
  const columns = clamp(Math.floor((find("detail").clientWidth - LEFT) / 9), 1, length);
  const from = clamp(state.position - (columns >> 1), 0, length - columns);
  return [from, from + columns];
}

function heatMap(canvas, from, to, labeled) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const values = signalOf(m), units = shownUnits(), floor = labeled ? height - 18 : height;
  const columns = clamp(Math.round((width - LEFT) * scale), 1, to - from);
  const image = new ImageData(columns, units.length);
  units.forEach((unit, row) => {
    for (let column = 0; column < columns; column++) {
      const begin = from + Math.floor((column * (to - from)) / columns);
      const end = from + Math.floor(((column + 1) * (to - from)) / columns);
      let sum = 0;
      for (let t = begin; t < end; t++) sum += values[unit * length + t];
      const color = colors[Math.round(sum / (end - begin)) + 127];
      image.data.set([...color, 255], 4 * (row * columns + column));
    }
  });
  const small = new OffscreenCanvas(columns, units.length);
  small.getContext("2d").putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  const tall = (floor / ROWS) * units.length, cell = (width - LEFT) / (to - from);
  pen.drawImage(small, LEFT, 0, width - LEFT, tall);
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink"), soft = style.getPropertyValue("--soft");
  const selected = units.indexOf(m.unit), high = floor / ROWS;
  pen.strokeStyle = pen.fillStyle = ink;
  pen.lineWidth = labeled ? 1.5 : 1;
  if (labeled) {
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    units.forEach((unit, row) => {
      pen.font = `${unit === m.unit ? "700 " : ""}10px system-ui, sans-serif`;
      pen.fillStyle = unit === m.unit ? ink : soft;
      pen.fillText(unitName(unit), LEFT - 7, (row + 0.5) * high);
    });
    pen.font = "11px ui-monospace, 'DejaVu Sans Mono', Menlo, monospace";
    pen.textAlign = "center";
    for (let t = from; t < to; t++) {
      const label = m.characters[t] === " " ? "" : glyph(m.characters[t]);
      pen.fillStyle = t === state.position ? ink : soft;
      pen.fillText(label.length > 2 ? "\u00b7" : label, LEFT + (t - from + 0.5) * cell, floor + 9);
    }
    pen.strokeRect(LEFT + 0.75, selected * high, width - LEFT - 1.5, high);
    pen.strokeRect(LEFT + (state.position - from) * cell, 0, cell, tall);
  } else {
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.font = "10px system-ui, sans-serif";
    pen.fillStyle = soft;
    pen.fillText("whole text", LEFT - 5, height / 2);
    const [first, last] = detailRange();
    pen.strokeRect(LEFT + first * cell, 0.5, Math.max(2, (last - first) * cell), height - 1);
  }
}

function drawMaps() {
  const units = shownUnits(), first = m.rank[units[0]];
  find("rows").textContent = `Units ${first + 1} to ${first + units.length} of ${m.count} in this order`;
  heatMap(find("overview"), 0, length, false);
  heatMap(find("detail"), ...detailRange(), true);
}

const valueText = (model, name, position) => {
  const value = signalOf(model, name)[model.unit * length + position] / 127;
  return name === "activation" ? signed(value * model.scale, 2) : value.toFixed(2);
};

// The inspector: the selected unit and the predictions at one character.
function inspect(position) {
  find("where").textContent = `Character ${(position + 1).toLocaleString("en")} of ${length.toLocaleString("en")}` +
    (m.unknown.includes(position) ? ", not in the alphabet" : "");
  find("glyph").textContent = glyph(m.characters[position]);
  find("unit").textContent =
    `Layer ${Math.floor(m.unit / m.hidden)}, unit ${m.unit % m.hidden}`;
  const value = signalOf(m)[m.unit * length + position] / 127;
  find("value").textContent = valueText(m, state.signal, position);
  find("others").textContent = m.signals.filter((name) => name !== state.signal)
    .map((name) => `${SIGNALS[name]} ${valueText(m, name, position)}`).join(", ");
  find("bits").textContent = position
    ? `Surprisal ${bitsAt(m, position).toFixed(2)} bits` : "";
  find("value").style.boxShadow = `inset 6px 0 ${paints[Math.round(value * 127) + 127]}`;
  find("value").style.paddingLeft = "12px";
  find("nexts").replaceChildren();
  const actual = m.characters[position + 1];
  const predictions = m.likeliest[position].map(
    (i, k) => [m.labels[i], m.probabilities[position][k]]);
  let found = false;
  for (const [label, probability] of predictions) {
    found = addNext(label, probability, label === actual) || found;
  }
  if (actual !== undefined && !found) addNext(actual, m.actual[position], true);
}

function addNext(label, probability, actual) {
  const row = make(find("nexts"), "div", actual ? "next actual" : "next");
  make(row, "code", "", glyph(label) + (actual ? " \u2713" : ""));
  make(row, "i").style.width = `${100 * probability}%`;
  make(row, "b", "", percent(probability));
  if (actual) row.title = "the next character of the text";
  return actual;
}

// Selection.
function select(change, scroll = true) {
  const before = { unit: m.unit, measure: m.measure, position: state.position };
  for (const key of ["unit", "measure"]) if (change[key] !== undefined) m[key] = change[key];
  if (change.position !== undefined) state.position = change.position;
  const all = change.all === true;
  if (all || m.measure !== before.measure) {
    find("measure").value = m.measure;
    sort();
    if (change.unit === undefined) m.unit = m.order[0];
    m.options[m.unit].scrollIntoView({ block: "nearest" });
  }
  if (all || m.unit !== before.unit) {
    m.options[before.unit].removeAttribute("aria-selected");
    m.options[m.unit].setAttribute("aria-selected", "true");
    find("units").setAttribute("aria-activedescendant", m.options[m.unit].id);
    m.options[m.unit].scrollIntoView({ block: "nearest" });
    paintText(m);
  }
  if (all || state.position !== before.position) {
    for (const { spans } of models) {
      spans[before.position].classList.remove("here");
      spans[state.position].classList.add("here");
    }
    if (scroll) m.spans[state.position].scrollIntoView({ block: "nearest" });
  }
  drawMaps();
  inspect(state.position);
  const hash = `#unit=${unitName(m.unit)}&position=${state.position}&measure=` +
    encodeURIComponent(m.measures[m.measure].name);
  if (location.hash !== hash) history.replaceState(null, "", hash);
}

// The list, the maps and the inspector go over to a model.
function enter(model, change = {}) {
  m = model;
  for (const each of models) each.head?.classList.toggle("here", each === m);
  find("measure").replaceChildren();
  m.measures.forEach((measure, i) => {
    const option = make(find("measure"), "option", "", measure.name);
    option.value = i;
    option.disabled = !measure.strengths.some((s) => s);
    if (option.disabled) option.textContent += " (not in this text)";
  });
  find("summary").textContent = summaryOf(m);
  select({ unit: m.rank.length ? m.unit : undefined, ...change, all: true }, false);
}

function fromHash(hash) {
  const query = new URLSearchParams(hash.slice(1));
  const change = { measure: m.measures.findIndex((each) => each.name === query.get("measure")) };
  if (change.measure < 0)
    change.measure = m.measures.findIndex((each) => each.strengths.some((s) => s));
  change.measure = Math.max(0, change.measure);
  const [layer, unit] = (query.get("unit") ?? "").split(".").map(Number);
  if (layer >= 0 && layer < m.layers && unit >= 0 && unit < m.hidden)
    change.unit = Math.floor(layer) * m.hidden + Math.floor(unit);
  change.position = clamp(Math.floor(Number(query.get("position"))) || 0, 0, length - 1);
  select({ ...change, all: true }, change.position > 0);
}

function listen() {
  find("measure").addEventListener("change", (e) => select({ measure: Number(e.target.value) }));
  find("units").addEventListener("click", (e) => {
    const option = e.target.closest(".unit");
    if (option) select({ unit: option.unit });
  });
  for (const model of models) {
    model.pane.addEventListener("click", (e) => {
      if (!getSelection().isCollapsed) return;  // the end of a drag over what is to be marked
      const change = e.target.position === undefined ? {} : { position: e.target.position };
      if (model !== m) enter(model, change);
      else if (change.position !== undefined) select(change, false);
    });
    model.pane.addEventListener("mouseover", (e) => {
      if (e.target.position !== undefined) inspect(e.target.position);
    });
    model.pane.addEventListener("mouseleave", () => inspect(state.position));
    model.pane.addEventListener("scroll", () => {
      for (const other of models)
        if (other !== model && model.pane.matches(":hover")) other.pane.scrollTop = model.pane.scrollTop;
    });
  }
  const at = (e, from, to) => from + Math.floor(
    clamp((e.offsetX - LEFT) / (e.target.clientWidth - LEFT), 0, 0.999999) * (to - from));
  find("overview").addEventListener("click", (e) => select({ position: at(e, 0, length) }));
  find("detail").addEventListener("click", (e) => {
    const row = Math.floor((e.offsetY / (e.target.clientHeight - 18)) * ROWS);
    select({ position: at(e, ...detailRange()), unit: shownUnits()[row] ?? m.unit });
  });
  find("detail").addEventListener("mousemove", (e) => inspect(at(e, ...detailRange())));
  find("detail").addEventListener("mouseleave", () => inspect(state.position));
  find("signal").addEventListener("change", (e) => {
    state.signal = e.target.value;
    paintAll();
    drawMaps();
    inspect(state.position);
  });
  find("color").addEventListener("change", (e) => {
    state.color = e.target.value;
    paintAll();
  });
  find("mark").addEventListener("click", markSelection);
  find("unmark").addEventListener("click", unmark);
  document.addEventListener("keydown", (e) => {
    if (/SELECT|BUTTON/.test(e.target.tagName) || e.altKey || e.ctrlKey || e.metaKey) return;
    const units = { ArrowUp: -1, ArrowDown: 1, PageUp: -ROWS, PageDown: ROWS }[e.key];
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (units) select({ unit: m.order[clamp(m.rank[m.unit] + units, 0, m.count - 1)] });
    else if (steps) select({ position: clamp(state.position + steps, 0, length - 1) });
    else return;
    e.preventDefault();
  });
  addEventListener("resize", drawMaps);
  addEventListener("hashchange", () => fromHash(location.hash));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    makePalette();
    paintAll();
    drawMaps();
  });
}

function summaryOf(model) {
  const bits = model.actual.reduce((sum, p) => sum - Math.log2(Math.max(p, 1e-38)), 0);
  return `${model.kind}, ${model.layers} \u00d7 ${model.hidden} units, ` +
    `${model.parameters.toLocaleString("en")} parameters; ${length.toLocaleString("en")} ${model.unitName}` +
    (length > 1 ? `, ${(bits / (length - 1)).toFixed(2)} bits each` : "");
}

const asked = location.hash;  // which a selection replaces
document.querySelector("h1").textContent = data.title;
const signals = new Set(models.flatMap((model) => model.signals));
for (const name of signals) make(find("signal"), "option", "", SIGNALS[name]).value = name;
find("signal-label").hidden = signals.size < 2;
find("texts").classList.toggle("two", models.length > 1);
models.forEach(makeText);
makePalette();
for (const model of [...models].reverse()) {
  makeOptions(model);
  const first = model.measures.findIndex((each) => each.strengths.some((s) => s));
  enter(model, { unit: undefined, measure: Math.max(0, first) });
}
listen();
fromHash(asked);
paintAll();
