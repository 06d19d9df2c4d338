"use strict";
// The token comes in the fragment, which browsers send to nobody; it is taken out of the address bar and the history.
const given = location.hash.match(/^#token=(.*)$/);
const token = given ? given[1] : sessionStorage.getItem("token") || "";
sessionStorage.setItem("token", token);
if (given) history.replaceState(null, "", location.pathname + "#/runs");

const main = document.getElementById("main");
const message = document.getElementById("message");
const said = document.getElementById("said");
const SECONDS = 5;
let turns = 0;
let live = false;
let last = "";

async function call(name, body) {
  const headers = {"Authorization": `Bearer ${token}`, "Content-Type": "application/json"};
  const response = await fetch(`api/${name}`, {method: "POST", headers, body: JSON.stringify(body)}).catch(() => {
    throw new Error("hone ui does not answer: start it again, and open the address that it prints");
  });
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  return found;
}

// The server escapes all that is not its own markup, and the policy of the page runs no script that is within it.
function put(place, html) {
  place.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
}

const path = () => location.hash.replace(/^#\//, "").split("/").filter(Boolean).map(decodeURIComponent);

async function show(moved = true) {
  const turn = ++turns;
  try {
    const view = await call("show", {path: path()});
    if (turn !== turns) return;  // a later view was asked for
    message.textContent = "";
    live = view.live;
    if (view.html !== last || moved) put(main, view.html);
    last = view.html;
  } catch (error) {
    if (turn !== turns) return;
    message.textContent = error.message;
    if (moved) main.replaceChildren();
  }
  if (!moved) return;
  const room = {run: "runs", compare: "runs", dataset: "datasets", chat: "models"}[path()[0]] || path()[0] || "runs";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${room}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  const head = main.querySelector("h1");
  document.title = head ? `${head.textContent} · Hone` : "Hone";
  main.focus({preventScroll: true});
}

async function act(form) {
  const fields = Object.fromEntries(new FormData(form));
  const answer = form.nextElementSibling;
  const again = form.hasAttribute("data-again");  // form.dataset is the field of this name, where there is one
  const button = form.querySelector(":scope > button");
  button.disabled = true;
  answer.textContent = "…";
  try {
    const {html} = await call("act", {act: form.getAttribute("data-act"), fields});
    put(again ? said : answer, html);
    if (Number(fields.offset)) form.remove();  // the rows that follow have a button of their own
    if (again) await show();
  } catch (error) {
    const words = document.createElement("p");
    words.className = "bad";
    words.textContent = error.message;
    answer.replaceChildren(words);
  } finally {
    button.disabled = false;
  }
}

main.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  if (form.hasAttribute("data-act")) act(form);
  else location.hash = `#/${form.getAttribute("data-go")}/` + new FormData(form).getAll("run").map(encodeURIComponent).join("/");
});
addEventListener("hashchange", () => { said.replaceChildren(); if (location.hash.startsWith("#/")) show(); else main.focus(); });
// Not while somebody is in it: a box that is ticked stays ticked.
setInterval(() => {
  const busy = main !== document.activeElement && main.contains(document.activeElement) || main.querySelector(":checked");
  if (live && !document.hidden && !busy) show(false);
}, SECONDS * 1000);
show();
