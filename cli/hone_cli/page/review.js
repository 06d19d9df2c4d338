"use strict";
// The token comes in the fragment, which browsers send to nobody; it is taken out of the address bar and the history.
const token = location.hash.replace(/^#token=/, "") || sessionStorage.getItem("token") || "";
sessionStorage.setItem("token", token);
history.replaceState(null, "", location.pathname);

const at = (id) => document.getElementById(id);
const skipped = new Set();
let candidate = null;
let disputed = [];
let editing = false;
let busy = false;

async function call(name, body) {
  const headers = {"Authorization": `Bearer ${token}`, "Content-Type": "application/json"};
  const response = await fetch(`api/${name}`, {method: "POST", headers, body: JSON.stringify(body)});
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}

// Rows are untrusted text: they become text nodes and values, never markup.
function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function words(counts) {
  const wanted = counts.wanted ? ` of ${counts.wanted} wanted` : "";
  const parts = [`${counts.accepted}${wanted} accepted`, `${counts.rejected} rejected`, `${counts.pending} wait`];
  if (counts.conflicts) parts.push(`${counts.conflicts} in conflict`);
  return parts.join(" · ") + (counts.sample ? ` · ${counts.sample}` : "");
}

function show(state) {
  candidate = state.candidate;
  disputed = state.disputed;
  editing = false;
  at("dataset").textContent = `${state.dataset}: ${state.template}`;
  at("counts").textContent = `${words(state.counts)} · ${state.reviewer}`;
  at("context").textContent = candidate ? candidate.context : "";
  at("message").textContent = state.others.map((d) => `${d.reviewer}: ${d.verdict}`).join(", ");
  at("shown").hidden = !candidate;
  render();
}

function render() {
  const parts = [];
  for (const [name, value] of Object.entries(candidate ? candidate.row : {})) {
    const text = typeof value === "string";
    parts.push(element("h2", name, {id: `label-${name}`}));
    if (editing && text) {
      const area = element("textarea", "", {"data-field": name, "aria-labelledby": `label-${name}`});
      area.value = value;
      parts.push(area);
    } else {
      parts.push(element("pre", text ? value : value.join("\n\n---\n\n"), {"data-field": name}));
    }
  }
  if (!candidate) parts.push(element("p", "Nothing is left to decide on.", {id: "done"}));
  at("row").replaceChildren(...parts);
  for (const id of ["accept", "edit", "reject", "skip"]) at(id).hidden = editing || !candidate;
  at("undo").hidden = editing;
  at("conflict").hidden = editing || !disputed.length;
  for (const id of ["save", "cancel"]) at(id).hidden = !editing;
  const area = at("row").querySelector("textarea");
  if (area) area.focus(); else at("row").focus();
}

async function next(row = null) {
  let state = await call("state", {skipped: [...skipped], row});
  if (!state.candidate && skipped.size) {
    skipped.clear();
    state = await call("state", {skipped: [], row: null});
  }
  show(state);
}

async function decide(verdict, row = null) {
  await call("decide", {id: candidate.id, verdict, row});
  await next();
}

const actions = {
  accept: () => candidate && decide("Accept"),
  reject: () => candidate && decide("Reject"),
  skip: () => { if (candidate) skipped.add(candidate.id); return next(); },
  undo: async () => {
    const {id} = await call("undo", {});
    if (id) { skipped.delete(id); await next(id); } else { at("message").textContent = "There is nothing to undo."; }
  },
  conflict: async () => {
    if (disputed.length) await next(disputed[(disputed.indexOf(candidate ? candidate.id : null) + 1) % disputed.length]);
  },
  edit: () => { if (candidate) { editing = true; render(); } },
  cancel: () => { editing = false; render(); },
  save: () => {
    const row = {...candidate.row};
    for (const area of at("row").querySelectorAll("textarea")) row[area.dataset.field] = area.value;
    return decide("Edit", row);
  },
};

async function act(name) {
  if (busy) return;
  busy = true;
  try { await actions[name](); } catch (error) { at("message").textContent = error.message; } finally { busy = false; }
}

const keys = {a: "accept", e: "edit", r: "reject", s: "skip", u: "undo", c: "conflict"};
document.addEventListener("keydown", (event) => {
  if (editing) {
    if (event.key === "Escape") act("cancel");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); act("save"); }
  } else if (!event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key]) {
    event.preventDefault();
    act(keys[event.key]);
  }
});
for (const name of Object.keys(actions)) at(name).addEventListener("click", () => act(name));
act("skip");
