// The agent's page: asks for /live.json about once per measurement, and shows it.

import { Chart } from "./charts.js";
import { TERM_NAMES, cost, jobDetails, productDetails, qualityText } from "./details.js";
import { fill, fillFacts, h, patch, patchNumber, smallTable, symbol } from "./dom.js";
import { ABSENT, clock, count, duration, energy, figures, mass, percent, perHour, power, size, sum, text } from "./format.js";
import { History, drawn, jobEnergy } from "./history.js";
import { Table } from "./tables.js";

const PATIENCE_MS = 10_000;
const RETRY_S = 2;
const HIDDEN_S = 15;
const SAVE_EVERY = 30; // looks
const TOP_JOBS = 8;
const DOCUMENT = new URL("live.json", location.origin + location.pathname); // without a login that the address may hold
const SLOTS = 8; // colours of jobs
const BY_ENERGY = ["operation", "cooling"];

const at = (id) => document.getElementById(id);
const history = new History();
let live = null; // the last document
let looks = 0;
let timer = 0;

const watts = (job) => (job.running ? history.rates?.jobs.get(job.id) ?? null : null);
const modelled = (job) => { const all = sum(job.quality_uj); return all > 0 ? job.quality_uj[live.qualities.indexOf("modelled")] / all : 0; };
const byUse = (a, b) => jobEnergy(b) - jobEnergy(a) || a.id.localeCompare(b.id);
const costs = (name) => ({
  title: symbol(name),
  number: true,
  modelled,
  value: (row) => cost(live.terms, row.terms_ng, name),
  text: (row) => mass(cost(live.terms, row.terms_ng, name)),
});

const jobs = new Table(at("jobs"), {
  caption: "Jobs of this node",
  usual: (a, b) => Number(b.running) - Number(a.running) || byUse(a, b),
  details: () => jobDetails(() => live),
  columns: [
    { title: ["job"], name: true, value: (job) => job.id, text: (job) => job.id, under: (job) => [job.running ? "" : "ended", job.product_id] },
    { title: ["product"], rank: 2, value: (job) => job.product_id, text: (job) => job.product_id },
    { title: ["role, phase"], rank: 1, value: (job) => `${job.role} ${job.phase}`, text: (job) => [job.role, job.phase].filter(Boolean).join(", ") },
    { title: ["user"], rank: 1, value: (job) => job.user, text: (job) => text(job.user) },
    { title: ["power"], number: true, modelled, value: watts, text: (job) => power(watts(job)) },
    { title: ["energy"], number: true, modelled, value: jobEnergy, text: (job) => energy(jobEnergy(job)) },
    { ...costs("JSC^e"), rank: 2 },
    costs("ASC^e"),
    { title: ["quality"], rank: 1, value: (job) => -modelled(job), text: (job) => qualityText(live.qualities, job.quality_uj) },
  ],
});

const epc = (product) => (product.epc_own_ng === null || product.epc_inherited_ng === null ? null : product.epc_own_ng + product.epc_inherited_ng);
const recovered = (product) => (epc(product) ? product.billed_ng.product ?? 0 : null); // untaxed is owed, and not made up for
const declared = (product) => product.kind !== "undeclared";
const taxed = (title, key) => ({
  title: [title],
  number: true,
  rank: 1,
  value: (product) => (declared(product) ? sum(Object.values(product[key])) : null),
  text: (product) => (declared(product) ? mass(sum(Object.values(product[key]))) : ABSENT),
});
const requests = (product) => (product.served ? product.served.units_micro.request / 1e6 : null);
const perRequest = (product) => (requests(product) ? cost(live.terms, product.served.terms_ng, "ASC^e") / requests(product) : null);

const products = new Table(at("products"), {
  caption: "Products that jobs of this node work for or stand on",
  usual: (a, b) => Number(declared(b)) - Number(declared(a)) || byUse(a, b),
  details: (product) => productDetails(() => live, product),
  columns: [
    { title: ["product"], name: true, value: (product) => product.id, text: (product) => product.id, under: (product) => [product.kind, ""] },
    { title: ["jobs"], number: true, rank: 2, value: (product) => product.running_jobs, text: (product) => `${count(product.running_jobs)} of ${count(product.jobs_total)}` },
    { title: ["energy"], number: true, modelled, value: jobEnergy, text: (product) => energy(jobEnergy(product)) },
    costs("ASC^e"),
    { title: ["EPC"], number: true, rank: 2, value: epc, text: (product) => (declared(product) && epc(product) === null ? "missing" : mass(epc(product))) },
    { title: ["recovered here"], number: true, rank: 1, value: recovered, text: (product) => mass(recovered(product)) },
    taxed("billed", "billed_ng"),
    taxed("untaxed", "untaxed_ng"),
    { title: ["requests"], number: true, rank: 2, value: requests, text: (product) => count(requests(product)) },
    { title: [...symbol("ASC^e"), " a request"], number: true, rank: 1, modelled, value: perRequest, text: (product) => mass(perRequest(product)) },
  ],
});

