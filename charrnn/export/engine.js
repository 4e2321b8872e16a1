// A GRU language model and its sampler, as charrnn computes them in Python: charrnn/gru/reference.py,
// charrnn/generation/filters.py and sampler.py. V vocabulary size, H hidden size, L layers.

const Engine = (() => {
  // Weights: float32, float16 or int8 with a float32 per row, as charrnn/export/quantize.py writes.
  function halfToFloat(half) {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  function readTensor({ shape, at, bits }, bytes) {
    const [rows, columns] = shape.length === 2 ? shape : [1, shape[0]], size = rows * columns;
    if (bits === 32) return new Float32Array(bytes.buffer.slice(at, at + 4 * size));
    if (bits === 16)
      return Float32Array.from(new Uint16Array(bytes.buffer.slice(at, at + 2 * size)), halfToFloat);
    const scales = new Float32Array(bytes.buffer.slice(at, at + 4 * rows));
    const whole = new Int8Array(bytes.buffer, at + 4 * rows, size);
    const values = new Float32Array(size);
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++) values[i * columns + j] = whole[i * columns + j] * scales[i];
    return values;
  }

  const up4 = (n) => (n + 3) & ~3;

  class Model {
    // description: sizes, variant and tensors; bytes: theirs; module: of WebAssembly, or null.
    constructor(description, bytes, module) {
      const { hidden, layers, vocabulary, reset, gate, encode } = description;
      Object.assign(this, { hidden, layers, vocabulary, encode });
      this.before = reset === "before";
      this.hard = gate === "hard_sigmoid";
      this.simd = Boolean(module);
      const tensors = {};
      for (const tensor of description.tensors) tensors[tensor.name] = readTensor(tensor, bytes);
      const H = hidden, used = this.before ? 2 * H : 3 * H, matrices = [];
      const matrix = (values, rows, columns) => {
        matrices.push({ values, rows, columns, height: up4(rows), width: up4(columns) });
        return matrices.at(-1);
      };
      this.stack = Array.from({ length: layers }, (_, l) => {
        const name = (part) => tensors[`gru.${part}_l${l}`];
        return {
          input: l || encode ? matrix(name("weight_ih"), 3 * H, H) : null,
          hidden: matrix(name("weight_hh").subarray(0, used * H), used, H),
          candidate: this.before ? matrix(name("weight_hh").subarray(used * H), H, H) : null,
          biasIn: name("bias_ih"), biasHidden: name("bias_hh"),
        };
      });
      this.columns = encode ? null : tensors["gru.weight_ih_l0"];  // (3H, V)
      this.embed = tensors["embed.weight"];
      this.embedBias = tensors["embed.bias"];
      this.decoder = matrix(tensors["decoder.weight"], vocabulary, H);
      this.bias = tensors["decoder.bias"];
      this.table = new Map();  // W_ih x + b_ih of layer 0, of the characters that occurred
      this.layOut(matrices, module);
    }

    // Puts matrices and vectors into one memory, rows and their lengths padded to multiples of 4.
    layOut(matrices, module) {
      const H = up4(this.hidden);
      const vectors = { x: H, gates: 3 * H, sums: 3 * H, reset: H, scores: up4(this.vocabulary) };
      for (let l = 0; l < this.layers; l++) vectors[`h${l}`] = H;
      let size = 0;
      for (const m of matrices) { m.at = size; size += m.height * m.width; }
      const offsets = {};
      for (const name in vectors) { offsets[name] = size; size += vectors[name]; }
      let buffer;
      if (module) {
        const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * size) / 65536) });
        this.kernel = new WebAssembly.Instance(module, { env: { memory } }).exports.multiply;
        buffer = memory.buffer;
      } else buffer = new ArrayBuffer(4 * size);
      this.memory = new Float32Array(buffer, 0, size);
      for (const m of matrices) {
        for (let i = 0; i < m.rows; i++)
          this.memory.set(m.values.subarray(i * m.columns, (i + 1) * m.columns), m.at + i * m.width);
        delete m.values;
      }
      for (const name in vectors)
        this[name] = this.memory.subarray(offsets[name], offsets[name] + vectors[name]);
      this.states = Array.from({ length: this.layers }, (_, l) => this[`h${l}`]);
    }

    // out = matrix times x; all are in the memory.
    multiply(m, x, out) {
      if (this.simd) {
        const at = 4 * m.at, row = 4 * m.width;
        this.kernel(at, x.byteOffset, out.byteOffset, at + row * m.height, row);
        return;
      }
      for (let i = 0, k = m.at; i < m.rows; i++, k += m.width) {
        let a = 0, b = 0, c = 0, d = 0;
        for (let j = 0; j < m.width; j += 4) {
          a += this.memory[k + j] * x[j];
          b += this.memory[k + j + 1] * x[j + 1];
          c += this.memory[k + j + 2] * x[j + 2];
          d += this.memory[k + j + 3] * x[j + 3];
        }
        out[i] = a + b + (c + d);
      }
    }

    // W_ih x + b_ih of layer 0 for a character.
    first(index) {
      let gates = this.table.get(index);
      if (gates) return gates;
      const H = this.hidden, { input, biasIn } = this.stack[0];
      if (this.encode) {
        for (let u = 0; u < H; u++)
          this.x[u] = Math.tanh(Math.fround(this.embed[index * H + u] + this.embedBias[u]));
        this.multiply(input, this.x, this.gates);
        gates = this.gates.slice(0, 3 * H);
      } else {
        gates = new Float32Array(3 * H);
        for (let j = 0; j < 3 * H; j++) gates[j] = this.columns[j * this.vocabulary + index];
      }
      for (let j = 0; j < 3 * H; j++) gates[j] += biasIn[j];
      this.table.set(index, gates);
      return gates;
    }

    squash(a) {
      return this.hard ? Math.min(1, Math.max(0, 0.2 * a + 0.5)) : 1 / (1 + Math.exp(-a));
    }

    zero() {
      for (const h of this.states) h.fill(0);
    }

    // Reads a character; the logits (V) of the next are in `scores`.
    step(index) {
      const H = this.hidden, { gates, sums, reset } = this;
      let x = null;
      this.stack.forEach((layer, l) => {
        const h = this.states[l], bias = layer.biasHidden;
        let from = gates;
        if (l) {
          this.multiply(layer.input, x, gates);
          for (let j = 0; j < 3 * H; j++) gates[j] += layer.biasIn[j];
        } else from = this.first(index);
        this.multiply(layer.hidden, h, sums);
        if (this.before) {
          for (let u = 0; u < H; u++) reset[u] = this.squash(sums[u] + (from[u] + bias[u])) * h[u];
          for (let u = H; u < 2 * H; u++) gates[u] = this.squash(sums[u] + (from[u] + bias[u]));
          this.multiply(layer.candidate, reset, sums);
          for (let u = 0; u < H; u++) {
            const n = Math.tanh(sums[u] + (from[2 * H + u] + bias[2 * H + u]));
            h[u] = n + gates[H + u] * (h[u] - n);
          }
        } else {
          for (let u = 0; u < H; u++) {
            const r = this.squash(sums[u] + (from[u] + bias[u]));
            const z = this.squash(sums[H + u] + (from[H + u] + bias[H + u]));
            const n = Math.tanh(from[2 * H + u] + r * (sums[2 * H + u] + bias[2 * H + u]));
            h[u] = n + z * (h[u] - n);
          }
        }
        x = h;
      });
      this.multiply(this.decoder, x, this.scores);
      for (let j = 0; j < this.vocabulary; j++) this.scores[j] += this.bias[j];
    }
  }

  // Philox 4x64 with 10 rounds (Salmon et al. 2011), as numpy counts it: four numbers a count, the
  // first count is 1.
  const MASK = (1n << 64n) - 1n;
  const WORDS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n, 0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
  function philox(seed, sample, count) {
    let c = [BigInt(count) + 1n, 0n, 0n, 0n], k = [BigInt(seed), BigInt(sample)];
    for (let round = 0; round < 10; round++) {
      const a = WORDS[0] * c[0], b = WORDS[1] * c[2];
      c = [(b >> 64n) ^ c[1] ^ k[0], b & MASK, (a >> 64n) ^ c[3] ^ k[1], a & MASK];
      k = [(k[0] + WORDS[2]) & MASK, (k[1] + WORDS[3]) & MASK];
    }
    return c.map((x) => Number(x >> 11n) / 2 ** 53);
  }

  // The random number of a position in [0, 1).
  function uniforms(seed, sample) {
    let count = -1, block;
    return (position) => {
      if (Math.floor(position / 4) !== count) {
        count = Math.floor(position / 4);
        block = philox(seed, sample, count);
      }
      return block[position % 4];
    };
  }

  // The index that a random number draws from logits (V), after temperature, top_k, min_p and top_p.
  function draw(scores, size, { temperature = 1, top_k, top_p, min_p }, uniform) {
    let best = 0;
    for (let j = 1; j < size; j++) if (scores[j] > scores[best]) best = j;
    if (temperature === 0) return best;
    const x = new Float64Array(size), most = scores[best];
    for (let j = 0; j < size; j++) x[j] = (scores[j] - most) / temperature;
    let least = -Infinity;
    if (top_k && top_k < size) least = x.slice().sort()[size - top_k];
    if (min_p) least = Math.max(least, Math.log(min_p));
    let sum = 0;
    for (let j = 0; j < size; j++) sum += x[j] = x[j] < least ? 0 : Math.exp(x[j]);
    if (top_p) {
      const order = Array.from(x.keys()).sort((a, b) => x[b] - x[a] || a - b);
      let before = 0, kept = 0;
      for (const j of order) {
        const chance = x[j];
        if (before / sum >= top_p) x[j] = 0;
        else kept += chance;
        before += chance;
      }
      sum = kept;
    }
    let total = 0;
    const ends = x.map((chance) => (total += chance)), share = uniform * total;
    const index = ends.findIndex((end) => end > share);
    return index < 0 ? x.findLastIndex((chance) => chance > 0) : index;
  }

  // Indices of text, and text of indices; as charrnn/data/charset.py.
  class Charset {
    constructor({ points, unit, normalize, lowercase, documents, newlines }) {
      Object.assign(this, { bytes: unit === "byte", normalize, lowercase, newlines });
      this.symbols = ["\ufffd", ...points.map((point) => String.fromCodePoint(point))];
      this.index = new Map(this.symbols.map((symbol, i) => [symbol, i]));
      this.boundary = documents ? this.index.get("\uffff") : -1;
    }

    preprocess(text) {
      if (this.bytes) return Array.from(new TextEncoder().encode(text), (b) => String.fromCharCode(b));
      if (this.newlines === "universal") text = text.replace(/\r\n?/g, "\n");
      if (this.normalize) text = text.normalize(this.normalize.toUpperCase());
      if (this.lowercase) text = text.replaceAll("\u03a3", "\u03c3").toLowerCase();
      return Array.from(text);
    }

    // unknown: what becomes of characters outside the alphabet: "error", "skip" or "replace".
    encode(text, unknown = "error") {
      const symbols = this.preprocess(text);
      const missing = [...new Set(symbols.filter((symbol) => !this.index.has(symbol)))];
      if (missing.length && unknown === "error")
        throw new Error(`prompt: the model does not know ${missing.slice(0, 5).map((symbol) =>
          JSON.stringify(symbol)).join(", ")}`);
      return symbols.filter((symbol) => unknown !== "skip" || this.index.has(symbol))
        .map((symbol) => this.index.get(symbol) ?? 0);
    }

    // A function from an index to the text that it completes; null ends incomplete bytes.
    decoder() {
      if (!this.bytes) return (index) => (index === null ? "" : this.symbols[index]);
      const options = { ignoreBOM: true };
      let decoder = new TextDecoder("utf-8", options);
      const flush = () => {
        const rest = decoder.decode();
        decoder = new TextDecoder("utf-8", options);
        return rest;
      };
      return (index) => {
        if (index === null) return flush();
        if (index === 0) return flush() + "\ufffd";
        return decoder.decode(Uint8Array.of(this.symbols[index].charCodeAt(0)), { stream: true });
      };
    }
  }

  // The first position where a text after `start` contains a stop string, counted to its end; or -1.
  function stopAt(text, stops, start) {
    const ends = stops.map((stop) => [text.indexOf(stop, start), stop.length]);
    const found = ends.filter(([at]) => at >= 0).map(([at, length]) => at + length);
    return found.length ? Math.min(...found) : -1;
  }

  return { Model, Charset, uniforms, draw, stopAt };
})();
