// The law, evaluated: weights in, predictions out. Numbers only, no page; equal to predict_mixture of Python to 1e-6.
"use strict";

const TOLERANCE = { share: 1e-6, nats: 1e-6, distance: 1e-6 };

// Loss of one set. Parameters: E, B, beta, a_1 … a_K; of the log-linear law e^c, t_1 … t_K.
function setLoss(form, parameters, weights) {
  const first = form === "loglinear" ? 1 : 3;
  let sum = 0;
  for (let j = 0; j < weights.length; j++) sum += parameters[first + j] * weights[j];
  if (form === "loglinear") return parameters[0] + Math.exp(sum);
  return parameters[0] + parameters[1] * Math.pow(1 + sum, -parameters[2]);
}

// Losses of all sets, by the law itself (draw 0) or one of its resamples (draw 1 … B).
function losses(law, draw, weights) {
  return law.parameters[draw].map((p, i) => law.scale * setLoss(law.form, p, weights) + law.shift[draw][i]);
}

const allLosses = (law, weights) => law.parameters.map((_, draw) => losses(law, draw, weights));
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

function quantile(values, q) {
  const sorted = Float64Array.from(values).sort(), at = (sorted.length - 1) * q, low = Math.floor(at);
  return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}

// Value under the law, and quantiles over the resamples; values of [law, resample 1, …].
function interval(values, level) {
  if (values.length < 2) return { value: values[0], low: null, high: null };
  const drawn = values.slice(1);
  return { value: values[0], low: quantile(drawn, (1 - level) / 2), high: quantile(drawn, (1 + level) / 2) };
}

// How far out a mixture is: at most 1 where the runs cover it.
function distance(support, weights) {
  const off = weights.map((w, k) => w - support.centre[k]);
  const far = Math.sqrt(Math.max(dot(off, support.precision.map((row) => dot(row, off))), 0));
  let beyond = -Infinity;
  weights.forEach((w, k) => {
    const room = Math.max(Math.min(support.centre[k] - support.low[k], support.high[k] - support.centre[k]), 1e-9);
    beyond = Math.max(beyond, (support.low[k] - w) / room, (w - support.high[k]) / room);
  });
  return Math.max(far, beyond > 1e-6 ? 1 + beyond : 0);
}

// Domains whose weight is the least or the largest in the runs; 0 and 1 are the ends of all weights, not of the runs.
const EDGE = 5e-4; // the page shows weights to a tenth of a percent
const atEdges = (support, weights) =>
  weights.map((w, k) => k).filter((k) => {
    const low = support.low[k], high = support.high[k], near = (end) => Math.abs(weights[k] - end) <= EDGE;
    return high - low > 2 * EDGE && ((low > EDGE && near(low)) || (high < 1 - EDGE && near(high)));
  });

const epochs = (plan, weights) =>
  weights.map((w, k) => (plan.epochs && plan.epochs.tokens[k] ? (w * plan.epochs.budget) / plan.epochs.tokens[k] : null));

// One guard at a mixture: what is reached, by which of its sets or domains, and whether that is within the limit.
function guardAt(guard, limit, plan, weights, drawn, baseline) {
  const least = guard.kind === "least_share", nats = guard.unit === "nats";
  const repeated = epochs(plan, weights);
  const reachedIn = (draw) =>
    guard.parts.map((part) => {
      if (nats) return dot(part.shares, drawn[draw]) - (part.reference ?? dot(part.shares, baseline[draw]));
      return guard.kind === "epochs" ? repeated[part.domain] : weights[part.domain];
    });
  const excess = (value) => (least ? limit - value : value - limit);
  const worst = (values) => values.indexOf(least ? Math.min(...values) : Math.max(...values));
  const values = reachedIn(0), which = worst(values), reached = values[which];
  const found = { reached, about: guard.parts[which].about, limit, kept: true, room: null, keptIn: null };
  if (limit === null) return found;
  found.room = -excess(reached);
  found.kept = found.room >= -TOLERANCE[nats ? "nats" : "share"];
  if (nats && drawn.length > 1) {
    const keeping = drawn.slice(1).filter((_, b) => reachedIn(b + 1).every((v) => excess(v) <= TOLERANCE.nats));
    found.keptIn = keeping.length / (drawn.length - 1);
  }
  return found;
}

// Everything the page says about a mixture; limits: one number or null (no guard) per guard of the plan.
function predict(plan, weights, limits = plan.guards.map((guard) => guard.limit)) {
  const { law, level } = plan, drawn = allLosses(law, weights), baseline = allLosses(law, plan.baseline.weights);
  const over = (value) => interval(drawn.map((row, draw) => value(row, draw)), level);
  const guards = plan.guards.map((guard, g) => guardAt(guard, limits[g], plan, weights, drawn, baseline));
  const far = distance(plan.support, weights);
  const named = Object.entries(plan.averages);
  return {
    losses: law.sets.map((_, i) => over((row, draw) => row[i] + (draw ? law.noise[draw - 1][i] : 0))), // of a new run
    setDifferences: law.sets.map((_, i) => over((row, draw) => row[i] - baseline[draw][i])),
    average: over((row) => dot(plan.averages[plan.average], row)),
    differences: Object.fromEntries(
      named.map(([name, shares]) => [name, over((row, draw) => dot(shares, row) - dot(shares, baseline[draw]))])),
    epochs: epochs(plan, weights),
    distance: far,
    covered: far <= 1 + TOLERANCE.distance,
    edges: atEdges(plan.support, weights),
    guards,
    keepsGuards: guards.every((guard) => guard.kept),
  };
}

// Weights after one of them was set: the others are rescaled, except those that are locked.
function moved(weights, locked, index, value) {
  const free = weights.map((_, k) => k !== index && !locked[k]);
  const fixed = weights.reduce((sum, w, k) => sum + (k !== index && locked[k] ? w : 0), 0);
  const others = weights.reduce((sum, w, k) => sum + (free[k] ? w : 0), 0);
  const count = free.filter(Boolean).length, most = Math.max(1 - fixed, 0);
  const own = count ? Math.min(Math.max(value, 0), most) : most;
  return weights.map((w, k) => {
    if (k === index) return own;
    if (!free[k]) return w;
    return others > 0 ? (w * (most - own)) / others : (most - own) / count;
  });
}

// Runs by how large a share of the tokens would be drawn from other domains than in this mixture.
function nearestRuns(runs, weights, count) {
  const far = runs.weights.map((row) => row.reduce((sum, w, k) => sum + Math.abs(w - weights[k]), 0) / 2);
  return far.map((share, run) => ({ run, share })).sort((a, b) => a.share - b.share).slice(0, count);
}

// Weights with so many decimals that sum to exactly 1: the largest remainders are rounded up.
function rounded(weights, decimals) {
  const unit = 10 ** decimals, scaled = weights.map((w) => w * unit), whole = scaled.map(Math.floor);
  const rest = unit - whole.reduce((a, b) => a + b, 0);
  const order = scaled.map((s, k) => k).sort((a, b) => scaled[b] - whole[b] - (scaled[a] - whole[a]) || a - b);
  order.slice(0, Math.max(Math.round(rest), 0)).forEach((k) => (whole[k] += 1));
  return whole.map((w) => w / unit);
}
