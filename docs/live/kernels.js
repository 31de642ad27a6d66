// The kernels in WebAssembly: typed views of their memory, and the draws and gradients that the page shows.

export const RULES = [
  // name as in Python, the number in csrc/call.h (none: the soft draw's own gradient), and what it takes.
  { name: "StraightThrough", number: 0, tau: true },
  { name: "ZGR", number: 1, tau: false },
  { name: "ReinMax", number: 2, tau: true },
  { name: "GappedStraightThrough", number: 3, tau: true, gap: 1 },
  { name: "StraightThroughGumbel", number: 4, tau: true, count: 1 },
  { name: "GumbelRao", number: 4, tau: true, count: 10 },
  { name: "ReinMaxRao", number: 5, tau: true, count: 10 },
  { name: "GumbelSoftmax", number: null, tau: true },
  { name: "LeaveOneOut", number: null, tau: false, score: true },
];

export async function load(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  const { instance } = await WebAssembly.instantiate(await response.arrayBuffer()); // whatever type the server names
  return new Kernels(instance.exports);
}

export class Kernels {
  constructor(wasm) {
    wasm._initialize();
    this.wasm = wasm;
    this.mostCategories = wasm.most_categories();
    this.mostDraws = wasm.most_draws();
  }

  floats(at, n) {
    return new Float32Array(this.wasm.memory.buffer, at, n);
  }

  setLogits(logits) {
    this.cols = logits.length;
    this.floats(this.wasm.logits_at(), this.cols).set(logits);
  }

  // samples x categories, in a copy.
  soft(samples, tau, seed) {
    this.wasm.soft(this.cols, samples, tau, seed);
    return this.floats(this.wasm.y_at(), samples * this.cols).slice();
  }

  hard(samples, seed) {
    this.wasm.hard(this.cols, samples, seed);
    return this.floats(this.wasm.y_at(), samples * this.cols).slice();
  }

  // The category of each draw.
  index(samples, seed) {
    this.wasm.hard(this.cols, samples, seed);
    const drawn = new BigInt64Array(this.wasm.memory.buffer, this.wasm.drawn_at(), samples);
    return Int32Array.from(drawn, Number);
  }

  // The gradients for the logits of `samples` draws under a rule: those of softdraw.draw(logits, rule, (samples,), seed=seed).
  gradients(rule, objective, samples, tau, seed) {
    if (rule.score) return this.leaveOneOut(objective, samples, seed);
    const t = rule.tau ? tau : 1;
    const soft = rule.number === null;
    const y = soft ? this.soft(samples, t, seed) : this.hard(samples, seed);
    const grad = this.floats(this.wasm.grad_at(), samples * this.cols);
    for (let s = 0; s < samples; ++s) objective.gradient(y, grad, s * this.cols);
    if (soft) this.wasm.soft_backward(this.cols, samples, t);
    else this.wasm.rule_backward(rule.number, this.cols, samples, t, rule.gap ?? 0, rule.count ?? 1, seed);
    return this.floats(this.wasm.dx_at(), samples * this.cols).slice();
  }

  // Estimates of (f - the mean of the three others) (D - p) over groups of four draws. It needs only values of f.
  leaveOneOut(objective, samples, seed) {
    const y = this.hard(samples, seed), p = softmax(this.floats(this.wasm.logits_at(), this.cols));
    const out = new Float32Array(samples * this.cols), groups = Math.floor(samples / 4);
    for (let g = 0; g < groups; ++g) {
      const f = [0, 1, 2, 3].map((i) => objective.value(y, (4 * g + i) * this.cols));
      const mean = (f[0] + f[1] + f[2] + f[3]) / 4;
      for (let k = 0; k < this.cols; ++k) {
        let sum = 0;
        for (let i = 0; i < 4; ++i) sum += (f[i] - mean) * (y[(4 * g + i) * this.cols + k] - p[k]);
        out[g * this.cols + k] = sum / 3;
      }
    }
    return out.subarray(0, groups * this.cols);
  }
}

export function softmax(logits) {
  const top = Math.max(...logits);
  const e = Array.from(logits, (x) => (x === -Infinity ? 0 : Math.exp(x - top)));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

// f(y) = |<v, y> - t|^power, v = (0, 1, ..., K - 1) / (K - 1).
export class Objective {
  constructor(cols, target, power) {
    this.values = Float64Array.from({ length: cols }, (_, k) => (cols > 1 ? k / (cols - 1) : 0));
    this.target = target;
    this.power = power;
  }

  distance(y, at) {
    let sum = -this.target;
    for (let k = 0; k < this.values.length; ++k) sum += this.values[k] * y[at + k];
    return sum;
  }

  value(y, at) {
    return this.distance(y, at) ** this.power;
  }

  gradient(y, grad, at) {
    const slope = this.power * this.distance(y, at) ** (this.power - 1);
    for (let k = 0; k < this.values.length; ++k) grad[at + k] = slope * this.values[k];
  }

  // The gradient of E[f] for the logits, p (f - E[f]), over all categories.
  truth(logits) {
    const p = softmax(logits);
    const f = Array.from(this.values, (v) => (v - this.target) ** this.power);
    const mean = p.reduce((sum, q, k) => sum + q * f[k], 0);
    return p.map((q, k) => q * (f[k] - mean));
  }
}

// The mean of n rows of gradients, and the length of their deviation: the square root of the summed variances.
export function moments(gradients, cols) {
  const n = gradients.length / cols, mean = new Array(cols).fill(0);
  let squares = 0;
  for (let i = 0; i < gradients.length; ++i) {
    mean[i % cols] += gradients[i] / n;
    squares += (gradients[i] * gradients[i]) / n;
  }
  const variance = squares - mean.reduce((sum, m) => sum + m * m, 0);
  return { mean, deviation: Math.sqrt(Math.max(variance, 0)) };
}
