// `causeway demo`: the whole product on one machine, built, proved and left running; and its removal.
import { parseArgs } from 'node:util';
import { assertNever, Fault, isFault } from '#model/fault.ts';
import { showChecks } from './demo-check.ts';
import { checks } from './demo-checks.ts';
import { showKubernetes } from './demo-kubernetes.ts';
import { endMeasuring, showMeasures } from './demo-measures.ts';
import { showNext } from './demo-next.ts';
import { showOpenStack } from './demo-openstack.ts';
import { openScreen, type Screen, seconds } from './demo-screen.ts';
import { makeNetworks, plan, startShops, subnet } from './demo-shops.ts';
import { openSite } from './demo-site.ts';
import { removeSite } from './demo-down.ts';
import { demoNeeds, ensurePackages } from './packages.ts';
import { withLabLock } from './state.ts';

const usage = `Usage: causeway demo [--quick] [--measure] [--name NAME]
       causeway demo --kubernetes [--name NAME]
       causeway demo --openstack [--quick] [--name NAME]
       causeway demo [--kubernetes | --openstack] --down [--name NAME]

Builds three Docker hosts in network namespaces of this machine, with real engines, a Causeway controller and an agent on
each; makes two networks with the same addresses, one of them encrypted; starts a small application in each; shows that
it works, and measures it. What it built stays and can be played with. Running it again checks it again.

With --kubernetes it builds a real cluster instead, a control plane and two nodes with Causeway as the only network. The programs
of Kubernetes are built once on a machine from Debian's source, which takes about eight minutes and 3 GB for the time.

With --openstack it builds a real cloud instead, Keystone and Neutron with OVN on two hypervisors, and Docker hosts as its instances
with port security on, and shows what the cloud drops, what Causeway makes it allow, and that nothing of it stays.

  --kubernetes show a Kubernetes cluster instead of Docker hosts
  --openstack  show Docker hosts as instances of an OpenStack cloud
  --down       remove everything that it built
  --quick      leave out the measurements; with --openstack show two of the models only
  --measure    measure again, where a lab that was measured is found
  --name NAME  name of the lab (default demo, demo-kubernetes or demo-openstack); demos of different names live side by side
  -h, --help   show this

Needs root, about 1 GB of memory and 1 GB of disk. Missing Debian packages are installed first.
`;

const options = {
  kubernetes: { type: 'boolean', default: false },
  openstack: { type: 'boolean', default: false },
  down: { type: 'boolean', default: false },
  quick: { type: 'boolean', default: false },
  measure: { type: 'boolean', default: false },
  name: { type: 'string' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

type Kind = 'docker' | 'kubernetes' | 'openstack';
/** Each with its own name, so that they live side by side. */
const names: Readonly<Record<Kind, string>> = { docker: 'demo', kubernetes: 'demo-kubernetes', openstack: 'demo-openstack' };

interface Wishes {
  readonly kind: Kind;
  readonly down: boolean;
  readonly quick: boolean;
  readonly measure: boolean;
  readonly name: string;
}

async function show(screen: Screen, { name, quick, measure }: Wishes): Promise<boolean> {
  const beganMs = performance.now();
  screen.line('Causeway: three Docker hosts, two isolated networks over all of them, one encrypted.');
  screen.line('All of it is in namespaces of this machine; ./causeway demo --down removes it.');

  screen.heading('Building');
  await ensurePackages(demoNeeds, screen);
  const site = await openSite(name, screen);
  await endMeasuring(site);
  await screen.step(`networks blue and green, both ${subnet}, green encrypted`, () => makeNetworks(site));
  await screen.step('in each a web server, a client and a database, on three hosts', () => startShops(site));
  screen.line();
  screen.table(plan(site));

  screen.heading('Checks');
  const results = await showChecks(site, checks);
  const failed = results.filter((passed) => !passed).length;

  if (!quick && failed === 0) {
    screen.heading('Measurements, from a container on host1 to one on host3');
    await showMeasures(site, measure);
  }
  screen.heading('What to try next');
  showNext(site, screen);
  screen.line();
  const verdict = failed === 0 ? `All ${results.length} checks passed` : `${failed} of ${results.length} checks FAILED`;
  screen.line(`${verdict}; ${seconds(beganMs)}. The lab is running.`);
  return failed === 0;
}

/** Whether every check has passed. */
function shown(screen: Screen, wished: Wishes): Promise<boolean> {
  switch (wished.kind) {
    case 'docker':
      return show(screen, wished);
    case 'kubernetes':
      return showKubernetes(screen, wished.name);
    case 'openstack':
      return showOpenStack(screen, wished.name, wished.quick);
    default:
      return assertNever(wished.kind);
  }
}

async function remove(screen: Screen, name: string): Promise<void> {
  await screen.step(`lab ${name} removed: processes, namespaces, mounts, control groups, files`, () => removeSite(name));
  screen.line('  Kept: installed packages, and .cache in this folder.');
}

function wishes(): Wishes | undefined {
  try {
    const { values } = parseArgs({ options, allowPositionals: false });
    const { help, kubernetes, openstack, ...rest } = values;
    if (kubernetes && openstack) throw new Error('--kubernetes and --openstack are two demonstrations: choose one');
    const kind = kubernetes ? 'kubernetes' : openstack ? 'openstack' : 'docker';
    if (!help) return { ...rest, kind, name: rest.name ?? names[kind] };
    process.stdout.write(usage);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new Fault('invalid', message, { hint: usage });
  }
  return undefined;
}

async function main(): Promise<void> {
  const wished = wishes();
  if (wished === undefined) return;
  const { down, kind, name } = wished;
  const command = `./causeway demo${kind === 'docker' ? '' : ` --${kind}`}`;
  if (process.getuid?.() !== 0) {
    throw new Fault('unsupported', 'The demonstration needs root: it makes network namespaces and starts Docker engines', {
      hint: `sudo ${command}${down ? ' --down' : ''}`,
    });
  }
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.once(signal, () => {
      process.stderr.write(`\nStopped. What was built is still there: ${command} goes on with it, ${command} --down removes it.\n`);
      process.exit(status);
    });
  }
  const screen = openScreen();
  // One at a time: two would start the same containers. A holder that was killed does not count.
  await withLabLock(`${name}.demo`, async () => {
    if (down) await remove(screen, name);
    else if (!(await shown(screen, wished))) process.exitCode = 1;
  });
}

try {
  await main();
} catch (error) {
  if (!isFault(error)) throw error;
  process.stderr.write(`causeway demo: ${error.message}\n${error.hint === undefined ? '' : `${error.hint}\n`}`);
  process.exitCode = error.code === 'invalid' ? 2 : 1;
}