const charts = {
  domains: new Chart(at("power-domains"), power),
  jobs: new Chart(at("power-jobs"), power),
  terms: new Chart(at("grams-terms"), (grams) => mass(grams === null ? null : grams * 1e9)),
};
const slots = new Map(); // job -> its colour, for as long as it is drawn

const orZero = (value) => (value === undefined ? 0 : value); // null is what isn't known

// 0 to 1 of all energy of the node; `mark`: what stands behind a number of which no part was counted by itself.
function modelledPart() {
  const byQuality = Object.values(live.node.energy_uj);
  const all = sum(byQuality.flatMap(Object.values));
  return all > 0 ? sum(byQuality.map((of) => of.modelled ?? 0)) / all : 0;
}
const mark = (part) => (part === 1 ? 1 : part > 0);

function drawCharts() {
  const { samples } = history;
  const now = live.booked_unix_s;
  const times = samples.map((sample) => sample.at);
  const layer = (key, label, colour, part, value) => ({ key, label, colour, modelled: part, values: samples.map((sample) => (sample.hole ? null : value(sample))) });
  const keys = ["cpu", "dram", "gpu", "rest"].flatMap((kind) => live.qualities.map((quality) => [kind, quality]))
    .filter(([kind, quality]) => live.node.energy_uj[kind]?.[quality] !== undefined);
  charts.domains.draw(times, keys.reverse().map(([kind, quality]) => layer(kind + quality, Object.keys(live.node.energy_uj[kind]).length > 1 ? `${kind}, ${quality}` : kind,
    `--${kind}`, Number(quality === "modelled"), (sample) => orZero(sample.domains[`${kind} ${quality}`]))), now);

  const top = history.most(TOP_JOBS);
  for (const id of slots.keys()) if (!top.includes(id)) slots.delete(id);
  for (const id of top) {
    const free = Array.from({ length: SLOTS }, (_, slot) => slot).find((slot) => ![...slots.values()].includes(slot));
    if (!slots.has(id)) slots.set(id, free);
  }
  const parts = new Map(live.jobs.map((job) => [job.id, modelled(job)]));
  const unsplit = mark(modelledPart());
  const ofTop = (sample) => sum(top.map((id) => drawn(sample, id)));
  charts.jobs.draw(times, [
    layer("nobody", "billed to nobody", "--nobody", unsplit, (sample) => sample.unattributed),
    ...(samples.some((sample) => !sample.hole && sample.node - sample.unattributed - ofTop(sample) > 0.005)
      ? [layer("others", "other jobs", "--others", unsplit, (sample) => Math.max(0, sample.node - sample.unattributed - ofTop(sample)))] : []),
    ...top.map((id) => layer(`job ${id}`, id, `--job${slots.get(id)}`, parts.get(id) ?? 0, (sample) => drawn(sample, id))),
  ], now);
  charts.terms.draw(times, live.terms.map((term) => layer(term, TERM_NAMES[term] ?? term, `--${term}`, BY_ENERGY.includes(term) && unsplit, (sample) => sample.terms[term] ?? 0)).reverse(), now);
}

