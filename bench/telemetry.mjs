// What it costs that calls can be seen from outside: `node bench/telemetry.mjs [--baseline <index.js>] [--rounds <count>]`
//
// The cheapest calls there are, on SQLite in memory: a save that is queued, and a read of one row. Each is done without a subscriber, with one that does
// nothing on each channel of a call, with OpenTelemetry's SDK, and by the version at --baseline, which may know no channels. They take turns, round by round.
// Printed is the CPU time of the process, which other load on the machine changes least: the medians of the rounds, and their ratio to the call without a
// subscriber.

import { channel } from 'node:diagnostics_channel';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics';
import { BasicTracerProvider } from '@opentelemetry/sdk-trace-base';
import { OURS, openStore } from './sides.mjs';
import { median, newId, range, recordOf } from './work.mjs';

const { values: options } = parseArgs({ options: { baseline: { type: 'string' }, rounds: { type: 'string', default: '15' } } });
const { instrument } = createRequire(import.meta.url)('../otel/index.js');

class Unread extends MetricReader {
  async onForceFlush() {}
  async onShutdown() {}
}

const nothing = () => {};
const channels = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'].map((event) => channel(`tracing:batchactions.store:${event}`));
const alone = (work) => work();
const subscribed = async (work) => {
  for (const each of channels) each.subscribe(nothing);
  await work();
  for (const each of channels) each.unsubscribe(nothing);
};
const traced = async (work) => {
  const meterProvider = new MeterProvider({ readers: [new Unread()] });
  const end = instrument({ tracerProvider: new BasicTracerProvider(), meterProvider });
  await work();
  end();
};

const RECORDS = range(5_000).map((n) => recordOf(n));
const WORK = {
  'saveProcessedRecord, queued': async (store) => {
    const id = newId();
    for (const record of RECORDS) await store.saveProcessedRecord(id, 'b', record);
    return RECORDS.length;
  },
  getDistributedStatus: async (store) => {
    for (let n = 0; n < 2_000; n++) await store.getDistributedStatus('j');
    return 2_000;
  },
};

const place = { url: 'sqlite::memory:', dialect: 'sqlite' };
const ours = await openStore(OURS, place, { durability: 'batch' });
const before = options.baseline && (await openStore(options.baseline, place, { durability: 'batch' }));
const sides = {
  'without a subscriber': [ours, alone],
  'with a subscriber': [ours, subscribed],
  'with OpenTelemetry': [ours, traced],
  ...(before && { 'the version before': [before, alone] }),
};
for (const store of [ours, before]) await store?.initialize();

for (const [name, work] of Object.entries(WORK)) {
  const times = Object.fromEntries(Object.keys(sides).map((side) => [side, []]));
  for (let round = -2; round < Number(options.rounds); round++) {
    for (const [side, [store, wrapped]] of Object.entries(sides)) {
      const began = process.cpuUsage();
      let count;
      await wrapped(async () => (count = await work(store)));
      // The first rounds warm up.
      const { user, system } = process.cpuUsage(began);
      if (round >= 0) times[side].push((user + system) / count);
    }
  }
  const reference = median(times['without a subscriber']);
  for (const [side, each] of Object.entries(times)) {
    const own = median(each);
    console.log(`${name}, ${side}: ${own.toFixed(2)} µs of CPU a call, ${(own / reference).toFixed(2)}`);
  }
}
await Promise.all([ours, before].map((store) => store?.close()));
