// Executes plugins in the host that it is started in, for bench/cni.ts: network namespaces stand for containers, made before
// the clock starts. Prints the milliseconds of every call as JSON.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { text } from 'node:stream/consumers';
import { Fault } from '#model/fault.ts';

const [plugin = ''] = process.argv.slice(2);
const reference = '/usr/lib/cni';
const rounds = 60;
const bursts = 5;
const atOnce = 20;

interface Call {
  readonly file: string;
  readonly command: 'ADD' | 'DEL';
  readonly box: string;
  readonly configuration: object;
}

async function call({ file, command, box, configuration }: Call): Promise<object> {
  const env = {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    CNI_COMMAND: command,
    CNI_CONTAINERID: box,
    CNI_NETNS: `/run/netns/${box}`,
    CNI_IFNAME: 'eth0',
    CNI_PATH: `${dirname(file)}:${reference}`,
  };
  const child = spawn(file, { env, stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(JSON.stringify(configuration));
  const output = await text(child.stdout);
  const answer = (output === '' ? {} : JSON.parse(output)) as { readonly code?: number };
  if (answer.code !== undefined) throw new Fault('internal', `${basename(file)} ${command}: ${output}`);
  return answer;
}

const common = { cniVersion: '1.0.0', name: 'pods' };
const bridge = {
  ...common,
  name: 'theirs',
  type: 'bridge',
  bridge: 'cni-theirs',
  isGateway: true,
  ipMasq: true,
  ipam: { type: 'host-local', ranges: [[{ subnet: '10.41.0.0/16' }]], routes: [{ dst: '0.0.0.0/0' }] },
};
const portmap = { ...common, name: 'theirs', type: 'portmap', runtimeConfig: { portMappings: [] } };

type Side = (command: 'ADD' | 'DEL', box: string) => Promise<void>;
const sides: Readonly<Record<'ours' | 'theirs', Side>> = {
  async ours(command, box) {
    await call({ file: plugin, command, box, configuration: { ...common, type: 'causeway', capabilities: { portMappings: true } } });
  },
  async theirs(command, box) {
    const first = { file: `${reference}/bridge`, command, box, configuration: bridge };
    const then = (prevResult?: object): Call => ({
      file: `${reference}/portmap`,
      command,
      box,
      configuration: prevResult === undefined ? portmap : { ...portmap, prevResult },
    });
    if (command === 'ADD') {
      await call(then(await call(first)));
      return;
    }
    await call(then());
    await call(first);
  },
};

const ip = (...words: readonly string[]): void => {
  const { status, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
  if (status !== 0) throw new Fault('internal', `ip ${words.join(' ')}: ${stderr}`);
};

async function timed(run: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await run();
  return performance.now() - began;
}

const names = ['ours', 'theirs'] as const;
const empty = () => ({ ours: { add: [] as number[], del: [] as number[] }, theirs: { add: [] as number[], del: [] as number[] } });
const sequential = empty();
const burst = empty();

mkdirSync('/run/netns', { recursive: true });
// A host with nothing on it is set up with its first container; here it has one already.
for (const name of names) {
  ip('netns', 'add', `resident-${name}`);
  await sides[name]('ADD', `resident-${name}`);
}
for (let round = 0; round < rounds; round++) {
  for (const name of round % 2 === 0 ? names : names.toReversed()) {
    const box = `bench-${name}`;
    ip('netns', 'add', box);
    const add = await timed(() => sides[name]('ADD', box));
    const del = await timed(() => sides[name]('DEL', box));
    ip('netns', 'del', box);
    // The first ones make the bridge, fill caches and warm the agent up.
    if (round < 5) continue;
    sequential[name].add.push(add);
    sequential[name].del.push(del);
  }
}
for (let round = 0; round < bursts; round++) {
  for (const name of round % 2 === 0 ? names : names.toReversed()) {
    const boxes = Array.from({ length: atOnce }, (_, index) => `bench-${name}-${index}`);
    for (const box of boxes) ip('netns', 'add', box);
    burst[name].add.push(...(await Promise.all(boxes.map((box) => timed(() => sides[name]('ADD', box))))));
    burst[name].del.push(...(await Promise.all(boxes.map((box) => timed(() => sides[name]('DEL', box))))));
    for (const box of boxes) ip('netns', 'del', box);
  }
}
for (const name of names) {
  await sides[name]('DEL', `resident-${name}`);
  ip('netns', 'del', `resident-${name}`);
}
process.stdout.write(`${JSON.stringify({ sequential, burst })}\n`);