function showHead() {
  const { rates } = history;
  patch(at("where"), `${live.node_id} · version ${live.version}`);
  const down = live.sources.filter((source) => !source.up);
  const wrong = [...(live.problem ? [["The agent isn't healthy", live.problem, ""]] : []), ...down.map(({ name, why, fix }) => [`Source ${name} is down`, why, fix])];
  at("alerts").hidden = wrong.length === 0;
  fill(at("alerts"), wrong, () => h("li", {}, h("strong"), h("span"), h("code")), (item, [what, why, fix]) => {
    const [title, reason, mend] = item.children;
    patch(title, what);
    patch(reason, why ? `: ${why}. ` : ". ");
    patch(mend, fix);
    mend.hidden = !fix;
  });
  const all = sum(Object.values(live.sums).map(({ running }) => running));
  const { intensity } = live;
  const grid = [...new Set([intensity.zone, intensity.provider, intensity.method, intensity.quality].filter(Boolean))];
  const nodeModelled = modelledPart();
  const without = rates?.unread.length ? `without ${rates.unread.join(" and ")}: not read` : "";
  const tiles = [
    ["Power now", power(rates?.node), without, nodeModelled],
    ["Running jobs", count(all), live.sums._overflow.count ? "those past max_jobs aren't counted" : ""],
    ["Emitted now", perHour(rates?.inventory), ["operation, cooling, hardware", without].filter(Boolean).join("; "), nodeModelled],
    ["Grid", `${figures(intensity.gco2e_per_kwh)} g/kWh`, [...grid, `PUE ${figures(live.pue)}`].join(", ")],
  ];
  fill(at("tiles"), tiles, () => h("div", {}, h("dt"), h("dd"), h("dd", { className: "under" })), (tile, [name, value, under, part]) => {
    patch(tile.children[0], name);
    patchNumber(tile.children[1], value, part);
    patch(tile.children[2], under);
  });
  const unmeasured = Object.entries(live.node.energy_uj).filter(([, byQuality]) => byQuality.modelled);
  const named = (those) => those.map(([kind]) => kind).join(" and ");
  const never = unmeasured.filter(([, byQuality]) => Object.values(byQuality).length === 1);
  const partly = unmeasured.filter(([, byQuality]) => Object.values(byQuality).length > 1);
  at("modelled").hidden = unmeasured.length === 0;
  patch(at("modelled"), ["m: modelled, or partly so: estimated, not measured (striped).",
    never.length ? `No sensor measures ${named(never)}.` : "", partly.length ? `Of ${named(partly)} a part was measured.` : ""].filter(Boolean).join(" "));
}

function jobSums() {
  const { rates } = history;
  const { shown, others, _retired: retired, _overflow: overflow } = live.sums;
  const used = (of) => energy(sum(Object.values(of.energy_uj).map(sum)));
  const row = (name, of) => [name, "", "", "", "", used(of), mass(cost(live.terms, of.terms_ng, "JSC^e")), mass(cost(live.terms, of.terms_ng, "ASC^e"))];
  const every = { energy_uj: {}, terms_ng: live.terms.map((_, place) => sum(Object.values(live.sums).map((of) => of.terms_ng[place]))) };
  for (const of of Object.values(live.sums)) for (const [kind, parts] of Object.entries(of.energy_uj)) every.energy_uj[kind] = [...(every.energy_uj[kind] ?? []), ...parts];
  const nobody = sum(Object.values(live.node.unattributed_uj).flatMap(Object.values));
  const whole = sum(Object.values(live.node.energy_uj).flatMap(Object.values));
  const allJobs = row("all jobs", every);
  if (rates) allJobs[4] = power(rates.node - rates.unattributed);
  return [
    ...(others.count ? [row(`${count(others.count)} more jobs`, others)] : []),
    ...(retired.count ? [row("jobs that ended earlier", retired)] : []),
    ...(overflow.count ? [row("jobs past max_jobs", overflow)] : []),
    allJobs,
    ["billed to nobody", "", "", "", power(rates?.unattributed), energy(nobody)],
    ["the node", "", "", "", power(rates?.node), energy(whole)],
  ];
}

const nodeEnergy = smallTable("Energy", ["domain", "power", "energy", "billed to jobs", "billed to nobody"]);
const nodeGrams = smallTable(["Emissions: the node's inventory, gCO", h("sub", {}, "2"), "e"], ["term", "jobs", "nobody", "node"]);
const sources = smallTable("Sources", ["source", "state", "last read", "failures", "gaps"]);
at("node-energy").append(nodeEnergy.table);
at("node-grams").append(nodeGrams.table);
at("sources").append(sources.table);

