// Keys: / search, j k the next and the one before, Enter opens it, [ ] the case before and after.
// A page of a run under way loads what is newer; a case's page, or a half-written label, only says so.
"use strict";
const shown = document.querySelector("[data-as-of]");
const look = async () => {
  if (document.hidden || shown.dataset.newer) return;
  const answer = await fetch("/as-of").catch(() => null);
  if (!answer || !answer.ok || (await answer.text()) === shown.dataset.asOf) return;
  if (shown.dataset.newer) return; // an earlier question, to a slow server, was answered meanwhile
  const busy = document.querySelector(".case, details.label[open], input:focus, select:focus");
  if (!busy) return location.reload();
  shown.dataset.newer = "yes";
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = "there is newer: load";
  shown.append(" · ", link);
};
if (shown) setInterval(look, 5000);
// A phone shows a row as lines: each cell carries the heading of its column.
for (const table of document.querySelectorAll(".scroll table")) {
  const headings = [...table.querySelectorAll("th")].map((heading) => heading.textContent);
  for (const row of table.rows)
    [...row.cells].forEach((cell, column) => { cell.dataset.heading = headings[column] || ""; });
}
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const path = target && target.closest("details.path");
  if (path) { path.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
let at = -1;
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const link = { "[": "before", "]": "after" }[event.key];
  const neighbour = link && document.querySelector(`a[rel=${link}]`);
  if (neighbour) neighbour.click();
  const search = event.key === "/" && document.querySelector("input[name=q]");
  if (search) { search.focus(); event.preventDefault(); }
  if (event.key === "j" || event.key === "k") {
    const places = [...document.querySelectorAll("tr:has(td a), .turn")]
      .filter((place) => place.getClientRects().length);
    if (!places.length) return;
    if (places[at]) places[at].classList.remove("at");
    at = Math.max(0, Math.min(places.length - 1, at + (event.key === "j" ? 1 : -1)));
    places[at].classList.add("at");
    places[at].scrollIntoView({ block: "nearest" });
  }
  const chosen = event.key === "Enter" && document.querySelector(".at a");
  if (chosen) chosen.click();
});
