"use strict";
const number = (text) => {
  const found = text.replace(/[−]/g, "-").match(/[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i);
  if (!found) return null;
  const scale = { k: 1e3, M: 1e6, G: 1e9 }[text[found.index + found[0].length]];
  return parseFloat(found[0]) * (scale || 1);
};

function shown(cell) {
  const copy = cell.cloneNode(true);
  copy.querySelectorAll("sup").forEach((mark) => mark.remove());
  return copy.textContent.trim();
}

// a number with what tables put around it: <0.001, 47.6 ± 0.9 †, +1.2 [0.5, 1.9], 104M, 12 s
const NUMBER = /^[-+−<]?\d[\d.,]*(e[-+]?\d+)?[kMG]?(\s*(%|s|min|h)|\s*±.*|\s*\[.*|\s*†.*|\s*\(.*|\s+to\s.*)?$/;

function sortBy(table, column, descending) {
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("kind"));
    const texts = new Map(rows.map((row) => [row, shown(row.cells[column])]));
    const given = rows.filter((row) => texts.get(row) !== "–");
    const numbers = given.filter((row) => NUMBER.test(texts.get(row)));
    const numeric = numbers.length > 0
      && given.every((row) => NUMBER.test(texts.get(row)) || !/\d/.test(texts.get(row)));
    const filled = numeric ? numbers : given;
    const hashes = given.every((row) => /^[0-9a-f]{8}$/.test(texts.get(row)));
    const sign = descending ? -1 : 1;
    const compare = numeric
      ? (a, b) => number(texts.get(a)) - number(texts.get(b))
      : (a, b) => texts.get(a).localeCompare(texts.get(b), "en", { numeric: !hashes });
    filled.sort((a, b) => sign * compare(a, b));
    body.append(...filled, ...rows.filter((row) => !filled.includes(row)));
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort");
      const next = now === "descending" ? "ascending" : now === "ascending" ? "descending" : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", next);
      sortBy(table, column, next === "descending");
    });
  });
}

for (const field of document.querySelectorAll("input[data-filter]")) {
  const table = document.getElementById(field.dataset.filter);
  const count = document.querySelector(`[data-count="${field.dataset.filter}"]`);
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]).filter((row) => !row.classList.contains("kind"));
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const visible = words.every((word) => texts.get(row).includes(word));
      row.hidden = !visible;
      shown += visible;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}
window.addEventListener("hashchange", openTarget);
openTarget();

let closed = [];
window.addEventListener("beforeprint", () => {
  const cells = [...document.querySelectorAll("details.cell:not([open])")];
  closed = cells.length <= 60 ? cells : [];
  closed.forEach((cell) => { cell.open = true; });
});
window.addEventListener("afterprint", () => closed.forEach((cell) => { cell.open = false; }));
