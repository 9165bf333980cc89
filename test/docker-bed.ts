// What the Docker end-to-end tests lie in: a lab of real engines with a controller and agents joined by token, as the
// installation guide does it. With CAUSEWAY_KEEP_LAB=1 the lab outlives the test file and the next run takes it over.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { startAgent, startController, stopAgent, stopController } from '#lab/causeway.ts';
import type { Output } from '#lab/command.ts';
import { dockerOutput, startDockerd } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';
import { boxImage, type ImageRecipe, importImages } from '#lab/images.ts';
import { createLab, destroyLab, type Lab, type LabOptions, openLab } from '#lab/lab.ts';
import { until } from '#lab/until.ts';

/** Debian's essential Perl, for what busybox cannot do: a server of datagrams, packets made by hand. */
export const perlImage: ImageRecipe = {
  name: 'causeway/perl',
  programs: { '/usr/bin/perl': '/usr/bin/perl' },
  scripts: {
    // Answers each datagram on port 53 with its text, the client's address and the own name.
    '/usr/bin/echo-udp': [
      '#!/usr/bin/perl',
      'chomp(my $name = `hostname`);',
      'socket(S, 10, 2, 17) or die $!;',
      'bind(S, pack("S n N a16 N", 10, 53, 0, "\\0" x 16, 0)) or die $!;',
      'while (defined(my $from = recv(S, my $text, 2000, 0))) {',
      '  chomp $text;',
      '  my $client = join ".", unpack("x20 C4", $from);',
      '  send(S, "$text from $client at $name\\n", 0, $from);',
      '}',
      '',
    ].join('\n'),
    // Sends one frame, given in hexadecimal digits, on eth0 as it is.
    '/usr/bin/send-frame': [
      '#!/usr/bin/perl',
      'open(my $f, "<", "/sys/class/net/eth0/ifindex") or die $!;',
      'my $index = <$f> + 0;',
      'socket(S, 17, 3, 0) or die $!;',
      'send(S, pack("H*", $ARGV[0]), 0, pack("S n l S C C a8", 17, 0x0800, $index, 0, 0, 6, "\\0" x 8)) or die $!;',
      '',
    ].join('\n'),
  },
  changes: ['CMD ["echo-udp"]'],
};

const program = join(import.meta.dirname, '..', 'src', 'bin', 'cli.ts');
const keeps = process.env['CAUSEWAY_KEEP_LAB'] === '1';
/** Other people's work on the machine makes everything slow now and then; a passing test never waits this long. */
const patience = { timeoutMs: 90_000, intervalMs: 100 };

/** The first lines of an answer that should hold, for a failure that can be read. */
const shown = ({ status, stdout, stderr }: Output): string => `exit status ${status}: ${stderr || stdout}`.slice(0, 1000);

export class DockerBed implements AsyncDisposable {
  readonly lab: Lab;
  constructor(lab: Lab) {
    this.lab = lab;
  }

  get hosts(): readonly Host[] {
    return this.lab.hosts;
  }

  /** The `index`-th Docker host from 1. */
  host(index: number): Host {
    return this.lab.host(`host${index}`);
  }

  /** Runs `docker` against the `index`-th host's engine, to whatever end. */
  tryDocker(index: number, ...argv: readonly string[]): Promise<Output> {
    return dockerOutput(this.host(index), argv, { anyStatus: true });
  }

  async docker(index: number, ...argv: readonly string[]): Promise<string> {
    const output = await this.tryDocker(index, ...argv);
    assert.equal(output.status, 0, `host${index}: docker ${argv.join(' ')}: ${shown(output)}`);
    return output.stdout.trim();
  }

  /** As `docker`, for what must fail: answers what it says. */
  async refused(index: number, ...argv: readonly string[]): Promise<string> {
    const output = await this.tryDocker(index, ...argv);
    assert.notEqual(output.status, 0, `host${index}: docker ${argv.join(' ')} succeeded: ${shown(output)}`);
    return output.stderr.trim();
  }

  /** Runs `causeway` as the administrator on the controller's host, to whatever end. */
  tryCauseway(...argv: readonly string[]): Promise<Output> {
    return this.lab.controller.exec([process.execPath, '--disable-warning=ExperimentalWarning', program, ...argv], { anyStatus: true });
  }

  /** The same on a Docker host, in the host's own name. */
  tryOnHost(index: number, ...argv: readonly string[]): Promise<Output> {
    return this.host(index).exec([process.execPath, '--disable-warning=ExperimentalWarning', program, ...argv], { anyStatus: true });
  }

  async causeway(...argv: readonly string[]): Promise<string> {
    const output = await this.tryCauseway(...argv);
    assert.equal(output.status, 0, `causeway ${argv.join(' ')}: ${shown(output)}`);
    return output.stdout.trim();
  }

  async json<T>(...argv: readonly string[]): Promise<T> {
    return JSON.parse(await this.causeway(...argv, '--output', 'json')) as T;
  }

  /** Starts a container that sleeps until it is removed, and answers its id. */
  start(index: number, name: string, network: string, ...options: readonly string[]): Promise<string> {
    return this.run(index, name, network, options, ['sleep', '86400']);
  }

  run(index: number, name: string, network: string, options: readonly string[], command: readonly string[]): Promise<string> {
    return this.docker(index, 'run', '--detach', `--name=${name}`, `--network=${network}`, ...options, boxImage.name, ...command);
  }

  /** As `start`, of another image with its own command. */
  startImage(index: number, name: string, network: string, image: ImageRecipe, ...options: readonly string[]): Promise<string> {
    return this.docker(index, 'run', '--detach', `--name=${name}`, `--network=${network}`, ...options, image.name);
  }

