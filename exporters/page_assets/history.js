// What the page knows of the last minutes. The agent keeps totals alone; power is the difference of two of them. Kept in
// memory, and in the tab's session, so that a reload shows it again.

import { sum } from "./format.js";

export const SPAN_S = 900;
const KEPT_JOBS = 12; // of one look; the others are told together
const HOLE_S = 5; // what is longer than this and three intervals isn't drawn as if it had been seen
const STORE = "wattribute.history/1";
const HOUR_S = 3600;

export const jobEnergy = (job) => sum(Object.values(job.energy_uj).map(sum));
const domainTotals = (document) => Object.entries(document.node.energy_uj)
  .flatMap(([kind, byQuality]) => Object.entries(byQuality).map(([quality, uj]) => [`${kind} ${quality}`, uj]));
const unattributed = (document) => sum(Object.values(document.node.unattributed_uj).flatMap(Object.values));
const inventory = (document) => sum(Object.values(document.node.gco2e_ng));
const billed = (document) => document.terms.map((_, place) => sum(Object.values(document.sums).map((of) => of.terms_ng[place])));

// What a look and the one before it say of the time between them; null where they say nothing.
export function ratesBetween(before, now) {
  const seconds = now.booked_s - before.booked_s;
  if (!(seconds > 0) || before.node_id !== now.node_id) return null;
  const watts = (later, earlier) => Math.max(0, (later - earlier) / 1e6 / seconds);
  const earlier = new Map(domainTotals(before));
  const totals = domainTotals(now);
  // Another ledger: its counters begin at 0 again.
  if (totals.some(([key, uj]) => uj < (earlier.get(key) ?? 0))) return null;
  const known = new Map(before.jobs.map((job) => [job.id, jobEnergy(job)]));
  const jobs = new Map();
  for (const job of now.jobs) {
    // Counters begin at 0 with the job; one that was there, but not among those told, isn't known.
    const from = known.get(job.id) ?? (job.started_unix_s >= before.booked_unix_s - seconds ? 0 : null);
    if (from !== null) jobs.set(job.id, watts(jobEnergy(job), from));
  }
  const gramsPerHour = (later, sooner) => Math.max(0, ((later - sooner) / 1e9 / seconds) * HOUR_S);
  const billedBefore = billed(before);
  return {
    at: now.booked_unix_s,
    seconds,
    domains: Object.fromEntries(totals.map(([key, uj]) => [key, watts(uj, earlier.get(key) ?? 0)])),
    jobs,
    node: watts(sum(totals.map(([, uj]) => uj)), sum([...earlier.values()])),
    unattributed: watts(unattributed(now), unattributed(before)),
    terms: billed(now).map((ng, place) => gramsPerHour(ng, billedBefore[place])),
    inventory: gramsPerHour(inventory(now), inventory(before)),
    agent: watts(now.agent.energy_uj, before.agent.energy_uj),
    agentCpu: (now.agent.cpu_ns - before.agent.cpu_ns) / 1e9 / (now.taken_unix_s - before.taken_unix_s),
  };
}

export class History {
  constructor() {
    this.samples = [];
    this.before = null;
    this.rates = null;
  }

  // Takes a look; true where it brought something new.
  add(document) {
    const before = this.before;
    if (before && before.booked_s === document.booked_s && before.node_id === document.node_id) return false;
    if (!before) this.restore(document);
    this.before = document;
    this.rates = before && ratesBetween(before, document);
    if (!this.rates) return true;
    const { at, seconds, domains, jobs, node, unattributed: nobody, terms, inventory: emitted } = this.rates;
    if (this.samples.length && at <= this.samples.at(-1).at) this.samples = []; // the clock was set back
    if (seconds > Math.max(HOLE_S, 3 * document.interval_s)) this.samples.push({ at: at - seconds / 2, hole: true });
    const top = [...jobs].filter(([, w]) => w > 0).sort((a, b) => b[1] - a[1]).slice(0, KEPT_JOBS);
    this.samples.push({ at, domains, node, unattributed: nobody, terms, inventory: emitted, jobs: Object.fromEntries(top) });
    const first = this.samples.findIndex((sample) => sample.at >= at - SPAN_S);
    this.samples.splice(0, Math.max(0, first));
    return true;
  }

  save() {
    if (!this.before) return;
    try {
      sessionStorage.setItem(STORE, JSON.stringify({ node: this.before.node_id, samples: this.samples }));
    } catch {
      // Full, or forbidden: then a reload begins anew.
    }
  }

  restore(document) {
    try {
      const { node, samples } = JSON.parse(sessionStorage.getItem(STORE));
      const recent = samples.filter(({ at }) => at >= document.booked_unix_s - SPAN_S && at < document.booked_unix_s);
      if (node === document.node_id && recent.length) this.samples = [...recent, { at: recent.at(-1).at + 0.001, hole: true }];
    } catch {
      // Nothing kept, or by another version.
    }
  }
}
