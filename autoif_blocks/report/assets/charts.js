"use strict";
// The charts. Numbers come from the page's own data; every text reaches the page as text, through Plot.
const data = JSON.parse(document.getElementById("run-data").textContent);
// As plain.py: characters that would steer a terminal, or turn the direction of the text around them, are shown.
const STEERING = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]/gu;
const plain = (text) => String(text).replace(STEERING, (c) => { const n = c.charCodeAt(0); return n < 256 ? "\\x" + n.toString(16).padStart(2, "0") : "\\u" + n.toString(16).padStart(4, "0"); });
const number = (value) => (Math.abs(value) < 10000 ? String(Math.round(value)) : Math.round(value).toLocaleString("en").replaceAll(",", "\u202f"));
const KEPT = "var(--kept)";
const LOST = "var(--lost)";
const base = { style: { fontSize: "12px", color: "var(--muted)", background: "none", overflow: "visible" } };

function funnel(width) {
  const rows = data.steps.map((step) => ({
    name: step.number + " " + plain(step.name),
    out: step.out,
    dropped: Object.values(step.dropped).reduce((a, b) => a + b, 0),
  }));
  const longest = Math.max(...rows.map((row) => row.name.length));
  return Plot.plot({
    ...base, width, height: 30 * rows.length + 10, marginLeft: Math.min(width / 2.4, 7.2 * longest + 12), marginRight: 150, marginTop: 0, marginBottom: 10,
    x: { axis: null, domain: [0, Math.max(1, ...rows.map((row) => row.out + row.dropped))] },
    y: { domain: rows.map((row) => row.name), label: null, padding: 0.35, tickSize: 0 },
    marks: [
      Plot.barX(rows, { x1: 0, x2: "out", y: "name", fill: KEPT }),
      Plot.barX(rows.filter((row) => row.dropped), { x1: "out", x2: (row) => row.out + row.dropped, y: "name", fill: LOST }),
      Plot.text(rows, {
        x: (row) => row.out + row.dropped, y: "name", dx: 8, textAnchor: "start", fill: "var(--ink)",
        text: (row) => number(row.out) + (row.dropped ? "  \u2212" + number(row.dropped) + " dropped" : ""),
      }),
      Plot.ruleX([0], { stroke: "var(--line)" }),
    ],
  });
}

function bars(item, width, label) {
  const rows = item.kept.flatMap((kept, at) => {
    const x1 = item.edges[at], x2 = item.edges[at + 1], lost = item.lost[at];
    return [{ x1, x2, y1: 0, y2: kept, fill: KEPT }, { x1, x2, y1: kept, y2: kept + lost, fill: LOST }];
  });
  return Plot.plot({
    ...base, width, height: 200, marginLeft: 48, marginBottom: 34, marginTop: 10,
    x: { label: item.more ? label + " (the last bar: and more)" : label, labelAnchor: "center", labelArrow: "none", ticks: 8 },
    y: { label: null, ticks: 4, tickFormat: number, tickSize: 0, grid: true },
    marks: [
      Plot.rect(rows.filter((row) => row.y2 > row.y1), { x1: "x1", x2: "x2", y1: "y1", y2: "y2", fill: "fill", insetLeft: 0.5, insetRight: 0.5 }),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
    ],
  });
}

function functions(width) {
  const rows = data.functions.counts.flatMap((row) => [
    { functions: row.functions, kind: "as written", count: row.written },
    { functions: row.functions, kind: "checked", count: row.stayed },
  ]);
  return Plot.plot({
    ...base, width, height: 200, marginLeft: 48, marginBottom: 34, marginTop: 10,
    color: { domain: ["as written", "checked"], range: ["var(--muted)", KEPT], legend: true },
    fx: { label: "functions", labelAnchor: "center", labelArrow: "none", axis: "bottom", padding: 0.25 },
    x: { axis: null, domain: ["as written", "checked"], padding: 0 },
    y: { label: null, ticks: 4, tickFormat: number, tickSize: 0, grid: true },
    marks: [Plot.barY(rows, { fx: "functions", x: "kind", y: "count", fill: "kind" }), Plot.ruleY([0], { stroke: "var(--muted)" })],
  });
}

function timeline(width, name) {
  const points = data.timeline.points.map((point) => ({ t1: point.t - point.d, t2: point.t, y: point[name] }));
  const last = points.at(-1).t2;
  const [unit, size] = last > 7200 ? ["hours", 3600] : last > 180 ? ["minutes", 60] : ["seconds", 1];
  return Plot.plot({
    ...base, width, height: 150, marginLeft: 48, marginBottom: 34, marginTop: 10,
    x: { label: unit, labelAnchor: "center", labelArrow: "none", domain: [0, last / size], ticks: 8 },
    y: { label: null, ticks: 3, tickSize: 0, grid: true, zero: true, tickFormat: "~s" },
    marks: [
      Plot.rect(points, { x1: (p) => p.t1 / size, x2: (p) => p.t2 / size, y1: 0, y2: "y", fill: KEPT, fillOpacity: 0.85, inset: 0 }),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
    ],
  });
}

const draw = {
  funnel,
  numbers: (width, at) => bars(data.numbers[at], width, plain(data.numbers[at].field)),
  lengths: (width, at) => bars(data.lengths[at], width, "characters"),
  accuracies: (width) => bars(data.functions.accuracies, width, "share of the cases"),
  functions,
  timeline,
};

function drawAll() {
  for (const box of document.querySelectorAll(".chart")) {
    const width = Math.max(280, box.clientWidth);
    if (Number(box.dataset.width) !== width) {
      box.dataset.width = width;
      box.replaceChildren(draw[box.dataset.chart](width, box.dataset.index));
      // The box is one image with a name of its own; within it, names would only be noise.
      for (const part of box.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
    }
  }
}

drawAll();
let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});
