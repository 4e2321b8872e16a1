// The page: its form, texts of colored characters, and the characters at the caret.

const MARKS = { "\n": "\u21b5", "\t": "\u21e5", " ": "\u2423", "": "\u2205" };
const MOST_BITS = 8;  // the surprisal of the darkest color

function take(id) {
  const element = find(id), binary = atob(element.textContent.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  element.remove();  // frees its memory
  return bytes;
}

const description = JSON.parse(find("description").textContent);
const charset = new Engine.Charset(description.charset);
const assembled = take("module");
const module = typeof WebAssembly === "object" && WebAssembly.validate(assembled)
  ? new WebAssembly.Module(assembled) : null;
const model = new Engine.Model(description, take("weights"), module);
window.charrnn = Writer.makeInterface(model, charset, description.about);

const view = { texts: [], text: null, caret: 0, running: 0, mode: "write" };

const percent = (p) => (p < 0.00095 ? "< 0.1" : (100 * p).toFixed(1)) + " %";
// Controls, and what would turn the direction of the rest of the page.
const hidden = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;
const escaped = (text) => text.replace(hidden, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
function label(index) {
  if (index === charset.boundary) return "end";
  const symbol = charset.symbols[index];
  if (charset.bytes && index && symbol > "\x7f") return "0x" + symbol.charCodeAt(0).toString(16);
  return MARKS[symbol] ?? escaped(symbol);
}

// Colors.
function colorOf(step) {
  const kind = find("color").value;
  let value = 0, end = "--high";
  if (kind === "bits") value = Math.min(1, step.bits / MOST_BITS);
  if (kind === "unit" && step.units) {
    value = Math.abs(step.units[Number(find("unit").value)] / 127);
    if (step.units[Number(find("unit").value)] < 0) end = "--low";
  }
  return value > 0 ? `color-mix(in srgb, var(${end}) ${(100 * value).toFixed(0)}%, transparent)` : "";
}

function paint() {
  const kind = find("color").value;
  find("unit-label").hidden = kind !== "unit";
  find("legend").hidden = !kind;
  const [low, bar, high] = find("legend").children;
  low.textContent = kind === "unit" ? "\u22121" : "0";
  high.textContent = kind === "unit" ? "+1" : `${MOST_BITS} bits and more`;
  bar.style.background = `linear-gradient(90deg, ${kind === "unit" ? "var(--low)" : "var(--page)"},`
    + " var(--page), var(--high))";
  if (kind === "bits") bar.style.background = "linear-gradient(90deg, var(--page), var(--high))";
  for (const text of view.texts) {
    text.body.classList.toggle("colored", Boolean(kind));
    for (const span of text.spans) span.style.backgroundColor = colorOf(span.step);
  }
}

// Texts.
function addText(title) {
  const text = new Writer.Text(model, charset, true), article = make(find("texts"), "article");
  Object.assign(text, { article, title: make(article, "h2", "", title), spans: [], drawn: 0 });
  text.body = make(article, "div", "text");
  text.body.classList.toggle("colored", Boolean(find("color").value));
  text.body.addEventListener("click", (event) => {
    const span = event.target.closest("span");
    if (span) moveCaret(text, span.number + 1);
  });
  view.texts.push(text);
  return text;
}

// Adds a span for each new step that completes text.
function draw(text) {
  const whole = document.createDocumentFragment();
  for (; text.drawn < text.steps.length; text.drawn++) {
    const step = text.steps[text.drawn];
    if (!step.text) continue;
    const shown = escaped(step.text), span = make(whole, "span", "", shown);
    if (text.drawn < text.promptLength) span.classList.add("prompt");
    if (shown !== step.text) span.classList.add("code");
    if (step.text === "\n") span.classList.add("line");
    if (step.index === 0) span.classList.add("unknown");
    span.step = step;
    span.number = text.drawn;
    span.style.backgroundColor = colorOf(step);
    text.spans.push(span);
  }
  text.body.append(whole);
}

function tell(note, bad = false) {
  find("note").textContent = note;
  find("note").classList.toggle("bad", bad);
}

function setRunning(running) {
  for (const id of ["go", "back", "continue"]) find(id).disabled = running;
  for (const button of document.querySelectorAll(".next")) button.disabled = running;
  find("halt").disabled = !running;
  if (!running) showCaret();
}

const numberOf = (id) => (find(id).value.trim() === "" ? undefined : Number(find(id).value));
const unescaped = (text) => text.replace(/(\\?)\\([nt])/g,
  (whole, slash, letter) => (slash ? `\\${letter}` : { n: "\n", t: "\t" }[letter]));

function settings() {
  return {
    temperature: numberOf("temperature"), top_k: numberOf("top_k"), top_p: numberOf("top_p"),
    min_p: numberOf("min_p"), length: numberOf("length"), seed: find("seed").value.trim() || undefined,
    stop: find("stop").value ? unescaped(find("stop").value) : undefined,
  };
}

// Runs one thing at a time; a newer one, or Stop, ends it.
async function run(work) {
  const number = ++view.running, isCurrent = () => view.running === number;
  setRunning(true);
  tell("");
  const begin = performance.now();
  try {
    const count = await work(isCurrent);
    const seconds = (performance.now() - begin) / 1000;
    if (count) tell(`${count.toLocaleString("en")} ${description.unit}, ${
      Math.round(count / Math.max(seconds, 0.001)).toLocaleString("en")} a second${
      model.simd ? "" : " (without SIMD)"}`);
  } catch (error) {
    tell(error.message, true);
  }
  if (isCurrent()) setRunning(false);
}

function draws(text) {
  let asked = false;
  return () => {
    if (!asked) requestAnimationFrame(() => { asked = false; draw(text); });
    asked = true;
  };
}

function writeAll() {
  return run(async (isCurrent) => {
    const indices = charset.encode(find("prompt").value), samples = numberOf("samples") ?? 1;
    if (!Number.isInteger(samples) || samples < 1 || samples > 100)
      throw new Error(`Samples must be a whole number from 1 to 100`);
    find("texts").replaceChildren();
    view.texts = [];
    let count = 0;
    for (let sample = 0; sample < samples && isCurrent(); sample++) {
      const text = addText(samples > 1 ? `Sample ${sample + 1}` : "");
      Object.assign(text, { promptLength: indices.length, sample });
      await text.readAll(indices, isCurrent);
      await text.write({ ...settings(), sample }, draws(text), isCurrent);
      draw(text);
      count += text.steps.length - indices.length;
      moveCaret(text, text.steps.length);
    }
    return count;
  });
}

function readText() {
  return run(async (isCurrent) => {
    find("texts").replaceChildren();
    view.texts = [];
    const text = addText("");
    Object.assign(text, { promptLength: 0, sample: 0 });
    await text.readAll(charset.encode(find("prompt").value, "replace"), isCurrent);
    const symbols = charset.bytes ? [] : charset.preprocess(find("prompt").value);
    text.steps.forEach((step, i) => { step.text = symbols[i] ?? step.text; });
    draw(text);
    const bits = text.steps.slice(1).map((step) => step.bits), sum = bits.reduce((a, b) => a + b, 0);
    if (bits.length) text.title.textContent = `${(sum / bits.length).toFixed(3)} bits per ${
      description.unit.replace(/s$/, "")}, ${Math.round(sum).toLocaleString("en")} in all`;
    moveCaret(text, text.steps.length);
    return text.steps.length;
  });
}

// A text of the first `count` steps of another, which it replaces.
async function cutText(text, count, isCurrent) {
  const steps = text.steps.slice(0, count);
  text.spans.splice(text.spans.findIndex((span) => span.number >= count) >>> 0)
    .forEach((span) => span.remove());
  text.steps = [];
  text.writing = false;
  text.drawn = count;
  text.promptLength = Math.min(text.promptLength, count);
  text.decode = charset.decoder();
  text.enter();
  text.begin();
  if (text.promptLength === 0) text.writing = true;
  await text.readAll(steps.map((step) => step.index), isCurrent);
  text.steps.splice(0, count, ...steps);
}

function choose(index) {
  const { text, caret } = view;
  return run(async (isCurrent) => {
    await cutText(text, caret, isCurrent);
    text.read(index);
    draw(text);
    moveCaret(text, caret + 1);
  });
}

function goOn() {
  const { text, caret } = view;
  return run(async (isCurrent) => {
    await cutText(text, caret, isCurrent);
    await text.write({ ...settings(), sample: text.sample }, draws(text), isCurrent);
    draw(text);
    moveCaret(text, text.steps.length);
    return text.steps.length - caret;
  });
}

// The caret stands after `caret` steps of a text.
function moveCaret(text, caret) {
  for (const each of view.texts) {
    each.article.classList.toggle("here", each === text && view.texts.length > 1);
    each.body.classList.remove("at-start");
    each.body.querySelector(".caret")?.classList.remove("caret");
  }
  Object.assign(view, { text, caret });
  const span = text.spans.findLast((each) => each.number < caret);
  if (span) span.classList.add("caret");
  else text.body.classList.add("at-start");
  showCaret();
}

function addValue(name, value) {
  make(find("values"), "dt", "", name);
  make(find("values"), "dd", "", value);
}

function showCaret() {
  const { text, caret } = view;
  if (!text) return;
  const running = !find("halt").disabled, step = text.steps[caret - 1];
  find("glyph").textContent = step ? label(step.index) : "start";
  find("values").replaceChildren();
  addValue("Character", `${caret.toLocaleString("en")} of ${text.steps.length.toLocaleString("en")}`);
  if (step && !isNaN(step.bits)) addValue("Surprisal", `${step.bits.toFixed(2)} bits`);
  if (step?.units && find("color").value === "unit")
    addValue(`Unit ${unitName()}`, (step.units[Number(find("unit").value)] / 127).toFixed(2));
  find("nexts").replaceChildren();
  find("back").disabled = running || caret < 1;
  find("continue").disabled = running;
  let top = text.steps[caret]?.top, actual = text.steps[caret];
  if (!top) {
    text.enter();
    top = text.likeliest().top;
  }
  if (actual && !top.some(([index]) => index === actual.index) && !isNaN(actual.bits))
    top = [...top, [actual.index, 2 ** -actual.bits]];
  for (const [index, chance] of top) {
    const row = make(find("nexts"), "button", "next");
    row.type = "button";
    row.disabled = running || index === charset.boundary;
    make(row, "code", "", label(index));
    make(row, "i").style.width = `${100 * chance}%`;
    make(row, "span", "", percent(chance));
    row.classList.toggle("actual", index === actual?.index);
    row.addEventListener("click", () => choose(index));
  }
}

function unitName() {
  const unit = Number(find("unit").value);
  return `${Math.floor(unit / description.hidden)}.${unit % description.hidden}`;
}

function setMode(mode) {
  view.mode = mode;
  for (const each of ["write", "read"])
    find(`${each}-mode`).setAttribute("aria-pressed", String(each === mode));
  find("settings").hidden = mode === "read";
  find("prompt-label").textContent = mode === "read" ? "Text" : "Prompt";
  find("go").textContent = mode === "read" ? "Read" : "Write";
}

function listen() {
  find("write-mode").addEventListener("click", () => setMode("write"));
  find("read-mode").addEventListener("click", () => setMode("read"));
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!find("go").disabled) view.mode === "read" ? readText() : writeAll();
  });
  find("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit();
  });
  find("halt").addEventListener("click", () => {
    view.running++;
    setRunning(false);
  });
  find("back").addEventListener("click", () => moveCaret(view.text, view.caret - 1));
  find("continue").addEventListener("click", goOn);
  find("temperature").addEventListener("input", () => {
    find("temperature-value").textContent = find("temperature").value;
  });
  for (const id of ["color", "unit"]) find(id).addEventListener("input", () => {
    const unit = Number(find("unit").value), most = description.hidden * description.layers - 1;
    find("unit").value = Math.min(most, Math.max(0, Math.floor(unit) || 0));
    paint();
    showCaret();
  });
}

document.querySelector("h1").textContent = description.title;
find("summary").textContent = description.summary;
for (const [name, value] of description.about) {
  make(find("about"), "dt", "", name);
  make(find("about"), "dd", "", value);
}
find("unit").max = description.hidden * description.layers - 1;
find("settings").open = !matchMedia("(max-width: 900px)").matches;
listen();
paint();
writeAll();
