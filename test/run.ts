// `causeway test [LAYER…]`: the layers of tests, cheapest first, each alone when named. A layer fails when a test fails,
// and when nothing in it really ran: a layer that skipped everything has shown nothing.
import { glob } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { run } from 'node:test';
import { spec, tap } from 'node:test/reporters';
import { isFault } from '#model/fault.ts';
import { buildKubernetes, clusterPrograms, needsOfKubernetes, upstreamPrograms } from '#lab/kubernetes-programs.ts';
import { upstreamNeeds } from '#lab/kubernetes-upstream.ts';
import { amphoraNeeds } from '#lab/openstack-amphora.ts';
import { magnumNeeds } from '#lab/openstack-magnum.ts';
import { novaNeeds } from '#lab/openstack-nova.ts';
import { octaviaNeeds } from '#lab/openstack-octavia.ts';
import { ensurePackages, openstackNeeds, testNeeds } from '#lab/packages.ts';
import { terminalProgress } from '#lab/progress.ts';
import { checkStatics } from './static.ts';

const root = join(import.meta.dirname, '..');

interface Layer {
  readonly name: string;
  readonly about: string;
  readonly needsRoot: boolean;
  run(patterns: readonly string[]): Promise<boolean>;
}

/** Parts of the names of files that take longest, the longest first: begun last, they would be waited for alone. */
const longest = [
  'upstream',
  'openstack-pods',
  'magnum.e2e',
  'openstack-demo',
  'neutron',
  'swarm',
  'install',
  'crash',
  'expose',
  'openstack-auto',
  'magnum-calls',
  'openstack-paths',
  'reconcile',
  'clients',
];
const rankOf = (file: string): number => longest.findIndex((part) => file.includes(part)) + 1 || longest.length + 1;

const layers: readonly Layer[] = [
  { name: 'static', about: 'format, lint, types, words that must not appear', needsRoot: false, run: () => checkStatics(root) },
  {
    name: 'unit',
    about: 'src and lab, without root or namespaces',
    needsRoot: false,
    run: async (patterns) => {
      const files = (await find(['src/**/*.test.ts', 'lab/**/*.test.ts', 'test/**/*.test.ts', 'bench/**/*.test.ts'])).filter(
        (file) => !file.endsWith('.netns.test.ts'),
      );
      return runFiles(pick(files, patterns), { concurrency: availableParallelism(), minutes: 10 });
    },
  },
  {
    name: 'kernel',
    about: 'the real kernel and real etcd, each file in namespaces of its own',
    needsRoot: true,
    run: async (patterns) => {
      const files = await find(['src/**/*.netns.test.ts', 'lab/**/*.netns.test.ts']);
      return runFiles(pick(files, patterns), { concurrency: 2, minutes: 15, node: join(import.meta.dirname, 'isolated-node') });
    },
  },
  {
    name: 'docker',
    about: 'end to end in a lab of real engines',
    needsRoot: true,
    run: async (patterns) => {
      const files = (await find(['test/**/*.e2e.ts'])).filter((file) => !isOfKubernetes(file) && !isOfOpenStack(file));
      return runEndToEnd(pick(files, patterns));
    },
  },
  {
    name: 'openstack',
    about: 'end to end in a real cloud: Keystone, Neutron, OVN and Open vSwitch from Debian',
    needsRoot: true,
    run: async (patterns) => {
      const files = pick((await find(['test/**/*.e2e.ts'])).filter(isOfOpenStack), patterns);
      const has = (...parts: readonly string[]): boolean => files.some((file) => parts.some((part) => file.includes(part)));
      const withCluster = has('magnum', 'pods');
      const progress = terminalProgress();
      await ensurePackages(
        [
          ...openstackNeeds,
          ...(has('magnum') ? [...magnumNeeds, ...amphoraNeeds] : []),
          ...(withCluster ? needsOfKubernetes() : []),
          ...(has('expose', 'magnum') ? octaviaNeeds : []),
          ...(has('clients') ? novaNeeds : []),
        ],
        progress,
      );
      if (withCluster) await buildKubernetes(progress);
      // Each keeps a third of two processors busy and waits for the rest. With more at a time caches are cold at each turn: with seven a call
      // of Neutron takes 1.7 times the processor that it takes with two (measured).
      return runEndToEnd(files, 5);
    },
  },
  {
    name: 'kubernetes',
    about: 'end to end in a real cluster, which is built from source once on a machine',
    needsRoot: true,
    run: async (patterns) => {
      const progress = terminalProgress();
      const files = pick((await find(['test/**/*.e2e.ts'])).filter(isOfKubernetes), patterns);
      const withUpstream = files.some((file) => file.includes('upstream'));
      const programs = [...clusterPrograms, ...(withUpstream ? upstreamPrograms : [])];
      await ensurePackages([...needsOfKubernetes(programs), ...(withUpstream ? upstreamNeeds : [])], progress);
      await buildKubernetes(progress, programs);
      return runEndToEnd(files);
    },
  },
];

