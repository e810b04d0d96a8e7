// Pictures as SVG text. They take numbers and return markup; text of the user is escaped here.
"use strict";

const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
// As `signed` of Python: what rounds to zero has no sign.
const signed = (value, digits = 3) => {
  const size = Math.abs(value).toFixed(digits);
  return Number(size) === 0 ? size : (value < 0 ? "−" : "+") + size;
};
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const scaled = ([from, to], [a, b]) => (value) => a + ((value - from) / (to - from || 1)) * (b - a);

function extent(values, margin = 0.06) {
  const low = Math.min(...values), high = Math.max(...values), room = (high - low || Math.abs(high) || 1) * margin;
  return [low - room, high + room];
}

function ticks([low, high], count) {
  const raw = (high - low) / count, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw), found = [];
  for (let at = Math.ceil(low / step); at * step <= high; at++) found.push(at * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const line = (x1, y1, x2, y2, kind) => `<line class="${kind}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
const dotAt = (x, y, r, kind, title = "") =>
  `<circle class="${kind}" cx="${x}" cy="${y}" r="${r}">${title && `<title>${escaped(title)}</title>`}</circle>`;
const label = (x, y, text, kind = "", anchor = "start") =>
  `<text class="${kind}" x="${x}" y="${y}" text-anchor="${anchor}">${escaped(text)}</text>`;
const diamond = (x, y, r, title) =>
  `<path class="now" d="M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z"><title>${escaped(title)}</title></path>`;
const picture = (width, height, name, body) =>
  `<svg role="img" aria-label="${escaped(name)}" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">${body}</svg>`;

// Axes with a light grid; returns the markup and the two scales.
function axes(box, xs, ys, { x = "", y = "", counts = [5, 5], sign = false } = {}) {
  const left = 54, bottom = box.height - (x ? 40 : 24), top = y ? 24 : 8, right = box.width - 12;
  const sx = scaled(xs, [left, right]), sy = scaled(ys, [bottom, top]);
  const shown = (value, digits) => (sign ? signed(value, digits) : value.toFixed(digits));
  const across = ticks(xs, counts[0]), up = ticks(ys, counts[1]);
  const body = [
    ...across.values.map((v) => line(sx(v), top, sx(v), bottom, "grid") + label(sx(v), bottom + 15, shown(v, across.digits), "tick", "middle")),
    ...up.values.map((v) => line(left, sy(v), right, sy(v), "grid") + label(left - 6, sy(v) + 4, shown(v, up.digits), "tick", "end")),
    x && label(right, box.height - 4, x, "tick", "end"),
    y && label(0, 12, y, "tick"),
  ].join("");
  return { body, sx, sy, left, right, top, bottom };
}

// Runs that were left out of the fit: what the law predicted for them against what they reached.
function predictedPanel(width, name, note, reached, predicted, nearest) {
  const box = { width, height: Math.round(width * 0.8) }, span = extent([...reached, ...predicted]);
  const { body, sx, sy } = axes(box, span, span, { counts: [3, 4] });
  const points = reached.map((value, run) =>
    dotAt(sx(value), sy(predicted[run]), nearest.has(run) ? 5 : 3.5, nearest.has(run) ? "near" : "run",
      `reached ${value.toFixed(3)}, predicted ${predicted[run].toFixed(3)}`));
  const diagonal = line(sx(span[0]), sy(span[0]), sx(span[1]), sy(span[1]), "even");
  return `<div><h4>${escaped(shortened(name, 28))}</h4><p class="small">${escaped(note)}</p>${picture(width, box.height, name, body + diagonal + points.join(""))}</div>`;
}

// Points along a line, a few pixels apart.
const alongLine = (points, apart = 5) => points.slice(1).flatMap(([x, y], i) => {
  const [a, b] = points[i], steps = Math.ceil(Math.hypot(x - a, y - b) / apart) || 1;
  return Array.from({ length: steps + 1 }, (_, s) => [a + ((x - a) * s) / steps, b + ((y - b) * s) / steps]);
});

const LETTER = 7.6; // pixels across

// Where the name of a mark may stand: left, right, above and below of it, further away, and at both sides of the picture.
const namePlaces = (mark, long, left, right) =>
  [4, -10, 18, -24, 32, -38, 46, -52, 60, -66, 74, -80, 88, -94, 108, -122].flatMap((off) => {
    const beside = [mark.x + 9, mark.x - 9 - long], over = [mark.x - long / 2, left + 3, right - long - 3];
    return [...beside, ...(Math.abs(off - 4) >= 14 ? over : [])].map((from) => ({ from, at: mark.y + off }));
  });

// A thin line from a name to its mark.
function leader(place, long, mark) {
  const x = Math.min(Math.max(mark.x, place.from), place.from + long), below = place.at < mark.y;
  return line(x, below ? place.at + 3 : place.at - 11, mark.x, mark.y, "leader");
}

// The best mixture at each limit of one guard, with the mixtures that cost no search, and the present one.
function tradeOffPicture(width, curve, average, mixtures, now) {
  const box = { width, height: Math.max(Math.min(width * 0.62, 400), 270) }, all = [...curve.points, ...mixtures, now];
  const { body, sx, sy, left, right, top, bottom } = axes(box, extent(all.map((p) => p.x), 0.1), extent(all.map((p) => p.y), 0.1),
    { x: `${shortened(curve.title, 30)} (nats) →`, y: `${shortened(average, 24)}, difference (nats)`, counts: [width < 500 ? 4 : 7, 6], sign: true });
  const inside = (v, [a, b]) => v > Math.min(a, b) && v < Math.max(a, b);
  const zero = (inside(sx(0), [left, right]) ? line(sx(0), top, sx(0), bottom, "zero") : "") +
    (inside(sy(0), [top, bottom]) ? line(left, sy(0), right, sy(0), "zero") : "");
  const path = `<polyline class="frontier" points="${curve.points.map((p) => `${sx(p.x)},${sy(p.y)}`).join(" ")}"/>`;
  const dots = [...mixtures, now].map((p) => ({ x: sx(p.x), y: sy(p.y) })), placed = [], marks = [];
  const inked = [
    ...alongLine(curve.points.map((p) => [sx(p.x), sy(p.y)])),
    ...alongLine([[sx(0), top], [sx(0), bottom]]), ...alongLine([[left, sy(0)], [right, sy(0)]]),
  ];
  const named = [...mixtures].sort((a) => (a.name === "recommended" ? -1 : 1)).map((p) => {
    const own = { x: sx(p.x), y: sy(p.y) }, chosen = p.name === "recommended", long = LETTER * p.name.length + (chosen ? 8 : 0);
    const free = ({ from, at }) => from > left && from + long < right && at > top + 8 && at < bottom - 2 &&
      placed.every((o) => Math.abs(o.at - at) >= 14 || o.from > from + long || o.from + o.long < from) &&
      dots.every((d) => Math.abs(d.y - at + 4) >= 9 || d.x > from + long + 4 || d.x < from - 5);
    const clear = (place) => free(place) && // of lines, too
      !inked.some(([a, b]) => a > place.from - 2 && a < place.from + long + 2 && b > place.at - 11 && b < place.at + 4);
    const far = (place, dot) => Math.hypot(Math.max(place.from - dot.x, dot.x - place.from - long, 0), Math.max(place.at - 9 - dot.y, dot.y - place.at, 0));
    const nearest = (place) => dots.every((d) => Math.hypot(d.x - own.x, d.y - own.y) < 3 || far(place, d) > far(place, own));
    const cost = (place) => far(place, own) + (clear(place) ? 0 : 80) + (nearest(place) ? 0 : 30); // pixels
    const costs = new Map(namePlaces(own, long, left, right).filter(free).map((each) => [each, cost(each)]));
    const place = [...costs.keys()].reduce((best, each) => (best && costs.get(best) <= costs.get(each) ? best : each), null);
    marks.push(dotAt(own.x, own.y, chosen ? 6 : 4.5, chosen ? "chosen" : "reference", p.name));
    if (!place) return ""; // the name is shown at the mark, under the pointer
    placed.push({ ...place, long });
    const lead = far(place, own) > 14 || !nearest(place) ? leader(place, long, own) : "";
    return lead + label(place.from, place.at, p.name, chosen ? "strong" : "");
  });
  return picture(width, box.height, `trade-off against ${curve.title}`, body + zero + path + marks.join("") + named.join("") + diamond(sx(now.x), sy(now.y), 7, "this mixture"));
}

// A row per domain: range of the runs, optima of the resamples, initial, recommended and present weight.
function spreadPicture(width, rows, most) {
  const names = Math.min(Math.max(...rows.map((r) => r.name.length)) * 7.6 + 18, width * 0.34), step = 30, height = rows.length * step + 26;
  const sx = scaled([0, most], [names, width - 14]), axis = ticks([0, most], width < 500 ? 4 : 8);
  const grid = axis.values.map((v) => line(sx(v), 2, sx(v), height - 22, "grid") + label(sx(v), height - 7, percent(v, 0), "tick", "middle"));
  const drawn = rows.map((row, k) => {
    const y = k * step + step / 2, bar = (from, to, high, kind) =>
      `<rect class="${kind}" x="${sx(from)}" y="${y - high / 2}" width="${Math.max(sx(to) - sx(from), 1)}" height="${high}" rx="2"/>`;
    return [
      label(names - 10, y + 4, shortened(row.name, Math.floor((names - 12) / 7.4)), "", "end"), bar(row.low, row.high, 16, "covered"),
      row.spread[0] === null ? "" : bar(row.spread[0], row.spread[1], 8, "spread"),
      row.optima.map((w) => dotAt(sx(w), y, 1.6, "optimum")).join(""),
      row.initial === null ? "" : line(sx(row.initial), y - 9, sx(row.initial), y + 9, "initial"),
      dotAt(sx(row.recommended), y, 5, "chosen", `recommended ${percent(row.recommended)}`), diamond(sx(row.now), y, 6, `this mixture ${percent(row.now)}`),
    ].join("");
  });
  return picture(width, height, "weights with their bootstrap spread", grid.join("") + drawn.join(""));
}

// Which domain teaches which set: a table of shades, each row relative to its best teacher.
function ratesTable(rates, domains, sets) {
  const head = domains.map((d) => `<th scope="col"><span>${escaped(shortened(d, 18))}</span></th>`).join("");
  const rows = sets.map((set, i) => {
    const best = Math.max(...rates.values[i], 1e-12);
    const cells = domains.map((d, j) => {
      const share = rates.values[i][j] / best, known = !rates.known || rates.known[i][j];
      const text = share >= 0.995 ? "1" : share >= 0.005 ? share.toFixed(2).slice(1) : "0";
      const title = `${d} → ${set}: ${rates.values[i][j].toPrecision(3)}${known ? "" : ", not known from the runs"}`;
      return `<td class="${known ? "" : "prior"}${share > 0.55 ? " strong" : ""}" style="--share:${share.toFixed(3)}" title="${escaped(title)}">${known ? text : `(${text})`}</td>`;
    });
    return `<tr><th scope="row">${escaped(shortened(set, 24))}</th>${cells.join("")}</tr>`;
  });
  return `<table class="rates"><thead><tr><th></th>${head}</tr></thead><tbody>${rows.join("")}</tbody></table>`;
}

// A bar from zero with its interval; left is a gain.
function differenceBar(each, most) {
  const width = 150, height = 18, sx = scaled([-most, most], [4, width - 4]), zero = sx(0), at = sx(each.value);
  const whiskers = each.low === null ? "" : line(sx(each.low), height / 2, sx(each.high), height / 2, "whisker");
  return picture(width, height, signed(each.value), `<rect class="${each.value <= 0 ? "gains" : "pays"}" x="${Math.min(zero, at)}" y="3" width="${Math.abs(at - zero)}" height="12"/>${whiskers}${line(zero, 0, zero, height, "zero")}`);
}
