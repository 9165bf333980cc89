import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { test } from 'node:test';
import { help, type Options, readOptions } from './agent-options.ts';

const defaults: Options = {
  controllers: [],
  host: hostname(),
  state: '/var/lib/causeway',
  run: '/run/causeway',
  engine: '/var/run/docker.sock',
  plugin: '/run/docker/plugins/causeway.sock',
  driver: 'causeway',
  scope: 'local',
  recover: false,
  uninstall: false,
  cniConf: '/etc/cni/net.d/10-causeway.conflist',
  fastPath: true,
  port: 7481,
  logLevel: 'info',
};

const good: readonly {
  readonly what: string;
  readonly argv?: string;
  readonly environment?: Record<string, string>;
  readonly options: Partial<Options>;
}[] = [
  { what: 'nothing', options: {} },
  {
    what: 'how a host joins',
    argv: '--join cwj_abc --controller https://10.0.0.5:7480 --controller https://[fd00::5]:7480',
    options: { join: 'cwj_abc', controllers: ['https://10.0.0.5:7480', 'https://[fd00::5]:7480'] },
  },
  {
    what: 'every place',
    argv: '--state /s --run /r --plugin /p --engine /e',
    options: { state: '/s', run: '/r', plugin: '/p', engine: '/e' },
  },
  { what: 'a Swarm', argv: '--scope global --driver cw:latest', options: { scope: 'global', driver: 'cw:latest' } },
  {
    what: 'the end of it, also in the cluster that the host was part of',
    argv: '--uninstall --cni-conf /c',
    environment: { CAUSEWAY_KUBERNETES: '/k' },
    options: { uninstall: true, leaving: '/k', cniConf: '/c' },
  },
  { what: 'names', argv: '--host a --underlay eth1', options: { host: 'a', underlay: 'eth1' } },
  {
    what: 'switches',
    argv: '--recover --no-fast-path --port 0 --log-level debug',
    options: { recover: true, fastPath: false, port: 0, logLevel: 'debug' },
  },
  {
    what: 'the environment',
    environment: {
      CAUSEWAY_JOIN: 'cwj_abc',
      CAUSEWAY_CONTROLLER: 'https://a:7480,https://b:7480',
      CAUSEWAY_HOST: 'h',
      CAUSEWAY_UNDERLAY: '10.0.0.1',
      CAUSEWAY_SCOPE: 'global',
      CAUSEWAY_PORT: '65535',
      CAUSEWAY_LOG_LEVEL: 'error',
      CAUSEWAY_NO_FAST_PATH: '1',
    },
    options: {
      join: 'cwj_abc',
      controllers: ['https://a:7480', 'https://b:7480'],
      host: 'h',
      underlay: '10.0.0.1',
      scope: 'global',
      port: 65_535,
      logLevel: 'error',
      fastPath: false,
    },
  },
  {
    what: 'arguments before the environment',
    argv: '--host mine --controller https://mine:1',
    environment: { CAUSEWAY_HOST: 'other', CAUSEWAY_CONTROLLER: 'https://other:1' },
    options: { host: 'mine', controllers: ['https://mine:1'] },
  },
  {
    what: 'empty variables as if they were not there',
    environment: {
      CAUSEWAY_HOST: '',
      CAUSEWAY_SCOPE: '',
      CAUSEWAY_PORT: '',
      CAUSEWAY_CONTROLLER: '',
      CAUSEWAY_JOIN: '',
      CAUSEWAY_STATE: '',
      CAUSEWAY_NO_FAST_PATH: '',
    },
    options: {},
  },
];
for (const { what, argv = '', environment = {}, options } of good) {
  test(`reads ${what}`, () => {
    assert.deepEqual(readOptions(argv.split(' ').filter(Boolean), environment), { ...defaults, ...options });
  });
}

test('runs without an engine', () => {
  const { engine: _, ...without } = defaults;
  assert.deepEqual(readOptions(['--engine', 'none'], {}), without);
});

test('explains every option', () => {
  assert.deepEqual([readOptions(['--help'], {}), readOptions(['-h', '--port', 'x'], {})], ['help', 'help']);
  for (const name of [
    'join',
    'controller',
    'host',
    'underlay',
    'engine',
    'plugin',
    'driver',
    'scope',
    'state',
    'run',
    'port',
    'recover',
    'uninstall',
    'log-level',
  ])
    assert.match(help, new RegExp(`^  --${name}[ ,]`, 'm'));
});

function criOf(...argv: readonly string[]): Options['cri'] {
  const read = readOptions(argv, {});
  return read === 'help' ? undefined : read.cri;
}

test('whom to ask for sandboxes: as told, or of a node the usual ones', () => {
  const node = ['--kubernetes', '/k', '--pod-cidr', '10.244.0.0/16'];
  assert.equal(criOf(), undefined);
  assert.equal(criOf(...node, '--cri', 'none'), undefined);
  assert.deepEqual([criOf(...node)?.areUsual, criOf(...node)?.missingMs], [true, 300_000]);
  assert.deepEqual(criOf('--cri', 'unix:///run/x.sock', '--lost-seconds', '2'), {
    sockets: ['/run/x.sock'],
    areUsual: false,
    missingMs: 2000,
  });
});

const bad: readonly (readonly [string[], string | undefined])[] = [
  [['--nonsense'], undefined],
  [['positional'], undefined],
  [['--join'], undefined],
  [['--recover=yes'], undefined],
  [['--scope', 'swarm'], '--scope'],
  [['--port', ''], '--port'],
  [['--port', '65536'], '--port'],
  [['--port', '-1'], undefined],
  [['--port=-1'], '--port'],
  [['--port', '0x50'], '--port'],
  [['--port', '7481 '], '--port'],
  [['--log-level', 'loud'], '--log-level'],
  [['--cri', 'tcp://10.0.0.5:1'], '--cri'],
  [['--lost-seconds', '0'], '--lost-seconds'],
  [['--controller', '10.0.0.5:7480'], '--controller'],
  [['--controller', 'http://10.0.0.5:7480'], '--controller'],
  [['--controller', ''], '--controller'],
  [['--controller', 'https://a b:1'], '--controller'],
];
for (const [argv, field] of bad) {
  test(`refuses ${argv.join(' ')}`, () => {
    assert.throws(() => readOptions(argv, {}), { code: 'invalid', field });
  });
}
