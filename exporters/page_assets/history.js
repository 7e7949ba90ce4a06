// What the page knows of the last minutes. The agent keeps totals alone; power is the difference of two of them. Kept in
// memory, and in the tab's session, so that a reload shows it again.

import { sum } from "./format.js";

export const SPAN_S = 900;
const SAVED_JOBS = 20; // in the tab's session, which has room for some megabytes: those that drew most
const HOLE_S = 5; // what is longer than this and three intervals isn't drawn as if it had been seen
const STORE = "wattribute.history/1";
const HOUR_S = 3600;

export const jobEnergy = (job) => sum(Object.values(job.energy_uj).map(sum));
// What a job drew in a sample. Its name may be one that every object knows.
export const drawn = (sample, id) => (Object.hasOwn(sample.jobs, id) ? sample.jobs[id] : 0);
const node = (document, kind) => sum(Object.values(document.node.energy_uj[kind] ?? {}));
const unattributed = (document, kind) => sum(Object.values(document.node.unattributed_uj[kind] ?? {}));
const ofJob = (job, kind) => sum(job.energy_uj[kind] ?? []);
const inventory = (document) => document.node.gco2e_ng;
const billed = (document) => Object.fromEntries(document.terms.map((term, place) => [
  term, sum(Object.values(document.sums).map((of) => of.terms_ng[place])),
]));

// Whether a domain's sensor is late, so that its energy is still to come: rates wait for it.
function waits(before, now) {
  const late = Math.max(HOLE_S, 3 * now.interval_s);
  return Object.entries(now.read_s).some(([kind, at]) => at <= (before.read_s[kind] ?? 0) && now.booked_s - at < late);
}

// What two looks say of the time between them; null where they say nothing. Energy is that between two readings of its
// domain, which aren't quite as far apart as the looks.
export function ratesBetween(before, now) {
  const seconds = now.booked_s - before.booked_s;
  if (!(seconds > 0) || before.node_id !== now.node_id) return null;
  const kinds = Object.keys(now.node.energy_uj).filter((kind) => before.read_s[kind] && now.read_s[kind] > before.read_s[kind]);
  // Another ledger: its counters begin at 0 again.
  if (kinds.some((kind) => node(now, kind) < node(before, kind))) return null;
  const watts = (later, earlier) => sum(kinds.map((kind) => (
    Math.max(0, (later(kind) - earlier(kind)) / 1e6 / (now.read_s[kind] - before.read_s[kind])))));
  const known = new Map(before.jobs.map((job) => [job.id, job]));
  const jobs = new Map();
  for (const job of now.jobs) {
    const sooner = known.get(job.id);
    // Counters begin at 0 with the job; one that was there, but not among those told, isn't known.
    const begun = job.started_unix_s >= before.booked_unix_s - seconds;
    if (sooner || begun) jobs.set(job.id, watts((kind) => ofJob(job, kind), (kind) => (sooner ? ofJob(sooner, kind) : 0)));
  }
  const power = watts((kind) => node(now, kind), (kind) => node(before, kind));
  const used = sum(kinds.map((kind) => node(now, kind) - node(before, kind))) / 1e6;
  // Operation and cooling follow energy, the rest follows the clock.
  const lasted = { operation: power > 0 ? used / power : seconds, cooling: power > 0 ? used / power : seconds };
  const gramsPerHour = (later, sooner) => Object.fromEntries(Object.entries(later).map(([term, ng]) => [
    term, Math.max(0, ((ng - (sooner[term] ?? 0)) / 1e9 / (lasted[term] ?? seconds)) * HOUR_S),
  ]));
  const domains = Object.keys(now.node.energy_uj).flatMap((kind) => Object.keys(now.node.energy_uj[kind]).map((quality) => [`${kind} ${quality}`,
    kinds.includes(kind) ? Math.max(0, (now.node.energy_uj[kind][quality] - (before.node.energy_uj[kind]?.[quality] ?? 0)) / 1e6 / (now.read_s[kind] - before.read_s[kind])) : null]));
  const since = (name) => (now.agent[name] < before.agent[name] ? null : now.agent[name] - before.agent[name]); // started anew
  return {
    at: now.booked_unix_s,
    seconds,
    domains: Object.fromEntries(domains), // null: its sensor says nothing
    unread: Object.keys(now.node.energy_uj).filter((kind) => !kinds.includes(kind)),
    jobs,
    node: power,
    unattributed: watts((kind) => unattributed(now, kind), (kind) => unattributed(before, kind)),
    terms: gramsPerHour(billed(now), billed(before)),
    inventory: sum(Object.values(gramsPerHour(inventory(now), inventory(before)))),
    agent: since("energy_uj") === null ? null : since("energy_uj") / 1e6 / seconds,
    agentCpu: since("cpu_ns") === null ? null : since("cpu_ns") / 1e9 / (now.taken_unix_s - before.taken_unix_s),
  };
}

