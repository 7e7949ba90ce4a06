// A table whose rows are kept, sorted by a click on a column's head, and opened to show more.

import { h, fill, patch, patchNumber } from "./dom.js";

let numbered = 0;

export class Table {
  // columns: {title: [nodes], text(row), value(row) to sort by, name: a cell that names the row, under(row): [what
  // stands under it, what does so on a phone], number, modelled(row), rank: 1 is left out on a small screen, 2 on a phone}. `details(row)`: {node, update(row)}, made when it is opened.
  constructor(place, { caption, columns, usual, details }) {
    this.columns = columns;
    this.usual = usual;
    this.details = details;
    this.sorted = null;
    this.rows = new Map();
    this.shown = [];
    this.body = h("tbody");
    this.foot = h("tfoot");
    this.heads = columns.map((column, at) => {
      const button = h("button", { type: "button", onclick: () => this.sortBy(at) }, ...column.title);
      return h("th", { scope: "col", className: this.look(column), "aria-sort": "none" }, button);
    });
    const head = h("thead", {}, h("tr", {}, ...this.heads));
    place.append(h("table", {}, h("caption", { className: "hidden" }, caption), head, this.body, this.foot));
  }

  look = (column) => [column.number ? "n" : "", column.rank ? `rank${column.rank}` : ""].join(" ").trim();

  // A first click sorts numbers from the largest, names from A; a second one turns it round.
  sortBy(at) {
    const down = this.sorted?.at === at ? !this.sorted.down : Boolean(this.columns[at].number);
    this.sorted = { at, down };
    this.heads.forEach((head, place) => head.setAttribute("aria-sort", place !== at ? "none" : down ? "descending" : "ascending"));
    this.arrange();
  }

  compare(a, b) {
    if (!this.sorted) return this.usual(a, b);
    const { at, down } = this.sorted;
    const [left, right] = [this.columns[at].value(a), this.columns[at].value(b)];
    if (left === null || right === null || left === undefined || right === undefined) {
      return Number(left === null || left === undefined) - Number(right === null || right === undefined); // unknown: last
    }
    const order = typeof left === "string" ? left.localeCompare(right) : left - right;
    return (down ? -order : order) || this.usual(a, b);
  }

  // `rows` have an `id`; `sums`: rows of texts for the foot, by column, some of it `modelled` or none.
  update(rows, sums, modelled = false) {
    this.shown = rows;
    const left = new Set(this.rows.keys());
    for (const row of rows) {
      left.delete(row.id);
      const line = this.rows.get(row.id) ?? this.makeRow(row);
      line.row = row;
      this.columns.forEach((column, at) => {
        const cell = line.tr.children[at];
        if (column.number) patchNumber(cell, column.text(row), column.modelled?.(row));
        else if (column.name) {
          patch(line.name, column.text(row));
          column.under(row).forEach((words, place) => patch(line.under[place], words));
        } else patch(cell.firstChild, column.text(row));
      });
      line.tr.classList.toggle("ended", row.running === false);
      line.opened?.update(row);
    }
    for (const id of left) this.removeRow(id);
    this.arrange();
    fill(this.foot, sums, () => h("tr", {}, ...this.columns.map((column, at) => (at ? h("td", { className: this.look(column) }) : h("th", { scope: "row" })))),
      (tr, texts) => this.columns.forEach((column, at) => patchNumber(tr.children[at], texts[at] ?? "", column.number && modelled)));
  }

  makeRow(row) {
    const line = { row, opened: null, name: h("bdi"), under: [h("bdi", { className: "under" }), h("bdi", { className: "under phone" })], id: `row${++numbered}` };
    line.button = h("button", { type: "button", className: "open", "aria-expanded": "false", onclick: () => this.toggle(line) }, line.name);
    const cells = this.columns.map((column) => (column.name
      ? h("th", { scope: "row" }, line.button, ...line.under)
      : h("td", { className: this.look(column) }, ...(column.number ? [] : [h("bdi")]))));
    line.tr = h("tr", {}, ...cells);
    this.rows.set(row.id, line);
    return line;
  }

  removeRow(id) {
    const line = this.rows.get(id);
    line.tr.remove();
    line.more?.remove();
    this.rows.delete(id);
  }

  toggle(line) {
    if (line.opened) {
      line.more.remove();
      line.opened = line.more = null;
      line.button.removeAttribute("aria-controls");
    } else {
      line.opened = this.details(line.row);
      line.more = h("tr", { className: "more", id: line.id }, h("td", { colSpan: this.columns.length }, line.opened.node));
      line.tr.after(line.more);
      line.opened.update(line.row);
      line.button.setAttribute("aria-controls", line.id);
    }
    line.button.setAttribute("aria-expanded", String(Boolean(line.opened)));
  }

  // Rows move only where the order changed; whoever has the focus keeps it.
  arrange() {
    const focused = document.activeElement;
    const order = [...this.shown].sort((a, b) => this.compare(a, b));
    let next = this.body.firstElementChild;
    for (const { id } of order) {
      const line = this.rows.get(id);
      for (const tr of line.more ? [line.tr, line.more] : [line.tr]) {
        if (tr === next) next = next.nextElementSibling;
        else this.body.insertBefore(tr, next);
      }
    }
    if (focused !== document.activeElement && this.body.contains(focused)) focused.focus({ preventScroll: true });
  }
}
