// Many watching hosts in one process: each joins, takes part in a network by a block and watches on a connection of its own.
// Told to, they add endpoints in turn at fixed moments. Every line that comes is timed against the moment at which its
// endpoint was sent to the controller, which its label says. Commands and answers are lines of JSON.
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Ip } from '#model/ip.ts';
import type { Access } from './causeway.ts';
import { adminClient, claimAddresses, endpointRequest, type FakeHost, forEach, joinFakeHost } from './fake-host.ts';
import { type Arrival, label, type Reader, readers } from './watch-readers.ts';

export interface Begin {
  readonly access: Access;
  /** Every network that this process's hosts take part in, and who. */
  readonly networks: readonly { readonly id: string; readonly pool: string; readonly hosts: readonly string[] }[];
  readonly reader: Reader;
}

/** This process adds the endpoints `first`, `first + step` … below `count`, number n at `at + n * everyMs`. */
export interface Add {
  readonly at: number;
  readonly first: number;
  readonly step: number;
  readonly count: number;
  readonly everyMs: number;
}

export interface Result {
  /** By endpoint number: milliseconds until the last host of this process had it; null when it needs none here. */
  readonly last: readonly (number | null)[];
  /** By milliseconds: how many lines took so long. */
  readonly histogram: readonly number[];
  readonly received: number;
  readonly cpuSeconds: number;
}

const patienceMs = 60_000;
const now = (): number => performance.timeOrigin + performance.now();
const say = (line: unknown, said?: () => void): void => void process.stdout.write(`${JSON.stringify(line)}\n`, said);

interface Member extends FakeHost {
  readonly network: string;
  readonly free: Ip[];
}

const members: Member[] = [];
const arrivals = { received: 0, last: [] as number[], histogram: [] as number[] };
const broken = Promise.withResolvers<never>();
broken.promise.catch(() => {}); // reported where it is waited for

function note({ number, sent }: Arrival): void {
  const ms = now() - sent;
  arrivals.received += 1;
  arrivals.last[number] = Math.max(arrivals.last[number] ?? 0, ms);
  const bucket = Math.max(0, Math.round(ms));
  arrivals.histogram[bucket] = (arrivals.histogram[bucket] ?? 0) + 1;
}

/** Resolves when the watch has said everything there is; `broken` rejects should it end. */
async function watch(member: Member, url: string, reader: Reader): Promise<void> {
  const synced = Promise.withResolvers<void>();
  const seen = new Set<number>();
  const reading = readers[reader](member, url, synced.resolve, (arrival) => {
    if (seen.has(arrival.number)) return;
    seen.add(arrival.number);
    note(arrival);
  });
  reading.then(
    () => broken.reject(new Error(`The watch of ${member.name} has ended`)),
    (error: unknown) => broken.reject(error),
  );
  await Promise.race([synced.promise, broken.promise]);
}

async function begin({ access, networks }: Begin): Promise<void> {
  const admin = adminClient(access);
  for (const { id, pool, hosts } of networks) {
    await forEach(hosts, 8, async (name) => {
      const host = await joinFakeHost(admin, access.url, name);
      members.push({ ...host, network: id, free: await claimAddresses(host, id, pool) });
    });
  }
}

async function add({ at, first, step, count, everyMs }: Add): Promise<void> {
  const calls: Promise<unknown>[] = [];
  for (let number = first; number < count; number += step) {
    const wait = at + number * everyMs - now();
    if (wait > 0) await sleep(wait);
    // a prime step, so that one network after the other gets one
    const member = members[(Math.floor(number / step) * 37) % members.length];
    const ip = member?.free.pop();
    if (member === undefined || ip === undefined) throw new Error('Out of addresses');
    const id = `e${String(number).padStart(11, '0')}`;
    const labels = { [label]: String(now()) };
    calls.push(member.client.putEndpoint(endpointRequest({ id, network: member.network, host: member.name, ip, labels })));
  }
  await Promise.all(calls);
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async (): Promise<unknown> => JSON.parse((await lines.next()).value ?? 'null');

const beginning = (await next()) as Begin;
await begin(beginning);
say({ joined: members.length });
await next();
await forEach(members, 20, (member) => watch(member, beginning.access.url, beginning.reader));
say({ watching: members.length });
const before = process.cpuUsage();
await Promise.race([broken.promise, add((await next()) as Add)]);
say({ added: true });
// how many lines there must be is known to who has started us
const { expected } = (await next()) as { expected: number };
for (const end = now() + patienceMs; now() < end; await sleep(100)) if (arrivals.received >= expected) break;
const { user, system } = process.cpuUsage(before);
const histogram = Array.from({ length: arrivals.histogram.length }, (_, ms) => arrivals.histogram[ms] ?? 0);
const result: Result = { last: arrivals.last, histogram, received: arrivals.received, cpuSeconds: (user + system) / 1e6 };
// A long line leaves in parts.
say(result, () => process.exit(0));
