// What a row of a job or a product opens to: its terms up to ASC^e, its energy by domain and share, and its facts.

import { h, fill, fillFacts, smallTable, symbol } from "./dom.js";
import { ABSENT, count, duration, energy, mass, moment, percent, sum, text } from "./format.js";

export const TERM_NAMES = {
  operation: "operation",
  cooling: "cooling",
  platform: "platform tax",
  retraining: "retraining tax",
  hardware: "hardware",
  overhead_hardware: "overhead's hardware",
  product: "product tax",
};
const TAXES = ["platform", "retraining", "overhead_hardware", "product"];
const SUMS = {
  JSC: ["operation", "cooling"],
  "JSC^e": ["operation", "cooling", "platform", "retraining"],
  ASC: ["operation", "cooling", "hardware"],
  "ASC^e": Object.keys(TERM_NAMES),
};

// A sum of terms, in ng: `name` is JSC, JSC^e, ASC or ASC^e; `terms_ng` follow the document's own list of terms.
export function cost(terms, termsNg, name) {
  return sum(terms.map((term, at) => (SUMS[name].includes(term) ? termsNg[at] : 0)));
}

// The seven terms as one bar, and as a table that says them.
function termsBlock(terms) {
  const bar = h("div", { className: "bar", role: "presentation" });
  const made = smallTable(["What ", ...symbol("ASC^e"), " is made of"], ["term", ["gCO", h("sub", {}, "2"), "e"], "part"]);
  const names = terms.map((term) => {
    const swatch = h("i");
    swatch.style.background = `var(--${term})`;
    return [swatch, TERM_NAMES[term] ?? term];
  });
  const update = (termsNg) => {
    const whole = sum(termsNg);
    fill(bar, terms, () => h("span"), (part, term) => {
      const ng = termsNg[terms.indexOf(term)];
      part.style.background = `var(--${term})`;
      part.style.flexGrow = whole > 0 ? String(ng / whole) : "0";
      part.title = `${TERM_NAMES[term] ?? term}: ${mass(ng)}`;
    });
    const rows = terms.map((_, at) => [names[at], mass(termsNg[at]), percent(termsNg[at], whole)]);
    for (const name of Object.keys(SUMS)) {
      const ng = cost(terms, termsNg, name);
      rows.push(Object.assign([symbol(name), mass(ng), percent(ng, whole)], { className: "sum" }));
    }
    made.update(rows);
  };
  return { node: h("div", {}, bar, made.table), update };
}

function energyBlock(context, shares) {
  const made = smallTable("Energy by domain and share", ["domain", ...shares, "sum"]);
  const update = (energyUj) => {
    const name = (kind) => (context().node.energy_uj[kind]?.modelled ? `${kind}, modelled` : kind);
    const rows = Object.entries(energyUj).map(([kind, parts]) => [name(kind), ...parts.map(energy), energy(sum(parts))]);
    const columns = shares.map((_, at) => sum(Object.values(energyUj).map((parts) => parts[at])));
    made.update([...rows, Object.assign(["all", ...columns.map(energy), energy(sum(columns))], { className: "sum" })]);
  };
  return { node: made.table, update };
}

const qualityText = (qualities, qualityUj) => {
  const parts = qualities.map((name, at) => [name, qualityUj[at]]).filter(([, uj]) => uj > 0);
  return parts.map(([name, uj]) => (parts.length > 1 ? `${name} ${percent(uj, sum(qualityUj))}` : name)).join(", ") || ABSENT;
};
export { qualityText };

const labels = (row) => Object.entries(row).filter(([, value]) => value).map(([name, value]) => `${name}=${value}`).join(" ");

