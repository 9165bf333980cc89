// Has plugins executed in the host that it is started in, for bench/cni.ts: network namespaces stand for containers, made before the
// clock starts. Prints the milliseconds of every call as JSON.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { Fault } from '#model/fault.ts';

/** The plugin, and the program of cni-exec.c. */
const [plugin = '', runtime = ''] = process.argv.slice(2);
const reference = '/usr/lib/cni';
/** So many that the slowest of a hundred calls is not just one. */
const rounds = 205;
const bursts = 5;
const atOnce = 20;

interface Call {
  readonly file: string;
  readonly command: 'ADD' | 'DEL';
  readonly box: string;
  readonly configuration: object;
}

interface Executed {
  /** From before its process is made until that has ended. */
  readonly ms: number;
  readonly result: object;
}

/** Executes plugins as a runtime does, any number at once. */
class Runtime implements Disposable {
  readonly #child = spawn(runtime, { stdio: ['pipe', 'pipe', 'inherit'] });
  readonly #waiting = new Map<string, { readonly call: Call; readonly answer: PromiseWithResolvers<Executed> }>();
  #count = 0;

  constructor() {
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const [number = '', ms, status, ...output] = line.split('\t');
      const { call, answer } = this.#waiting.get(number) ?? {};
      this.#waiting.delete(number);
      const text = output.join('\t');
      if (status === '0') answer?.resolve({ ms: Number(ms), result: text === '' ? {} : (JSON.parse(text) as object) });
      else answer?.reject(new Fault('internal', `${basename(call?.file ?? '')} ${call?.command}: ${text}`));
    });
    this.#child.once('exit', () => {
      for (const { answer } of this.#waiting.values()) answer.reject(new Fault('internal', `${basename(runtime)} has ended`));
    });
  }

  /** Fault `internal`: the plugin failed. */
  execute(call: Call): Promise<Executed> {
    const { file, command, box, configuration } = call;
    const env = {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      CNI_COMMAND: command,
      CNI_CONTAINERID: box,
      CNI_NETNS: `/run/netns/${box}`,
      CNI_IFNAME: 'eth0',
      CNI_PATH: `${dirname(file)}:${reference}`,
    };
    const number = String(this.#count++);
    const answer = Promise.withResolvers<Executed>();
    this.#waiting.set(number, { call, answer });
    const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    this.#child.stdin.write(`${[number, file, settings.join('\x1f'), JSON.stringify(configuration)].join('\t')}\n`);
    return answer.promise;
  }

  [Symbol.dispose](): void {
    this.#child.stdin.end();
  }
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

using plugins = new Runtime();

/** Milliseconds that the plugins took. */
type Side = (command: 'ADD' | 'DEL', box: string) => Promise<number>;
const sides: Readonly<Record<'ours' | 'theirs', Side>> = {
  async ours(command, box) {
    const configuration = { ...common, type: 'causeway', capabilities: { portMappings: true } };
    return (await plugins.execute({ file: plugin, command, box, configuration })).ms;
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
      const made = await plugins.execute(first);
      return made.ms + (await plugins.execute(then(made.result))).ms;
    }
    return (await plugins.execute(then())).ms + (await plugins.execute(first)).ms;
  },
};

const ip = (...words: readonly string[]): void => {
  const { status, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
  if (status !== 0) throw new Fault('internal', `ip ${words.join(' ')}: ${stderr}`);
};

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
    const add = await sides[name]('ADD', box);
    const del = await sides[name]('DEL', box);
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
    burst[name].add.push(...(await Promise.all(boxes.map((box) => sides[name]('ADD', box)))));
    burst[name].del.push(...(await Promise.all(boxes.map((box) => sides[name]('DEL', box)))));
    for (const box of boxes) ip('netns', 'del', box);
  }
}
for (const name of names) {
  await sides[name]('DEL', `resident-${name}`);
  ip('netns', 'del', `resident-${name}`);
}
process.stdout.write(`${JSON.stringify({ sequential, burst })}\n`);
