// Charts of the last minutes, in layers that add up. uPlot draws; the list beside each says what it shows at the pointer,
// or now.

import { h, fill, patch, patchNumber } from "./dom.js";
import { clock } from "./format.js";
import { SPAN_S } from "./history.js";

const HEIGHT = 200;
const LEAST_SPAN_S = 60;
const FONT = "12px system-ui, sans-serif";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Stripes, for what is modelled.
function striped(context, ink, paper) {
  const tile = h("canvas", { width: 8, height: 8 });
  const pen = tile.getContext("2d");
  pen.fillStyle = ink;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = paper;
  pen.lineWidth = 2;
  for (const shift of [-8, 0, 8]) {
    pen.beginPath();
    pen.moveTo(shift - 1, 9);
    pen.lineTo(shift + 9, -1);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
}

export class Chart {
  constructor(figure, format) {
    this.format = format;
    this.figure = figure;
    this.name = figure.querySelector("figcaption").textContent;
    this.place = h("div", { className: "plot", role: "img" });
    this.list = h("ul", { className: "legend" });
    figure.append(this.place, this.list);
    this.keys = "";
    this.layers = [];
    this.at = null;
    new ResizeObserver(() => this.plot?.setSize({ width: this.place.clientWidth, height: HEIGHT })).observe(this.place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.forget());
  }

  forget() {
    this.keys = "";
    if (this.times) this.draw(this.times, this.layers, this.now);
  }

  // `layers`, top to bottom: {key, label, colour, modelled (0..1), values}; a hole is null in all of them.
  draw(times, layers, now) {
    this.now = now;
    this.times = times;
    this.layers = layers;
    const sums = new Array(times.length).fill(0);
    const stacked = layers.toReversed().map(({ values }) => values.map((value, place) => (value === null ? null : (sums[place] += value))));
    const data = [times, ...stacked.reverse()];
    const keys = layers.map(({ key, colour: name, modelled }) => `${key}\n${name}\n${modelled === 1}`).join("\n\n");
    if (keys !== this.keys) {
      this.keys = keys;
      this.plot?.destroy();
      this.plot = new uPlot(this.options(layers), data, this.place);
    } else this.plot.setData(data);
    this.tell();
  }

  options(layers) {
    const [ink, paper, rule] = ["--dim", "--paper", "--rule"].map(colour);
    const axis = { stroke: ink, font: FONT, grid: { stroke: rule, width: 1 }, ticks: { show: false } };
    return {
      width: this.place.clientWidth,
      height: HEIGHT,
      padding: [10, 26, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: "live" } },
      scales: {
        x: { range: (_plot, least) => [Math.max(this.now - SPAN_S, Math.min(least ?? this.now, this.now - LEAST_SPAN_S)), this.now] },
        y: { range: (_plot, _least, most) => [0, most > 0 ? most * 1.08 : 1] },
      },
      axes: [
        { ...axis, space: 70, size: 30, gap: 8, values: (_plot, splits, _axis, _space, step) => splits.map((at) => clock(at).slice(0, step < 60 ? 8 : 5)) },
        { ...axis, size: 62, gap: 4, space: 36, values: (_plot, splits) => splits.map((value) => this.format(value)) },
      ],
      series: [{}, ...layers.map((layer) => {
        const shade = colour(layer.colour);
        return {
          label: layer.key, // ours is the list
          stroke: paper,
          width: 1,
          fill: (plot) => (layer.modelled === 1 ? striped(plot.ctx, shade, paper) : shade),
          points: { show: false },
        };
      })],
      hooks: { setCursor: [(plot) => { this.at = plot.cursor.idx ?? null; this.tell(); }] },
    };
  }

  // The values at the pointer, else the last ones.
  tell() {
    const place = Math.min(this.at ?? Infinity, this.times.length - 1);
    const value = (layer) => this.format(layer.values[place]);
    fill(this.list, this.layers,
      () => h("li", {}, h("i"), h("bdi"), h("span", { className: "n" })),
      (item, layer) => {
        const [swatch, name, number] = item.children;
        swatch.style.background = `var(${layer.colour})`;
        swatch.className = layer.modelled === 1 ? "striped" : "";
        patch(name, layer.label);
        if (name.title !== layer.label) name.title = layer.label;
        patchNumber(number, value(layer), layer.modelled);
      });
    this.place.setAttribute("aria-label", `${this.name}: ${this.layers.map((layer) => `${layer.label}${layer.modelled ? " (modelled)" : ""} ${value(layer)}`).join(", ")}`);
  }
}
