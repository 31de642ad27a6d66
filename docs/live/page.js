// The live page: reads the controls, asks the kernels, writes tables and pictures.
import { Objective, RULES, load, moments, softmax } from "./kernels.js";
import { drawBars, drawSimplex } from "./pictures.js";

const DRAWS = 10000, POINTS = 1500, ESTIMATES = 4000;
const $ = (id) => document.getElementById(id);
const number = (x, digits = 4) => (Object.is(Math.round(x * 10 ** digits), -0) ? 0 : x).toFixed(digits);

// What the controls say; null where they say nothing that can be drawn, with the complaint shown.
function settings(kernels) {
  const [logits, complaint] = parseLogits($("logits").value, kernels.mostCategories);
  const seed = Number($("seed").value || NaN);
  const wrong = complaint || (Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32 ? "" : "The seed must be a whole number from 0 to 4294967295.");
  $("logits").setAttribute("aria-invalid", String(complaint !== ""));
  $("complaint").textContent = wrong;
  if (wrong) return null;
  // The number that is shown is the number that is used.
  const tau = Number((10 ** Number($("tau").value)).toPrecision(3));
  return { logits, seed, tau, target: Number($("target").value), power: Number($("power").value) };
}

function parseLogits(text, most) {
  const words = text.trim().split(/[\s,;]+/).filter(Boolean);
  const logits = words.map((word) => (/^-inf(inity)?$/i.test(word) ? -Infinity : Number(word)));
  if (logits.length < 2 || logits.length > most) return [null, `Type 2 to ${most} logits, separated by commas.`];
  const bad = words.find((_, i) => Number.isNaN(logits[i]) || logits[i] === Infinity);
  if (bad !== undefined) return [null, `“${bad}” is not a logit: type a number, or -inf to forbid the category.`];
  if (logits.every((x) => x === -Infinity)) return [null, "Every category is forbidden: allow at least one."];
  return [logits, ""];
}

function fill(table, head, rows) {
  table.tHead.replaceChildren(line(head.map((text) => ({ text })), "th"));
  table.tBodies[0].replaceChildren(...rows.map(({ cells, kind }) => line(cells, "td", kind)));
}

function line(cells, tag, kind = "") {
  const tr = document.createElement("tr");
  tr.className = kind;
  cells.forEach((cell, i) => {
    const td = document.createElement(i ? tag : "th");
    td.scope = tag === "th" ? "col" : "row";
    if (cell.key) td.append(Object.assign(document.createElement("span"), { className: `key ${cell.key}` }));
    td.append(cell.text ?? cell);
    tr.append(td);
  });
  return tr;
}

function oneDraw(kernels, { logits, seed, tau }) {
  const soft = kernels.soft(1, tau, seed), hard = kernels.hard(1, seed), p = softmax(logits);
  const rows = [
    { cells: [{ key: "soft", text: "soft" }, ...Array.from(soft, (x) => number(x))] },
    { cells: [{ key: "hard", text: "hard" }, ...Array.from(hard, (x) => String(x))] },
    { cells: [{ key: "law", text: "probability" }, ...p.map((x) => number(x))] },
  ];
  fill($("draw"), ["", ...logits.keys()], rows);
  drawBars($("bars"), soft, hard, p);
  const shown = logits.map((x) => (x === -Infinity ? 'float("-inf")' : Number.isInteger(x) ? `${x}.0` : `${x}`)).join(", ");
  $("python").textContent =
    `>>> logits = torch.tensor([${shown}])\n>>> softdraw.gumbel_softmax(logits, tau=${tau}, seed=${seed})\n` +
    `tensor([${Array.from(soft, (x) => number(x)).join(", ")}])\n>>> softdraw.gumbel_max(logits, seed=${seed})\n` +
    `tensor(${hard.indexOf(1)})`;
}

function manyDraws(kernels, { logits, seed, tau }) {
  const counts = new Array(logits.length).fill(0), p = softmax(logits);
  for (const k of kernels.index(DRAWS, seed)) ++counts[k];
  const rows = p.map((exact, k) => {
    const frequency = counts[k] / DRAWS, error = Math.sqrt((exact * (1 - exact)) / DRAWS);
    const z = error ? (frequency - exact) / error : 0;
    return { cells: [String(k), number(frequency), number(exact), `${z < 0 ? "−" : "+"}${Math.abs(z).toFixed(2)}`] };
  });
  fill($("frequencies"), ["category", "frequency", "exact", "std. errors"], rows);
  $("frequencies-caption").textContent = `${DRAWS.toLocaleString("en")} hard draws beside the exact law: gumbel_max(logits, sample_shape=(${DRAWS},), seed=${seed}).`;
  $("simplex").hidden = logits.length !== 3;
  if (logits.length === 3) drawSimplex($("simplex"), kernels.soft(POINTS, tau, seed), p);
  $("simplex-caption").textContent =
    logits.length === 3
      ? `${POINTS.toLocaleString("en")} soft draws at tau ${tau}. The cross is the law. At small tau they lie in the corners.`
      : "The simplex is shown for three categories.";
}

function gradients(kernels, { logits, seed, tau, target, power }) {
  const objective = new Objective(logits.length, target, power), truth = objective.truth(logits);
  const length = Math.hypot(...truth);
  const rows = [{ cells: ["true gradient", "", "", ...truth.map((x) => number(x))], kind: "truth" }];
  for (const rule of RULES) {
    const all = kernels.gradients(rule, objective, ESTIMATES, tau, seed);
    const { mean, deviation } = moments(all, logits.length);
    const bias = Math.hypot(...mean.map((m, k) => m - truth[k])), noise = (2 * deviation) / Math.sqrt(all.length / logits.length);
    const share = length > 1e-9 ? number(bias / length, 2) : "–", spread = length > 1e-9 ? number(deviation / length, 2) : "–";
    const numbers = [rule.tau && `tau=${tau}`, rule.count > 1 && `samples=${rule.count}`, rule.score && "4"].filter(Boolean);
    const name = `${rule.name}(${numbers.join(", ")})`;
    rows.push({ cells: [name, bias < noise ? `(${share})` : share, spread, ...mean.map((x) => number(x))] });
  }
  fill($("rules"), ["rule", "bias", "spread", ...logits.keys()], rows);
}

function start(kernels) {
  let waiting = 0;
  const show = () => {
    waiting = 0;
    $("target-value").textContent = Number($("target").value).toFixed(2);
    $("tau-value").textContent = String(Number((10 ** Number($("tau").value)).toPrecision(3)));
    const wanted = settings(kernels);
    if (!wanted) return;
    kernels.setLogits(wanted.logits);
    for (const part of [oneDraw, manyDraws, gradients]) part(kernels, wanted);
    document.body.dataset.shown = JSON.stringify(wanted); // for tests: what the numbers on the page belong to
  };
  const soon = () => (waiting ||= requestAnimationFrame(show));
  for (const id of ["logits", "tau", "seed", "target", "power"]) $(id).addEventListener("input", soon);
  new MutationObserver(soon).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
  addEventListener("resize", soon);
  show();
}

load(new URL("softdraw.wasm", import.meta.url)).then(start, (error) => {
  $("complaint").textContent = `The kernels did not load (${error.message}). This page needs a browser with WebAssembly and SIMD.`;
});