export function jobDetails(context) {
  const { terms, shares, qualities } = context();
  const [byTerm, byDomain] = [termsBlock(terms), energyBlock(context, shares)];
  const facts = h("dl", { className: "facts" });
  const node = h("div", { className: "opened" }, byTerm.node, h("div", {}, byDomain.node, facts));
  const update = (job) => {
    byTerm.update(job.terms_ng);
    byDomain.update(job.energy_uj);
    fillFacts(facts, [
      ["job", job.id],
      ["product", text(job.product_id)],
      ["role, phase", [job.role, job.phase].filter(Boolean).join(", ")],
      ["user", text(job.user)],
      ["known from", job.origin],
      ["inside job", text(job.parent_job_id)],
      ["started", moment(job.started_unix_s)],
      ["ended", job.ended_unix_s === null ? "runs" : moment(job.ended_unix_s)],
      ["lasted", duration((job.ended_unix_s ?? context().booked_unix_s) - job.started_unix_s)],
      ["CPU time", duration(job.cpu_ns / 1e9)],
      ["GPU SM time", job.sm_ns ? duration(job.sm_ns / 1e9) : ABSENT],
      ["nodes", count(job.nodes)],
      ["quality", qualityText(qualities, job.quality_uj)],
      ...job.gpus.map((uuid) => ["GPU", uuid]),
      ...job.slurm.map((row) => ["Slurm", labels(row)]),
      ...job.kubernetes.map((row) => ["Kubernetes", labels(row)]),
    ]);
  };
  return { node, update };
}

function servedBlock(terms) {
  const made = smallTable("Served: means since the counters began", ["", "energy", symbol("JSC^e"), symbol("ASC^e"), [...symbol("ASC^e"), " with idle"]]);
  const facts = h("dl", { className: "facts" });
  const update = (served) => {
    const whole = served.energy_uj + served.idle_uj;
    const units = Object.entries(served.units_micro).sort(([a], [b]) => Number(b === "request") - Number(a === "request") || a.localeCompare(b));
    made.update(units.filter(([, micro]) => micro > 0).map(([unit, micro]) => {
      const per = (unit === "request" ? 1 : 1000) / (micro / 1e6);
      const asce = cost(terms, served.terms_ng, "ASC^e");
      return [unit === "request" ? "1 request" : `1,000 ${unit}`, energy(served.energy_uj * per),
        mass(cost(terms, served.terms_ng, "JSC^e") * per), mass(asce * per), mass((asce + sum(served.idle_ng)) * per)];
    }));
    fillFacts(facts, [
      ...units.map(([unit, micro]) => [unit, count(micro / 1e6)]),
      ["aborted", count(served.aborted)],
      ["in flight", count(served.in_flight)],
      ["energy of requests", `${energy(served.energy_uj)} (${percent(served.energy_uj, whole)})`],
      ["energy while idle", `${energy(served.idle_uj)} (${percent(served.idle_uj, whole)})`],
      ["not split yet", energy(served.unsettled_uj)],
    ]);
  };
  return { node: h("div", {}, made.table, facts), update };
}

export function productDetails(context, product) {
  const { terms, shares, qualities } = context();
  const [byTerm, byDomain] = [termsBlock(terms), energyBlock(context, shares)];
  const taxes = smallTable("What it costs its users", ["term", "overhead", "billed", "untaxed", "corrected later"]);
  const served = product.served ? servedBlock(terms) : null;
  const facts = h("dl", { className: "facts" });
  const declared = product.kind !== "undeclared";
  const right = h("div", {}, byDomain.node, ...(declared ? [taxes.table] : []), ...(served ? [served.node] : []));
  const node = h("div", { className: "opened" }, h("div", {}, byTerm.node, facts), right);
  const update = (now) => {
    byTerm.update(now.terms_ng);
    byDomain.update(now.energy_uj);
    taxes.update(TAXES.map((term) => {
      const [billed, untaxed] = [now.billed_ng[term] ?? 0, now.untaxed_ng[term] ?? 0];
      const later = now.corrections_ng[term];
      return [TERM_NAMES[term], mass(billed + untaxed), mass(billed), mass(untaxed), later === undefined ? ABSENT : mass(later)];
    }));
    if (served && now.served) served.update(now.served);
    fillFacts(facts, [
      ["kind", declared ? now.kind : "undeclared: named by a job, without taxes"],
      ["EPC, own", now.epc_own_ng === null ? (declared ? "missing" : ABSENT) : mass(now.epc_own_ng)],
      ["EPC, inherited", now.epc_inherited_ng === null ? (declared ? "missing" : ABSENT) : mass(now.epc_inherited_ng)],
      ["jobs", `${count(now.running_jobs)} running, ${count(now.jobs_total)} in all`],
      ["quality", qualityText(qualities, now.quality_uj)],
    ]);
  };
  return { node, update };
}