  /** Runs a program in a container to whatever end. */
  tryIn(index: number, name: string, ...command: readonly string[]): Promise<Output> {
    return this.tryDocker(index, 'exec', name, ...command);
  }

  /** Waits until a program in a container succeeds, and answers what it prints. Names and remote endpoints need a moment. */
  in(index: number, name: string, ...command: readonly string[]): Promise<string> {
    return until(
      `${name} on host${index}: ${command.join(' ')}`,
      async () => {
        const output = await this.tryIn(index, name, ...command);
        if (output.status !== 0) throw new Error(shown(output));
        return output.stdout.trim() || ' ';
      },
      patience,
    ).then((text) => text.trim());
  }

  ping(index: number, name: string, target: string): Promise<string> {
    return this.in(index, name, 'ping', '-c1', '-W1', target);
  }

  /** Addresses of a container in a network, IPv4 first. */
  async addresses(index: number, name: string, network: string): Promise<{ ip: string; ip6: string; mac: string; id: string }> {
    const format = `{{with index .NetworkSettings.Networks "${network}"}}{{.IPAddress}},{{.GlobalIPv6Address}},{{.MacAddress}},{{.EndpointID}}{{end}}`;
    const [ip = '', ip6 = '', mac = '', id = ''] = (await this.docker(index, 'inspect', '--format', format, name)).split(',');
    return { ip, ip6, mac, id };
  }

  networkNames(index: number): Promise<string[]> {
    return this.docker(index, 'network', 'ls', '--format', '{{.Name}}').then((text) => text.split('\n'));
  }

  /** Waits until every engine lists the network, or none does. */
  async everywhere(name: string, state: 'present' | 'absent'): Promise<void> {
    for (const [index] of this.hosts.entries()) {
      await until(
        `network ${name} to be ${state} on host${index + 1}`,
        async () => (await this.networkNames(index + 1)).includes(name) === (state === 'present'),
        patience,
      );
    }
  }

  async createNetwork(name: string, ...options: readonly string[]): Promise<void> {
    await this.causeway('network', 'create', name, ...options);
    await this.everywhere(name, 'present');
  }

  /** Removes containers by name; absent ones are no failure. */
  async remove(index: number, ...names: readonly string[]): Promise<void> {
    await this.docker(index, 'rm', '--force', ...names);
  }

  /** No container and no network of ours is left; kernel objects included. */
  async clear(): Promise<void> {
    await Promise.all(
      this.hosts.map(async (_, index) => {
        // One whose removal is under way already is refused.
        const areGone = async (): Promise<boolean> => {
          const ids = await this.docker(index + 1, 'ps', '--all', '--quiet');
          if (ids !== '') await this.tryDocker(index + 1, 'rm', '--force', ...ids.split('\n'));
          return ids === '';
        };
        await until(`containers of host${index + 1} to be removed`, areGone, patience);
        await this.docker(index + 1, 'network', 'prune', '--force');
      }),
    );
    await until(
      'all networks to be removed',
      async () => {
        const networks = await this.json<{ name: string }[]>('network', 'ls');
        if (networks.length > 0) await this.tryCauseway('network', 'rm', '--yes', ...networks.map(({ name }) => name));
        const left = await Promise.all(
          this.hosts.map(async (_, index) => {
            const ids = await this.docker(index + 1, 'network', 'ls', '--quiet', '--filter=driver=causeway');
            if (ids !== '') await this.docker(index + 1, 'network', 'prune', '--force');
            return ids;
          }),
        );
        if (networks.length > 0) throw new Error(`there are ${networks.map(({ name }) => name).join(' ')}`);
        return left.every((ids) => ids === '');
      },
      patience,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!keeps) await destroyLab(this.lab.name);
  }
}

/** Builds the lab, engines, controller and agents. Fault as `createLab`, `run`, and `timeout`. */
export async function makeDockerBed(name: string, hosts = 3, more: Pick<LabOptions, 'beyond'> = {}): Promise<DockerBed> {
  const kept = keeps ? openLab(name) : undefined;
  if (kept?.underlay.isOn === true) {
    const bed = new DockerBed(kept);
    // The programs may have changed since.
    await Promise.all([stopController(kept.controller), ...kept.hosts.map((host) => stopAgent(host))]);
    await startController(kept.controller, { arguments: ['--san', kept.controller.address] });
    await Promise.all(kept.hosts.flatMap((host) => [startDockerd(host), startAgent(host)]));
    await Promise.all(kept.hosts.map((host) => importImages(host, [boxImage, perlImage])));
    await until('the controller to answer', () => bed.causeway('status', '--output', 'json').catch(() => undefined), patience);
    await bed.clear();
    return bed;
  }
  await destroyLab(name);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => destroyLab(name));
  const lab = await createLab({ name, hosts, ...more });
  const bed = new DockerBed(lab);
  await startController(lab.controller, { arguments: ['--san', lab.controller.address] });
  await until('the controller to answer', () => bed.causeway('status'), patience);
  await Promise.all(
    lab.hosts.map(async (host) => {
      const { token } = await bed.json<{ token: string }>('token', 'create', '--join');
      await startAgent(host, { arguments: ['--join', token, '--controller', `https://${lab.controller.address}:7480`] });
      await startDockerd(host);
      await importImages(host, [boxImage, perlImage]);
    }),
  );
  await until(
    'all hosts to be ready',
    async () => {
      const found = await bed.json<{ status: { ready: boolean } }[]>('host', 'ls');
      return found.length === hosts && found.every(({ status }) => status.ready);
    },
    patience,
  );
  undo.move();
  return bed;
}
