// The writer: a model along a text, continued character by character, and window.charrnn.

const Writer = (() => {
  const SLICE = 20;  // milliseconds of work between two looks at the page
  const TOP = 5;
  const LONGEST = 1 << 20;

  // Lets the browser draw and react; timers would wait for 4 ms.
  const pause = () => new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = resolve;
    port2.postMessage(0);
  });

  function check(name, value, ok, expected) {
    if (!ok) throw new Error(`${name}=${value} must be ${expected}`);
  }

  const NAMES = ["prompt", "unknown", "length", "temperature", "top_k", "top_p", "min_p", "seed", "stop",
                 "sample"];

  function checkPrompt(settings) {
    check("settings", settings, settings !== null && typeof settings === "object",
          "an object such as {prompt: \"\", length: 200}");
    const other = Object.keys(settings).find((name) => !NAMES.includes(name));
    if (other !== undefined) throw new Error(`${other}: no such setting; there are ${NAMES.join(", ")}`);
    const { prompt = "", unknown = "error" } = settings;
    check("prompt", prompt, typeof prompt === "string", "a text");
    check("unknown", unknown, ["error", "skip", "replace"].includes(unknown), "error, skip or replace");
    return { prompt, unknown };
  }

  function checked(settings, count) {
    const { temperature = 1, top_k, top_p, min_p, stop, length = 500, sample = 0 } = settings;
    const whole = (value, least) => Number.isInteger(value) && value >= least;
    const share = (value) => (value ?? null) === null
      || (typeof value === "number" && value > 0 && value <= 1);
    check("temperature", temperature,
          typeof temperature === "number" && temperature >= 0 && temperature < Infinity, "at least 0");
    check("top_k", top_k, (top_k ?? null) === null || whole(top_k, 1), "a whole number, at least 1");
    check("top_p", top_p, share(top_p), "above 0, at most 1");
    check("min_p", min_p, share(min_p), "above 0, at most 1");
    check("length", length, whole(length, 0) && length + count <= LONGEST,
          `a whole number, at least 0, with the prompt at most ${LONGEST}`);
    check("sample", sample, whole(sample, 0), "a whole number, at least 0");
    const stops = stop === undefined || stop === null ? [] : [stop].flat();
    check("stop", stop, stops.every((s) => typeof s === "string" && s), "a text, or texts");
    let { seed } = settings;
    if (seed === undefined || seed === null) seed = crypto.getRandomValues(new Uint32Array(1))[0];
    try { seed = BigInt(seed); } catch { seed = -1n; }
    check("seed", settings.seed, seed >= 0n && seed < 1n << 64n, "a whole number from 0 to 2**64 - 1");
    return { temperature, top_k, top_p, min_p, stops, length, sample, seed };
  }

  // A text that a model has read or written. Each of its steps has the index of a character, the
  // text that it completes, its surprisal in bits, the likeliest characters before it was known, and
  // the units after it.
  class Text {
    constructor(model, charset, traced) {
      Object.assign(this, { model, charset, traced, steps: [], last: null });
      this.decode = charset.decoder();
      this.begin();
    }

    // The state before any character: after a boundary of documents, a newline, or U+FFFD.
    begin() {
      const { charset, model } = this;
      model.zero();
      model.step(charset.boundary >= 0 ? charset.boundary : charset.index.get("\n") ?? 0);
      this.keep();
      this.before = null;
    }

    // The model serves one text at a time; a text keeps its state.
    keep() {
      this.states = this.model.states.map((h) => h.slice());
      this.scores = this.model.scores.slice();
      this.model.owner = this;
    }

    enter() {
      if (this.model.owner === this) return;
      if (this.model.owner) this.model.owner.keep();
      this.model.states.forEach((h, l) => h.set(this.states[l]));
      this.model.scores.set(this.scores);
      this.model.owner = this;
    }

    // Probabilities of the likeliest next characters, and the logarithm (base 2) of the sum.
    likeliest() {
      const { scores, vocabulary } = this.model, top = [];
      let most = -Infinity, sum = 0;
      for (let j = 0; j < vocabulary; j++) if (scores[j] > most) most = scores[j];
      for (let j = 0; j < vocabulary; j++) {
        sum += Math.exp(scores[j] - most);
        if (top.length < TOP || scores[j] > scores[top[TOP - 1]]) {
          let i = Math.min(top.length, TOP - 1);
          for (; i > 0 && scores[j] > scores[top[i - 1]]; i--) top[i] = top[i - 1];
          top[i] = j;
        }
      }
      const scale = most + Math.log(sum);
      return { top: top.map((j) => [j, Math.exp(scores[j] - scale)]), scale };
    }

    // Reads a character. The first of a text is read from a state of zeros, and has no surprisal.
    read(index) {
      const step = { index, text: this.decode(index), bits: NaN, top: [], units: null };
      if (!this.steps.length && !this.writing) this.model.zero();
      else if (this.traced) {
        const { top, scale } = this.likeliest();
        step.top = top;
        step.bits = (scale - this.model.scores[index]) / Math.LN2;
      }
      this.model.step(index);
      if (this.traced) {
        const { hidden, states } = this.model, units = new Int8Array(hidden * states.length);
        states.forEach((h, l) => {
          for (let u = 0; u < hidden; u++) units[l * hidden + u] = Math.round(127 * h[u]);
        });
        step.units = units;
      }
      this.steps.push(step);
      return step;
    }

    // Reads indices; stops early where `isCurrent` says so.
    async readAll(indices, isCurrent = () => true) {
      let until = performance.now() + SLICE;
      for (const index of indices) {
        this.enter();
        this.read(index);
        if (performance.now() < until) continue;
        await pause();
        if (!isCurrent()) return;
        until = performance.now() + SLICE;
      }
    }

    // Writes more characters; calls onStep with each. Ends at the length, a stop string (which
    // belongs to the text), or where a document would begin.
    async write(settings, onStep = () => {}, isCurrent = () => true) {
      const { length, stops, seed, sample, ...filters } = checked(settings, this.steps.length);
      const uniform = Engine.uniforms(seed, sample), { vocabulary, scores } = this.model;
      const longest = Math.max(1, ...stops.map((stop) => stop.length));
      let until = performance.now() + SLICE, tail = "";
      this.writing = true;
      for (let n = 0; n < length; n++) {
        this.enter();
        const index = Engine.draw(scores, vocabulary, filters, uniform(this.steps.length));
        if (index === this.charset.boundary) break;
        const step = this.read(index);
        if (n === length - 1) step.text += this.decode(null);
        const start = tail.length, text = tail + step.text, end = Engine.stopAt(text, stops, 0);
        if (end >= 0) step.text = text.slice(start, end);
        onStep(step);
        if (end >= 0) break;
        tail = text.slice(Math.max(0, text.length - longest + 1));
        if (performance.now() < until) continue;
        await pause();
        if (!isCurrent()) break;
        until = performance.now() + SLICE;
      }
    }

    get text() { return this.steps.map((step) => step.text).join(""); }
  }

  // What window.charrnn has.
  function makeInterface(model, charset, about) {
    // A promise of the prompt and the text that follows it, that of LanguageModel.generate.
    async function generate(settings = {}) {
      const { prompt, unknown } = checkPrompt(settings);
      const indices = charset.encode(prompt, unknown);
      checked(settings, indices.length);
      const text = new Text(model, charset, false);
      await text.readAll(indices);
      const read = text.text + text.decode(null);
      text.decode = charset.decoder();
      await text.write(settings);
      return read + text.steps.slice(indices.length).map((step) => step.text).join("");
    }

    // A promise of the bits of each character (or byte) after the first.
    async function score(string) {
      check("text", string, typeof string === "string", "a text");
      const text = new Text(model, charset, true);
      await text.readAll(charset.encode(string, "replace"));
      return text.steps.slice(1).map((step) => step.bits);
    }
    return { generate, score, about };
  }

  return { Text, makeInterface, pause };
})();
