// `causeway lab`: build, enter and remove labs by hand.
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Fault, isFault } from '#model/fault.ts';
import { ending, isMisuse, start } from './command.ts';
import { engineSocket, startDockerd } from './engine.ts';
import { boxImage, importImages } from './images.ts';
import { Kubernetes } from './kubernetes.ts';
import { createLab, destroyLab, type Lab, openLab } from './lab.ts';
import { ensurePackages, labNeeds } from './packages.ts';
import { terminalProgress } from './progress.ts';
import { labNames } from './state.ts';

const usage = `Usage: causeway lab COMMAND
  create NAME [--hosts 3] [--mtu 1450]   hosts with a running Docker engine and the image causeway/box
  list
  show NAME                              hosts, addresses, services
  exec NAME HOST [COMMAND…]              a shell or command in a host (host1 …, controller, outside, underlay,
                                         node1 … of \`causeway demo --openstack\`)
  docker NAME HOST ARGUMENTS…            the Docker client against a host's engine
  kubectl NAME ARGUMENTS…                kubectl as administrator of the cluster of \`causeway demo --kubernetes\`
  reboot NAME HOST                       power cut and start
  pull NAME HOST, plug NAME HOST         pull a host's network cable, put it back
  destroy NAME
`;

const progress = terminalProgress();
/** Commands in a host find this `causeway` first. */
const root = resolve(import.meta.dirname, '..');

async function create(argv: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: { hosts: { type: 'string', default: '3' }, mtu: { type: 'string', default: '1450' } },
  });
  const name = required(positionals[0], 'NAME');
  await ensurePackages(labNeeds, progress);
  const lab = await progress.step(`Building lab ${name}`, () => createLab({ name, hosts: Number(values.hosts), mtu: Number(values.mtu) }));
  await progress.step('Starting engines', () => Promise.all(lab.hosts.map((host) => startDockerd(host))));
  await progress.step('Importing images', () => Promise.all(lab.hosts.map((host) => importImages(host, [boxImage]))));
  show(lab);
}

function show(lab: Lab): void {
  for (const host of [...lab.hosts, lab.controller, lab.outside, ...lab.instances]) {
    const services = host.services().map(({ name }) => name);
    const state = host.isOn ? 'on' : 'off';
    console.log([host.name.padEnd(12), state.padEnd(4), host.address.padEnd(15), host.address6.padEnd(16), services.join(' ')].join(' '));
  }
}

/** Runs with this terminal and ends with the program's status. */
async function interactive(argv: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<void> {
  const child = start(argv, { stdio: 'inherit', env: { ...process.env, ...env } });
  process.on('SIGINT', () => {}); // the terminal gives it to the program, too
  const { status } = await ending(child, argv);
  process.exitCode = status;
}

function required(value: string | undefined, what: string): string {
  if (value === undefined) throw new Fault('invalid', `${what} is missing`, { hint: usage });
  return value;
}

function labNamed(name: string | undefined): Lab {
  const lab = openLab(required(name, 'NAME'));
  if (lab === undefined) throw new Fault('not-found', `Cannot find lab ${name}`, { hint: `causeway lab create ${name}` });
  return lab;
}

async function main(argv: readonly string[]): Promise<void> {
  const [command = 'help', ...rest] = argv;
  const host = () => labNamed(rest[0]).host(required(rest[1], 'HOST'));
  switch (command) {
    case 'create':
      return create(rest);
    case 'list':
      for (const name of labNames()) console.log(openLab(name) === undefined ? `${name} (unfinished)` : name);
      return;
    case 'show':
      return show(labNamed(rest[0]));
    case 'exec':
      return interactive(host().enter(rest.length > 2 ? rest.slice(2) : ['bash']), { PATH: `${root}:${process.env['PATH'] ?? ''}` });
    case 'docker':
      return interactive(['docker', ...rest.slice(2)], {
        DOCKER_HOST: `unix://${engineSocket(host())}`,
        DOCKER_CONFIG: `${host().folder}/client`,
      });
    case 'kubectl': {
      const lab = labNamed(rest[0]);
      return interactive(lab.controller.enter(new Kubernetes(lab).kubectlLine(rest.slice(1))));
    }
    case 'reboot':
      return progress.step(`Rebooting ${rest[1]}`, () => labNamed(rest[0]).reboot(host()));
    case 'pull':
      return labNamed(rest[0]).pullCable(host());
    case 'plug':
      return labNamed(rest[0]).plugCable(host());
    case 'destroy':
      return progress.step(`Removing lab ${required(rest[0], 'NAME')}`, () => destroyLab(rest[0] ?? ''));
    default:
      process.stderr.write(usage);
      process.exitCode = ['--help', '-h', 'help'].includes(command) ? 0 : 2;
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (!isFault(error) && !isMisuse(error)) throw error;
  const hint = isFault(error) ? error.hint : usage;
  process.stderr.write(`causeway lab: ${error.message}\n${hint === undefined ? '' : `${hint}\n`}`);
  process.exitCode = !isFault(error) || error.code === 'invalid' ? 2 : 1;
}