export class History {
  constructor() {
    this.samples = [];
    this.used = new Map(); // by job: its watts, added up over the samples
    this.before = null;
    this.rates = null;
  }

  // The jobs that drew most, most first.
  most(count) {
    return [...this.used].sort((a, b) => b[1] - a[1]).slice(0, count).map(([id]) => id);
  }

  keep(sample) {
    this.samples.push(sample);
    for (const [id, w] of Object.entries(sample.jobs ?? {})) this.used.set(id, (this.used.get(id) ?? 0) + w);
  }

  drop(count) {
    for (const sample of this.samples.splice(0, count)) {
      for (const [id, w] of Object.entries(sample.jobs ?? {})) {
        const left = this.used.get(id) - w;
        if (left > 1e-6) this.used.set(id, left);
        else this.used.delete(id);
      }
    }
  }

  // Takes a look; true where it brought something new.
  add(document) {
    const before = this.before;
    if (before && before.node_id === document.node_id && before.booked_s <= document.booked_s) {
      if (before.booked_s === document.booked_s || waits(before, document)) return false;
    }
    if (!before) this.restore(document);
    this.before = document;
    this.rates = before && ratesBetween(before, document);
    if (!this.rates) return true;
    const { jobs, seconds, ...sample } = this.rates;
    const { at } = sample;
    if (this.samples.length && at <= this.samples.at(-1).at) this.drop(this.samples.length); // the clock was set back
    if (seconds > Math.max(HOLE_S, 3 * document.interval_s)) this.keep({ at: at - seconds / 2, hole: true });
    this.keep({ ...sample, jobs: Object.fromEntries([...jobs].filter(([, w]) => w > 0)) });
    this.drop(Math.max(0, this.samples.findIndex((sample) => sample.at >= at - SPAN_S)));
    return true;
  }

  save() {
    if (!this.before) return;
    const saved = this.most(SAVED_JOBS);
    const of = (jobs) => Object.fromEntries(saved.filter((id) => Object.hasOwn(jobs, id)).map((id) => [id, jobs[id]]));
    const samples = this.samples.map((sample) => (sample.hole ? sample : { ...sample, jobs: of(sample.jobs) }));
    try {
      sessionStorage.setItem(STORE, JSON.stringify({ node: this.before.node_id, samples }));
    } catch {
      // Full, or forbidden: then a reload begins anew.
    }
  }

  restore(document) {
    try {
      const { node, samples } = JSON.parse(sessionStorage.getItem(STORE));
      const recent = samples.filter(({ at }) => at >= document.booked_unix_s - SPAN_S && at < document.booked_unix_s);
      if (node !== document.node_id || !recent.length) return;
      for (const sample of [...recent, { at: recent.at(-1).at + 0.001, hole: true }]) this.keep(sample);
    } catch {
      // Nothing kept, or by another version.
    }
  }
}