const isOfOpenStack = (file: string): boolean => file.startsWith('test/openstack');
const isOfKubernetes = (file: string): boolean => file.startsWith('test/kubernetes');

async function find(globs: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for await (const file of glob([...globs], { cwd: root })) files.push(file);
  return files.sort();
}

const pick = (files: readonly string[], patterns: readonly string[]): string[] =>
  files.filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)));

interface FileRun {
  readonly concurrency: number;
  /** Longest time for one file: thrice and more what the longest takes on a quiet machine. */
  readonly minutes: number;
  /** What to execute each file with, instead of this Node. */
  readonly node?: string;
}

/** Runs test files with Node's runner, one process each, and answers whether they passed. */
async function runFiles(files: readonly string[], options: FileRun): Promise<boolean> {
  if (files.length === 0) {
    console.log('No test file matches.');
    return false;
  }
  const own = process.execPath;
  // The runner starts each file with process.execPath, which is how a file gets into namespaces of its own.
  process.execPath = options.node ?? own;
  process.env['CAUSEWAY_NODE'] = own;
  let passed = true;
  let ran = 0;
  try {
    const stream = run({
      files: files.map((file) => join(root, file)),
      concurrency: options.concurrency,
      timeout: options.minutes * 60_000,
      execArgv: ['--disable-warning=ExperimentalWarning'],
      cwd: root,
    });
    stream.on('test:fail', (data) => {
      if (data.todo === undefined || data.todo === false) passed = false;
    });
    stream.on('test:summary', ({ file, counts, success }) => {
      if (file !== undefined) return;
      ran = counts.tests - counts.skipped;
      if (!success) passed = false;
    });
    const text: NodeJS.ReadableStream = process.stdout.isTTY ? stream.compose(new spec()) : Readable.from(stream.compose(tap));
    await pipeline(text, process.stdout, { end: false });
  } finally {
    process.execPath = own;
  }
  if (passed && ran === 0) {
    console.log('Every test was skipped: nothing has been shown.');
    return false;
  }
  return passed;
}

/** Labs are each file's own, and mostly wait for something: several at once take little longer than one. */
const runEndToEnd = (files: readonly string[], concurrency = 2): Promise<boolean> => {
  const ordered = files.toSorted((one, other) => rankOf(one) - rankOf(other));
  return runFiles(ordered, { concurrency, minutes: 60 });
};

async function main(argv: readonly string[]): Promise<number> {
  const names = argv.filter((argument) => layers.some(({ name }) => name === argument));
  const patterns = argv.filter((argument) => !names.includes(argument));
  if (patterns.some((pattern) => pattern.startsWith('-')) || (patterns.length > 0 && names.length === 0)) {
    console.error('Usage: causeway test [LAYER… [PART OF A FILE NAME…]]');
    for (const layer of layers) console.error(`  ${layer.name.padEnd(10)} ${layer.about}`);
    return 2;
  }
  const chosen = layers.filter(({ name }) => names.length === 0 || names.includes(name));
  if (chosen.some(({ needsRoot }) => needsRoot)) await ensurePackages(testNeeds, terminalProgress());
  for (const layer of chosen) {
    console.log(`\n== ${layer.name}: ${layer.about}`);
    if (layer.needsRoot && process.getuid?.() !== 0) {
      console.error(`The layer ${layer.name} needs root`);
      return 1;
    }
    const began = performance.now();
    const passed = await layer.run(patterns);
    console.log(`== ${layer.name} ${passed ? 'passed' : 'FAILED'} in ${((performance.now() - began) / 1000).toFixed(1)} s`);
    if (!passed) return 1;
  }
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!isFault(error)) throw error;
  console.error(`causeway test: ${error.message}\n${error.hint ?? ''}`);
  process.exitCode = 1;
}
