// The page: sliders and fields in, tables and pictures out. All numbers come from plan_law.js.
"use strict";

const PLAN = JSON.parse(document.getElementById("plan-data").textContent);
const DOMAINS = PLAN.law.domains, SETS = PLAN.law.sets, NEAREST = 6, DECIMALS = 4;
const mixture = Object.fromEntries(PLAN.mixtures.map((each) => [each.name, each.weights]));
const at = (id) => document.getElementById(id);
const table = (id, rows) => (at(id).querySelector("tbody").innerHTML = rows.join(""));
const range = (each, show) => (each.low === null ? "" : ` <span class="interval">[${show(each.low)}, ${show(each.high)}]</span>`);
const loss = (value) => value.toFixed(3);

// The row of guards that a curve is about: of one set or average, or of all sets.
const guardOf = (curve) => PLAN.guards.findIndex((guard) =>
  guard.kind === curve.kind && (!curve.about || guard.parts[0].about === curve.about));

const state = { weights: fromAddress() ?? mixture.recommended, locked: DOMAINS.map(() => false), limits: PLAN.guards.map((g) => g.limit) };
const predictions = new Map(PLAN.mixtures.map((each) => [each.name, predict(PLAN, each.weights)]));
const curvesReached = PLAN.curves.map((curve) =>
  curve.points.map((point) => predict(PLAN, point.weights).guards[guardOf(curve)]?.reached));
const highest = Math.max(...PLAN.support.high, ...PLAN.mixtures.flatMap((each) => each.weights), ...PLAN.optima.flat());
const MOST_WEIGHT = Math.min(1, Math.ceil(highest * 12) / 10);

// ------------------------------------------------------------------ the address keeps the mixture

