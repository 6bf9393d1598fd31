"use strict";
// The browser of records. Everything that a record holds is put into the page by `textContent`, never as markup.
const PAGE = 100;
const byId = new Map();
for (const entry of data.records) if (!byId.has(entry.id) || !("end" in entry)) byId.set(entry.id, entry);
for (const entry of data.records) if (entry.end !== undefined && data.ends[entry.end].reason !== "duplicate") byId.set(entry.id, entry);
// The way of the longest comes first; of one end, the order is that of the ids.
const listed = data.records.filter((entry) => entry.end !== undefined).sort((a, b) => rank(b) - rank(a));
function rank(entry) {
  const end = data.ends[entry.end];
  return 2 * end.number + (end.kind === "dropped" ? 0 : 1);
}
const stepNames = new Map(data.steps.map((step) => [step.number, step.name]));
const $ = (id) => document.getElementById(id);

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : plain(child))));
  return element;
}

const said = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function endOf(end) {
  if (end.kind === "survived") return "survived all steps";
  if (end.kind === "became") return "became other records, after " + end.step;
  if (end.kind === "unfinished") return "unfinished, after " + end.step;
  return end.step + ": " + end.reason;
}

function fieldsOf(entry) {
  const fields = {};
  for (const [, fresh] of entry.steps) Object.assign(fields, fresh);
  return fields;
}

function titleOf(entry) {
  const fields = fieldsOf(entry);
  const named = ["response", "query", "instruction"].map((name) => fields[name]).find((value) => typeof value === "string");
  return named ?? Object.values(fields).find((value) => typeof value === "string") ?? entry.id;
}

function chainOf(entry) {
  const chain = [entry];
  while (chain[0].from !== undefined && byId.has(chain[0].from) && chain.length < 50) chain.unshift(byId.get(chain[0].from));
  return chain;
}

// What a search looks through: the record's own words and those that it descends from.
const words = new Map();
function wordsOf(entry) {
  if (!words.has(entry)) words.set(entry, chainOf(entry).map((link) => link.id + "\n" + link.steps.map(([, fields]) => Object.values(fields).map(said).join("\n")).join("\n")).join("\n").toLowerCase());
  return words.get(entry);
}

let found = [];
let shown = 0;

function search() {
  const text = $("search").value.trim().toLowerCase();
  const end = $("end").value;
  found = listed.filter((entry) => (end === "" || entry.end === Number(end)) && (text === "" || wordsOf(entry).includes(text)));
  $("list").replaceChildren();
  shown = 0;
  more();
  $("count").textContent = found.length === 1 ? "1 record" : number(found.length) + " records";
}

function more() {
  $("list").querySelector(".more")?.parentElement.remove();
  for (const entry of found.slice(shown, shown + PAGE)) {
    const button = h("button", { type: "button", onclick: () => open(entry, button) }, h("b", {}, titleOf(entry).slice(0, 200)), h("small", {}, endOf(data.ends[entry.end])));
    $("list").append(h("li", {}, button));
  }
  shown = Math.min(found.length, shown + PAGE);
  if (shown < found.length) $("list").append(h("li", {}, h("button", { type: "button", class: "more", onclick: () => { const at = shown; more(); $("list").children[at]?.firstChild.focus(); } }, "show more (" + number(found.length - shown) + ")")));
}

function open(entry, button) {
  $("list").querySelector("[aria-current]")?.removeAttribute("aria-current");
  button?.setAttribute("aria-current", "true");
  const chain = chainOf(entry);
  const article = $("record");
  const last = entry.end === undefined ? null : data.ends[entry.end];
  article.replaceChildren(
    h("h3", {}, last === null ? "A record that others come from" : last.kind === "dropped" ? "Dropped at step " + last.number + " " + last.step + ": " + last.reason : endOf(last)),
    ...chain.map(link),
    ...children(entry),
    ...(chain.some((each) => each.cut) ? [h("p", { class: "out" }, "Shortened here; whole: autoif trace " + data.output + " " + entry.id)] : []),
  );
  article.scrollTop = 0;
  article.focus({ preventScroll: true });
}

const jump = (id) => (byId.has(id) ? h("button", { type: "button", class: "jump", onclick: () => open(byId.get(id)) }, titleOf(byId.get(id)).slice(0, 160)) : id);

function children(entry) {
  const made = byId.get(entry.id) === entry ? data.records.filter((other) => other.from === entry.id) : [];
  if (!made.length) return [];
  const items = made.slice(0, 30).map((other) => h("li", {}, h("button", { type: "button", class: "jump", onclick: () => open(other) }, (other.end === undefined ? "" : endOf(data.ends[other.end]) + ": ") + titleOf(other).slice(0, 120))));
  return [h("h4", {}, "Records that come from it (" + made.length + " of them are here)"), h("ul", {}, ...items)];
}