function showNode() {
  const { rates } = history;
  const reasons = (by) => Object.entries(by).filter(([, amount]) => amount > 0);
  nodeEnergy.update(Object.entries(live.node.energy_uj).map(([kind, byQuality]) => {
    const [whole, by] = [sum(Object.values(byQuality)), live.node.unattributed_uj[kind] ?? {}];
    const nobody = sum(Object.values(by));
    const now = rates && (rates.unread.includes(kind) ? null : sum(Object.keys(byQuality).map((quality) => rates.domains[`${kind} ${quality}`] ?? 0)));
    return [kind + (byQuality.modelled ? ", modelled" : ""), power(now), energy(whole), energy(whole - nobody), energy(nobody)];
  }));
  fillFacts(at("nobody"), Object.entries(live.node.unattributed_uj).map(([kind, by]) => [
    `nobody's ${kind}`, reasons(by).map(([reason, uj]) => `${reason} ${energy(uj)}`).join(", ") || energy(0),
  ]));
  const grams = Object.entries(live.node.gco2e_ng).map(([term, ng]) => [term, ng, sum(Object.values(live.node.unattributed_ng[term] ?? {}))]);
  const rows = grams.map(([term, ng, nobody]) => [
    term + (BY_ENERGY.includes(term) ? ["", ", partly modelled", ", modelled"][Number(modelledPart() > 0) + Number(modelledPart() === 1)] : ""), mass(ng - nobody), mass(nobody), mass(ng),
  ]);
  const [all, none] = [sum(grams.map(([, ng]) => ng)), sum(grams.map(([, , nobody]) => nobody))];
  nodeGrams.update([...rows, Object.assign(["all", mass(all - none), mass(none), mass(all)], { className: "sum" })]);
  fillFacts(at("measured"), [
    ...live.methods.map(([kind, device, how]) => [device ? `${kind} ${device}` : kind, how]),
    ...live.idle_uw.map(([kind, device, how, uw]) => [device ? `idle ${kind} ${device}` : `idle ${kind}`, `${power(uw / 1e6)}, ${how}`]),
    ...Object.entries(live.policy).map(([what, who]) => [`who pays ${what}`, who]),
  ]);
  fillFacts(at("agent"), [
    ["power", `${power(rates?.agent)} (in overhead)`],
    ["energy", energy(live.agent.energy_uj)],
    ["CPU", `${percent(rates?.agentCpu, 1)} of a core`],
    ["memory", size(live.agent.resident_bytes)],
    ["last tick took", `${figures(live.agent.tick_ns / 1e6)} ms`],
    ["ticks", `${count(live.agent.ticks)}, ${count(live.agent.ticks_late)} late`],
  ]);
  sources.update(live.sources.map(({ name, up, age_s, failures, gap_s }) => [
    name, up ? "up" : "down", age_s === null ? (up ? ABSENT : "never") : `${duration(age_s)} ago`,
    reasons(failures).map(([reason, times]) => `${reason}: ${times}`).join(", ") || "none", gap_s ? duration(gap_s) : "none",
  ]));
}

function show(news) {
  at("live").hidden = false;
  showHead();
  if (news) drawCharts();
  jobs.update(live.jobs, jobSums(), modelledPart() > 0);
  const any = live.jobs.length + live.sums._retired.count + live.sums._overflow.count > 0;
  at("no-jobs").hidden = any;
  at("jobs").hidden = !any;
  products.update(live.products, []);
  at("products").hidden = live.products.length === 0;
  at("epc-missing").hidden = !live.products.some((product) => declared(product) && epc(product) === null);
  at("products-more").hidden = live.products_left_out === 0;
  patch(at("products-more"), `And ${count(live.products_left_out)} more: see /metrics.`);
  showNode();
}

function tell(state, words) {
  at("state").className = state;
  patch(at("state"), words);
}

// The next look: just after the next measurement, which is when there is something new.
function pause(news) {
  const every = Math.max(document.visibilityState === "hidden" ? HIDDEN_S : 1, news.interval_s);
  const age = news.taken_unix_s - news.booked_unix_s;
  return age < every ? Math.max(0.5, every - age + 0.1) : every;
}

let answered = null; // when the agent last did
let asking = false;

// What the agent says, or why it says nothing.
async function ask() {
  try {
    const answer = await fetch(DOCUMENT, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
    if (answer.ok) return [await answer.json(), ""];
    return [null, answer.status === 503 ? (await answer.text()).trim() : `it says ${answer.status}`];
  } catch {
    return [null, ""]; // it isn't there, or too slow
  }
}

async function look() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  const [news, why] = await ask();
  asking = false;
  timer = setTimeout(look, (news ? pause(news) : RETRY_S) * 1000);
  if (!news) {
    const since = answered === null ? "No answer yet" : `No answer since ${clock(answered)}`;
    tell("bad", `${since}${why ? ` (${why})` : ""}; trying again`);
    return;
  }
  live = news;
  answered = Date.now() / 1000;
  tell("good", "live");
  show(history.add(live));
  if (++looks % SAVE_EVERY === 0) history.save();
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") look();
  else history.save();
});
addEventListener("pagehide", () => history.save());
look();