function fromAddress() {
  const given = (location.hash.match(/^#w=([\d.,]+)$/)?.[1] ?? "").split(",").map(Number), sum = given.reduce((a, b) => a + b, 0);
  return given.length === DOMAINS.length && given.every((w) => w >= 0) && sum > 0 ? given.map((w) => w / sum) : null;
}

let saving;
function toAddress() {
  clearTimeout(saving);
  saving = setTimeout(() => {
    try { history.replaceState(null, "", `#w=${rounded(state.weights, DECIMALS).join(",")}`); } catch { /* some browsers refuse it for files */ }
  }, 300);
}

// ------------------------------------------------------------------ weights to take away

// A text of PLAN.formats has the number of a domain, between two marks, where its weight belongs.
const filled = (text, weights) => text.replace(/\ue000(\d+)\ue001/g, (_, k) => weights[k]);

function takeAway(box, weights) {
  const shares = rounded(weights, DECIMALS);
  if (!box.firstChild) {
    const options = Object.keys(PLAN.formats).map((name) => `<option>${escaped(name)}</option>`).join("");
    box.innerHTML = `<div class="row"><select aria-label="format">${options}</select><button type="button" class="copy">Copy</button></div><pre tabindex="0"></pre><p class="note"></p>`;
    box.querySelector("select").addEventListener("input", () => box.render());
    box.querySelector(".copy").addEventListener("click", ({ target }) => copy(box.querySelector("pre"), target));
  }
  box.render = () => {
    const { text, use } = PLAN.formats[box.querySelector("select").value], none = shares.some((share) => share === 0);
    box.querySelector("pre").textContent = filled(text, shares);
    box.querySelector("p").textContent = `${use}.${none ? " Leave out domains of weight 0." : ""}`;
  };
  box.render();
}

function copy(pre, button) {
  const done = () => { button.textContent = "Copied"; setTimeout(() => (button.textContent = "Copy"), 1500); };
  const select = () => { getSelection().selectAllChildren(pre); if (document.execCommand("copy")) done(); };
  navigator.clipboard ? navigator.clipboard.writeText(pre.textContent).then(done, select) : select();
}

// ------------------------------------------------------------------ controls

const LOCK = `<svg viewBox="0 0 16 16" width="16" height="16"><path class="shackle" d="M5 7V5a3 3 0 0 1 6 0v2"/><rect x="3" y="7" width="10" height="7" rx="1.5"/></svg>`;

function buildControls() {
  at("presets").innerHTML = PLAN.mixtures.map((m) => `<button type="button" data-preset="${escaped(m.name)}">${escaped(m.name)}</button>`).join("");
  at("resample-row").hidden = !PLAN.optima.length;
  at("resample").max = PLAN.optima.length;
  at("along").innerHTML = PLAN.curves.map((curve, c) => `<p class="row"><label for="along${c}">best for a limit of ${escaped(curve.title)}</label>
    <input type="range" id="along${c}" data-curve="${c}" min="0" max="${curve.points.length - 1}" step="1"> <span id="along-name${c}"></span></p>`).join("");
  at("sliders").innerHTML = DOMAINS.map((name, k) => `
    <div class="slider"><label for="s${k}" title="${escaped(name)}">${escaped(name)}</label>
    <label class="lock" title="lock: keep this weight when others move"><input type="checkbox" data-lock="${k}" aria-label="lock ${escaped(name)}">${LOCK}</label>
    <input type="range" id="s${k}" data-weight="${k}" min="0" max="${MOST_WEIGHT}" step="0.001">
    <input type="number" data-share="${k}" min="0" max="100" step="0.1" inputmode="decimal" aria-label="${escaped(name)} in percent"><span>%</span>
    <small id="under${k}"></small></div>`).join("");
  at("guards").querySelector("tbody").innerHTML = PLAN.guards.map((g, i) => `
    <tr><th scope="row">${escaped(g.title)}</th><td><input type="number" data-guard="${i}" step="${{ nats: 0.005, share: 0.01, epochs: 0.1 }[g.unit]}" ${g.unit === "nats" ? "" : `min="0"`} ${g.unit === "share" ? `max="1"` : ""}
    value="${g.limit ?? ""}" placeholder="none" inputmode="decimal" aria-label="${escaped(g.title)}"></td><td></td><td class="text"></td></tr>`).join("");
  at("what-if").addEventListener("input", changed);
  at("what-if").addEventListener("change", settled);
  at("what-if").addEventListener("click", (event) => {
    const { preset, run } = event.target.dataset;
    if (preset) show(mixture[preset]);
    if (run) show(PLAN.runs.weights[run]);
  });
}

// The weights when a field or a slider began to be moved: the others keep their proportions of then, whatever it passes.
let before = null;

function changed({ target }) {
  const { weight, share, lock, guard, curve } = target.dataset;
  if (target.id === "resample") return show(PLAN.optima[target.value - 1]);
  if (curve) return showAlong(PLAN.curves[curve], target.value);
  if (lock) state.locked[lock] = target.checked;
  if (guard) state.limits[guard] = limited(PLAN.guards[guard], target.value);
  if (weight || share) {
    before ??= state.weights;
    state.weights = moved(before, state.locked, Number(weight ?? share), Number(target.value) / (share ? 100 : 1));
  }
  update(share);
}

// A limit that a guard can have: shares and epochs are not negative, and a share is at most 1.
function limited({ unit }, text) {
  if (text === "") return null;
  return unit === "nats" ? Number(text) : Math.min(Math.max(Number(text), 0), unit === "share" ? 1 : Infinity);
}

// A field that is left shows what is used of it.
function settled({ target }) {
  const { guard } = target.dataset;
  if (guard) target.value = state.limits[guard] ?? "";
  before = null;
  update();
}

// The best mixture at one limit of a guard, as it was optimised; the guard's field takes that limit.
function showAlong(curve, point) {
  const g = guardOf(curve), limit = Number(curve.points[point].limit.toFixed(6));
  if (g >= 0) {
    state.limits[g] = limit;
    document.querySelector(`[data-guard="${g}"]`).value = limit;
  }
  show(curve.points[point].weights);
}

function show(weights) {
  before = null;
  state.weights = weights;
  update();
}

// ------------------------------------------------------------------ what follows from the weights

function update(edited = null) {
  const now = predict(PLAN, state.weights, state.limits);
  showSliders(now, edited);
  showReadout(now);
  showSets(now);
  showGuards(now);
  showRuns();
  showMoving(now);
  takeAway(at("take-now"), state.weights);
  toAddress();
}

function showSliders(now, edited) {
  DOMAINS.forEach((_, k) => {
    const w = state.weights[k], initial = PLAN.baseline.weights[k], field = document.querySelector(`[data-share="${k}"]`);
    at(`s${k}`).value = w;
    if (edited !== String(k)) field.value = (100 * w).toFixed(1);
    const repeated = now.epochs[k] === null ? "" : ` · ${now.epochs[k].toFixed(2)} epochs`;
    at(`under${k}`).textContent = `${PLAN.baseline.name} ${percent(initial)} · runs ${percent(PLAN.support.low[k], 0)} to ${percent(PLAN.support.high[k], 0)}${repeated}`;
  });
  document.querySelectorAll("[data-preset]").forEach((button) =>
    button.setAttribute("aria-pressed", same(mixture[button.dataset.preset], state.weights)));
  showWhere();
}

function showWhere() {
  const which = PLAN.optima.findIndex((weights) => same(weights, state.weights));
  at("resample-name").textContent = which < 0 ? `of ${PLAN.optima.length}` : `${which + 1} of ${PLAN.optima.length}`;
  PLAN.curves.forEach((curve, c) => {
    const point = curve.points.findIndex((each) => same(each.weights, state.weights));
    at(`along-name${c}`).textContent = point < 0 ? "" : signed(curve.points[point].limit, 4);
    if (point >= 0) at(`along${c}`).value = point;
  });
}

const same = (a, b) => a.every((w, k) => Math.abs(w - b[k]) < 5e-6);

// In the words of the plan's sentences: a weight at the end of its range is at the edge, however near the others are.
function whereItLies(now) {
  if (!now.covered) return "outside the runs: not to be believed";
  if (now.edges.length) return `at the edge of the runs: weight of ${now.edges.map((k) => DOMAINS[k]).join(", ")}`;
  return now.distance <= PLAN.support.reach + 1e-6 ? "well inside the runs" : "at the edge of the runs";
}

function showReadout(now) {
  const differences = Object.entries(now.differences).map(([name, each]) =>
    `<span class="${name === PLAN.average ? "main" : ""}">${escaped(name)} <b>${signed(each.value)}</b>${range(each, signed)}</span>`);
  const broken = now.guards.filter((g) => !g.kept).length, asked = state.limits.filter((limit) => limit !== null).length;
  const guards = !asked ? "no guards" : broken ? `${broken} of ${asked} guards broken` : "all guards kept";
  const reach = whereItLies(now);
  at("readout").innerHTML = `${differences.join("")}<span class="chips"><span class="${broken ? "chip bad" : "chip"}">${guards}</span><span class="${now.covered ? "chip" : "chip bad"}">${escaped(reach)} (distance ${now.distance.toFixed(2)})</span></span>`;
}

function showSets(now) {
  const most = Math.max(...now.setDifferences.flatMap((d) => [d.value, d.low ?? 0, d.high ?? 0].map(Math.abs)), 0.02);
  const order = SETS.map((_, i) => i).sort((a, b) => now.setDifferences[a].value - now.setDifferences[b].value);
  table("sets", order.map((i) => {
    const difference = now.setDifferences[i];
    const measured = PLAN.law.measured[i] ? ` <span class="interval">only measured</span>` : "";
    return `<tr><th scope="row">${escaped(SETS[i])}${measured}</th><td>${differenceBar(difference, most)}</td><td>${signed(difference.value)}${range(difference, signed)}</td><td>${loss(now.losses[i].value)}${range(now.losses[i], loss)}</td></tr>`;
  }));
}

function showGuards(now) {
  const rows = at("guards").querySelectorAll("tbody tr");
  now.guards.forEach((found, g) => {
    const guard = PLAN.guards[g], nats = guard.unit === "nats", limit = found.limit;
    const text = nats ? signed(found.reached) : guard.unit === "share" ? percent(found.reached) : found.reached.toFixed(2);
    const whose = guard.parts.length > 1 ? ` <span class="interval">${escaped(found.about)}</span>` : "";
    const tight = Math.abs(found.room) < { nats: 5e-4, share: 1e-3, epochs: 0.01 }[guard.unit];
    const room = found.room === null ? "" : !found.kept ? "broken" : tight ? "binds" : "kept";
    const often = found.keptIn === null ? "" : `<small>kept in ${percent(found.keptIn, 0)} of the resamples</small>`;
    const unit = { nats: "0.01 nats", share: "1 % of weight", epochs: "0.1 epochs" }[guard.unit];
    const price = guard.price > 1e-9 && limit === guard.limit ? `<small>at the recommended weights, ${unit} more would gain ${((guard.unit === "epochs" ? 0.1 : 0.01) * guard.price).toFixed(4)}</small>` : "";
    rows[g].className = room === "broken" ? "worse" : "";
    rows[g].cells[2].innerHTML = text + whose;
    rows[g].cells[3].innerHTML = `<b>${room}</b>${often}${price}`;
  });
}

function showRuns() {
  const { labels, weights, losses: reached, predicted } = PLAN.runs, shares = PLAN.averages[PLAN.average];
  table("runs", nearestRuns(PLAN.runs, state.weights, NEAREST).map(({ run, share }) => {
    const title = DOMAINS.map((d, k) => `${d} ${percent(weights[run][k])}`).join(", ");
    return `<tr><th scope="row"><button type="button" data-run="${run}" title="${escaped(title)}">${escaped(labels[run])}</button></th><td>${percent(share)}</td><td>${loss(dot(shares, reached[run]))}</td><td>${loss(dot(shares, predicted[run]))}</td>${reached[run].map((value) => `<td>${loss(value)}</td>`).join("")}</tr>`;
  }));
}

// ------------------------------------------------------------------ pictures

const width = (id) => Math.max(at(id).clientWidth - 2, 260);

function showMoving(now) {
  at("spread").innerHTML = spreadPicture(width("spread"), DOMAINS.map((name, k) => ({
    name, low: PLAN.support.low[k], high: PLAN.support.high[k], spread: PLAN.spread[k], optima: PLAN.optima.map((w) => w[k]),
    initial: PLAN.baseline.weights[k], recommended: mixture.recommended[k], now: state.weights[k],
  })), MOST_WEIGHT);
  PLAN.curves.forEach((curve, c) => {
    const g = guardOf(curve);
    if (g < 0) return;
    const place = (name, found) => ({ name, x: found.guards[g].reached, y: found.differences[PLAN.average].value });
    const fixed = [...predictions].filter(([name]) => name !== "optimum").map(([name, found]) => place(name, found));
    const along = curve.points.map((point, p) => ({ x: curvesReached[c][p], y: point.y }));
    at(`curve${c}`).innerHTML = tradeOffPicture(width(`curve${c}`), { ...curve, points: along }, PLAN.average, fixed, place("now", now));
  });
  const near = new Set(nearestRuns(PLAN.runs, state.weights, NEAREST).map(({ run }) => run)), whole = width("predicted");
  const columns = whole < 520 ? 1 : whole < 820 ? 2 : SETS.length === 4 ? 4 : 3, each = Math.floor((whole - 24 * (columns - 1)) / columns);
  at("predicted").style.setProperty("--columns", columns);
  at("predicted").innerHTML = SETS.map((name, i) => {
    const { error, correlation, flags } = PLAN.evidence[i];
    const note = [`mean error ${error.toFixed(4)}`, correlation === null ? "" : `rank correlation ${correlation.toFixed(2)}`, ...flags.map((f) => f.replaceAll("_", " "))].filter(Boolean).join(", ");
    return predictedPanel(each, name, note, PLAN.runs.losses.map((row) => row[i]), PLAN.runs.predicted.map((row) => row[i]), near);
  }).join("");
}

buildControls();
takeAway(at("take-recommended"), mixture.recommended);
at("rates").innerHTML = ratesTable(PLAN.rates, DOMAINS, SETS);
document.body.classList.add("alive");
update();
let seen = innerWidth;
addEventListener("resize", () => { if (innerWidth !== seen) { seen = innerWidth; update(); } });
addEventListener("hashchange", () => { const given = fromAddress(); if (given && !same(given, rounded(state.weights, DECIMALS))) show(given); });
