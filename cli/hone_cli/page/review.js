"use strict";
// The token comes in the fragment, which browsers send to nobody; it is taken out of the address bar and the history.
const token = location.hash.replace(/^#token=/, "") || sessionStorage.getItem("token") || "";
sessionStorage.setItem("token", token);
history.replaceState(null, "", location.pathname);

const at = (id) => document.getElementById(id);
const SIZE = 50;  // rows of a page of the list
const skipped = new Set();
let candidate = null;
let row = {};  // the candidate's, as edited where somebody did
let entries = [];
let offset = 0;
let turns = 0;
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
  const rows = state.decided + state.counts.pending;
  at("decided").textContent = `${state.decided} of ${rows} decided`;
  at("bar").max = rows || 1;
  at("bar").value = state.decided;
  const edits = state.others.filter((d) => d.row).sort((one, other) => one.time < other.time ? -1 : 1);
  row = edits.length ? edits.at(-1).row : candidate ? candidate.row : {};
  at("status").textContent = candidate ? status(state.others) : "";
  at("context").textContent = candidate ? candidate.context : "";
  at("message").textContent = "";
  at("shown").hidden = !candidate;
  render();
}

function status(decisions) {
  return decisions.length ? decisions.map((d) => `${d.reviewer}: ${d.verdict}`).join(", ") : "Undecided";
}

function showList(listing) {
  entries = listing.entries;
  offset = listing.offset;
  const items = entries.map((entry) => {
    const button = element("button", "", {"data-id": entry.id});
    const mark = entry.conflict ? "Conflict" : entry.status;
    button.append(element("span", mark, {class: `mark ${mark}`}), element("span", entry.text, {class: "text"}));
    if (candidate && entry.id === candidate.id) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => act("open", entry.id));
    const item = element("li", "");
    item.append(button);
    return item;
  });
  at("list").replaceChildren(...(items.length ? items : [element("li", "No rows.", {class: "none"})]));
  const current = at("list").querySelector("[aria-current]");
  if (current) current.scrollIntoView({block: "nearest"});
  const all = Object.values(listing.counts).reduce((sum, count) => sum + count, 0);
  for (const option of at("filter").options) {
    option.textContent = `${option.value || "All"} (${option.value ? listing.counts[option.value] : all})`;
  }
  at("page").textContent = listing.total ? `${offset + 1} to ${offset + entries.length} of ${listing.total}` : "";
  at("back").disabled = offset === 0;
  at("more").disabled = offset + entries.length >= listing.total;
}

async function list(from = offset) {
  const turn = ++turns;
  const asked = {status: at("filter").value || null, offset: from};
  let listing = await call("list", asked);
  if (!listing.entries.length && from) listing = await call("list", {...asked, offset: 0});
  if (turn === turns) showList(listing);  // else a newer list was asked for meanwhile
}

// The list again, which is not waited for: the next key may come at once.
function refresh(from = offset) {
  list(from).catch((error) => { at("message").textContent = error.message; });
}

// The row of the list after the one on the page, or before it; at an end of the list the next page's.
async function move(by) {
  const index = entries.findIndex((entry) => candidate && entry.id === candidate.id);
  const wanted = index < 0 ? 0 : index + by;
  if (wanted < 0 && offset) {
    await list(Math.max(0, offset - SIZE));
    return next(entries.at(-1).id);
  }
  if (wanted >= entries.length && !at("more").disabled) {
    await list(offset + entries.length);
    return next(entries[0].id);
  }
  if (entries[wanted]) await next(entries[wanted].id);
}

function render() {
  const parts = [];
  for (const [name, value] of Object.entries(row)) {
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

async function next(id = null) {
  let state = await call("state", {skipped: [...skipped], row: id});
  if (!state.candidate && skipped.size) {
    skipped.clear();
    state = await call("state", {skipped: [], row: null});
  }
  show(state);
  refresh();
}

async function decide(verdict, changed = null) {
  await call("decide", {id: candidate.id, verdict, row: changed});
  await next();
}

const actions = {
  accept: () => candidate && (row === candidate.row ? decide("Accept") : decide("Edit", row)),  // as it is shown
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
    const changed = {...row};
    for (const area of at("row").querySelectorAll("textarea")) changed[area.dataset.field] = area.value;
    return decide("Edit", changed);
  },
  open: (id) => { if (!editing) return next(id); at("message").textContent = "Save or cancel the edit first."; },
  down: () => move(1),
  up: () => move(-1),
  back: () => list(Math.max(0, offset - SIZE)),
  more: () => list(offset + entries.length),
  select: () => refresh(0),
  filter: () => {
    const chosen = at("filter");
    chosen.selectedIndex = (chosen.selectedIndex + 1) % chosen.options.length;
    refresh(0);
  },
};

async function act(name, ...details) {
  if (busy) return;
  busy = true;
  try { await actions[name](...details); } catch (error) { at("message").textContent = error.message; } finally { busy = false; }
}

const keys = {a: "accept", e: "edit", r: "reject", s: "skip", u: "undo", c: "conflict", j: "down", k: "up", f: "filter"};
document.addEventListener("keydown", (event) => {
  if (editing) {
    if (event.key === "Escape") act("cancel");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); act("save"); }
  } else if (event.target !== at("filter") && !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key]) {
    event.preventDefault();
    act(keys[event.key]);
  }
});
const buttons = ["accept", "reject", "skip", "undo", "conflict", "edit", "cancel", "save", "back", "more"];
for (const name of buttons) at(name).addEventListener("click", () => act(name));
at("filter").addEventListener("change", () => act("select"));
act("skip");
