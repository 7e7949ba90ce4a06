// Elements with text, never markup: names come from users. What is there already is changed only where it differs, so
// that a selection, the focus and a screen reader's place survive a look a second.

import { ABSENT, percent } from "./format.js";

export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node && !name.startsWith("aria")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function patch(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// As many children as items, in their order; `make(place)` one, `change(child, item)` brings it up to date.
export function fill(parent, items, make, change) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, place) => {
    if (place >= parent.children.length) parent.append(make(place));
    change(parent.children[place], item);
  });
}

// Superscripts of the method's terms are part of their names.
export const symbol = (name) => (name.endsWith("^e") ? [name.slice(0, -2), h("sup", {}, "e")] : [name]);

// A cell's number, and an m behind it where some of it is modelled. `part`: 0 to 1, or true where nobody counted.
export function patchNumber(node, text, part = 0) {
  const marked = part > 0 && text !== ABSENT && text !== "" ? "m" : "";
  if (node.dataset.text === text && node.dataset.marked === marked) return; // the mark keeps the share it came with
  Object.assign(node.dataset, { text, marked });
  node.replaceChildren(text);
  if (marked) node.append(h("abbr", { title: `${part === true ? "part" : percent(part, 1)} of the energy is modelled` }, "m"));
}

// A list of [name, text]: names in their own order, one pair a row.
export function fillFacts(list, pairs) {
  fill(list, pairs, () => h("div", {}, h("dt"), h("dd")), (row, [name, value]) => {
    patch(row.firstChild, name);
    patch(row.lastChild, value);
  });
}

// A small table: `header` of texts or arrays of nodes, rows of texts; the first column names its row.
export function smallTable(caption, header) {
  const body = h("tbody");
  const heads = header.map((title, place) => h("th", { scope: "col", className: place ? "n" : "" }, ...[title].flat()));
  const table = h("table", { className: "small" }, h("caption", {}, ...[caption].flat()), h("thead", {}, h("tr", {}, ...heads)), body);
  const update = (rows) => fill(body, rows, () => h("tr"), (row, cells) => {
    row.className = cells.className ?? "";
    fill(row, cells, (place) => (place ? h("td", { className: "n" }) : h("th", { scope: "row" })), (node, cell) => {
      if (Array.isArray(cell)) {
        if (!node.childNodes.length) node.append(...cell.map((one) => (typeof one === "string" ? one : one.cloneNode(true))));
      } else patch(node, cell);
    });
  });
  return { table, update };
}