function link(entry) {
  const box = h("div", { class: "link" }, h("p", { class: "id" }, entry.id));
  let told = {};
  let before = [];
  entry.steps.forEach(([step, fields, notes, dropped], at) => {
    box.append(h("h4", {}, step + " " + (stepNames.get(step) ?? "")));
    if (at === 0 && entry.seeds) box.append(row("written after", ...entry.seeds.map((id) => h("div", {}, jump(id)))));
    const functions = fields.functions ?? told.functions ?? inherited(entry).functions;
    for (const [name, value] of Object.entries(fields)) box.append(...field(name, value, { ...told, ...fields, functions }, before));
    for (const [reason, detail] of notes) box.append(h("p", { class: "out" }, "left out: " + reason + (detail ? ": " + detail : "")));
    if (dropped) box.append(h("p", { class: "dropped" }, "dropped: " + dropped[0] + (dropped[1] ? ": " + dropped[1] : "")));
    told = { ...told, ...fields };
    if (Array.isArray(fields.functions)) before = fields.functions;
  });
  return box;
}

function inherited(entry) {
  return Object.assign({}, ...chainOf(entry).slice(0, -1).map(fieldsOf));
}

const row = (name, ...children) => h("div", { class: "field" }, h("span", {}, name), h("div", {}, ...children));
const text = (value) => h("p", { class: "text" }, said(value));

function verdict(value, wanted) {
  const good = wanted === undefined ? value === true : value === wanted;
  return h("span", { class: good ? "yes" : "no", title: said(value) }, (good ? "\u2713 " : "\u2717 ") + (typeof value === "boolean" && wanted !== undefined ? "" : said(value)));
}

function field(name, value, all, before) {
  if (name === "case_verdicts") return [];
  if (name === "functions" && Array.isArray(value)) {
    const same = before.length > 0 && value.every((code) => before.includes(code));
    if (same) return [row("functions", value.length + " of " + before.length + " stay: numbers " + value.map((code) => before.indexOf(code) + 1).join(", "))];
    return value.map((code, at) => row("function " + (at + 1), h("pre", {}, h("code", {}, said(code).replace(/\n+$/, "")))));
  }
  if (name === "verdicts" && Array.isArray(value)) {
    const codes = Array.isArray(all.functions) ? all.functions : [];
    return [row("functions say", ...value.map((each, at) => h("details", {}, h("summary", {}, "function " + (at + 1) + ": ", verdict(each)), typeof codes[at] === "string" ? h("pre", {}, h("code", {}, codes[at])) : null)))];
  }
  if (name === "cases" && Array.isArray(value)) {
    const table = Array.isArray(all.case_verdicts) ? all.case_verdicts.filter(Array.isArray) : [];
    const head = h("tr", {}, h("th", {}, "case"), h("th", {}, "expected"), ...table.map((_, at) => h("th", {}, "f" + (at + 1))));
    const rows = value.map((each, at) => h("tr", {}, h("td", { class: "words" }, said(each?.input ?? each)), h("td", {}, said(each?.output ?? "")), ...table.map((one) => h("td", {}, verdict(one[at], each?.output)))));
    return [row("cases", h("details", {}, h("summary", {}, value.length + " cases" + (table.length ? " with what each function said" : "")), h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows))))];
  }
  if (Array.isArray(value) && value.length && value.every((item) => typeof item === "string")) return [row(name, ...value.map(text))];
  if (Array.isArray(value) && value.length && value.every(Array.isArray)) return [row(name, ...value.map((each) => text(each.map(said).join(" \u00b7 "))))];
  return [row(name, text(value))];
}

$("end").append(h("option", { value: "" }, "all"), ...data.ends.map((end, at) => h("option", { value: at }, (end.kind === "dropped" ? "dropped: " : "") + endOf(end) + " (" + number(end.shown) + (end.shown < end.count ? " of " + number(end.count) : "") + ")")));
$("search").addEventListener("input", search);
$("end").addEventListener("change", search);
$("list").addEventListener("keydown", (event) => {
  const move = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = move && event.target.closest("li")?.[move]?.firstChild;
  if (next) {
    event.preventDefault();
    next.focus();
  }
});
$("record").addEventListener("keydown", (event) => {
  if (event.key === "Escape") ($("list").querySelector("[aria-current]") ?? $("search")).focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    $("search").focus();
  }
});
for (const anchor of document.querySelectorAll("a[data-end]")) {
  anchor.addEventListener("click", () => {
    $("end").value = anchor.dataset.end;
    $("search").value = "";
    search();
  });
}
document.querySelector(".browser").hidden = false;
search();
document.documentElement.dataset.ready = "true";
