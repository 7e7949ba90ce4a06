// Numbers for a reader: three figures and the unit that fits. What isn't known is a dash, never 0 and never NaN.

export const ABSENT = "—";

const ENERGIES = [["MWh", 3.6e15], ["kWh", 3.6e12], ["MJ", 1e12], ["kJ", 1e9], ["J", 1e6], ["mJ", 1e3], ["µJ", 1]];
const MASSES = [["t", 1e15], ["kg", 1e12], ["g", 1e9], ["mg", 1e6], ["µg", 1e3], ["ng", 1]];
const POWERS = [["MW", 1e6], ["kW", 1e3], ["W", 1], ["mW", 1e-3], ["µW", 1e-6]];
const SIZES = [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10], ["B", 1]];

const known = (value) => typeof value === "number" && Number.isFinite(value);

// Three figures, with commas, without an exponent.
export function figures(value) {
  if (!known(value)) return ABSENT;
  const size = Math.abs(value);
  const places = size === 0 || size >= 100 ? 0 : Math.min(12, 2 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en", { maximumFractionDigits: places, useGrouping: true });
}

function scaled(value, units, zero) {
  if (!known(value)) return ABSENT;
  if (value === 0) return `0 ${zero}`;
  const [unit, size] = units.find(([, least]) => Math.abs(value) >= least * 0.9995) ?? units.at(-1);
  return `${figures(value / size)} ${unit}`;
}

export const energy = (uj) => scaled(uj, ENERGIES, "J");
export const mass = (ng) => scaled(ng, MASSES, "g");
export const power = (w) => scaled(w, POWERS, "W");
export const size = (bytes) => scaled(bytes, SIZES, "B");
export const perHour = (gramsPerHour) => (known(gramsPerHour) ? `${mass(gramsPerHour * 1e9)}/h` : ABSENT);
export const count = (value) => (known(value) ? value.toLocaleString("en", { maximumFractionDigits: 3 }) : ABSENT);

export function percent(part, whole) {
  if (!known(part) || !known(whole) || whole === 0) return ABSENT;
  const share = (100 * part) / whole;
  if (share > 0 && share < 0.1) return "<0.1 %";
  if (share > 99.9 && share < 100) return ">99.9 %";
  return `${share.toFixed(share > 0 && share < 100 ? 1 : 0)} %`;
}

export function duration(seconds) {
  if (!known(seconds)) return ABSENT;
  if (seconds < 60) return `${Math.max(0, seconds).toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.floor(seconds);
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const first = parts.findIndex(([value]) => value > 0);
  return parts.slice(first, first + 2).filter(([value]) => value > 0).map(([value, unit]) => `${value} ${unit}`).join(" ");
}

const two = (value) => String(value).padStart(2, "0");

export function clock(unixSeconds) {
  const at = new Date(unixSeconds * 1000);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function moment(unixSeconds) {
  if (!known(unixSeconds)) return ABSENT;
  const at = new Date(unixSeconds * 1000);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(unixSeconds)}`;
}

export const sum = (values) => values.reduce((all, value) => all + value, 0);
export const text = (value) => (value === null || value === undefined || value === "" ? ABSENT : String(value));
