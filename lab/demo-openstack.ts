// `causeway demo --openstack`: Docker hosts as instances of a real cloud on one machine; what the cloud drops, what Causeway makes it
// allow, and that it takes it back; proved and left running.
import { showChecks } from './demo-check.ts';
import { type CloudDemo, cloudName, openCloud } from './demo-cloud.ts';
import { firstChecks, hostPort, lastingChecks, makeLasting } from './demo-cloud-checks.ts';
import { type Screen, seconds } from './demo-screen.ts';
import { ensurePackages, openstackNeeds } from './packages.ts';

/** Whether every check has passed. `quick`: of the models fewer. */
export async function showOpenStack(screen: Screen, name: string, quick: boolean): Promise<boolean> {
  const beganMs = performance.now();
  screen.line('Causeway: two Docker hosts as instances of an OpenStack cloud, which drops what it was not told to let pass.');
  screen.line('All of it is in namespaces of this machine; ./causeway demo --openstack --down removes it.');

  screen.heading('Building');
  await ensurePackages(openstackNeeds, screen);
  const site = await openCloud(name, screen);

  screen.heading('Checks: one model after the other');
  const results = await showChecks(site, firstChecks(quick));
  screen.heading('Checks: what stays');
  await screen.step('networks shop (VXLAN) and plain (plain routes), each with a container on both hosts', () => makeLasting(site));
  results.push(...(await showChecks(site, lastingChecks(quick))));
  const failed = results.filter((passed) => !passed).length;

  screen.heading('What to try next');
  await showNext(site);
  screen.line();
  const verdict = failed === 0 ? `All ${results.length} checks passed` : `${failed} of ${results.length} checks FAILED`;
  screen.line(`${verdict}; ${seconds(beganMs)}. The cloud is running.`);
  return failed === 0;
}

async function showNext(site: CloudDemo): Promise<void> {
  const { screen, bed } = site;
  const { lab } = bed.cloud;
  const controller = `lab exec ${lab.name} controller causeway`;
  const option = lab.name === 'demo-openstack' ? '' : ` --name ${lab.name}`;
  const tries: readonly (readonly [string, string])[] = [
    ['which networking model suits this cloud, and why', `${controller} plan --cloud ${cloudName} --isolation`],
    ['what the cloud must allow for the networks that there are', `${controller} cloud plan --cloud ${cloudName}`],
    ['a container of your own; in it: ping plain2', `lab docker ${lab.name} node1 run --rm -it --network plain causeway/box`],
    ['the exposed page, from outside', `lab exec ${lab.name} outside busybox wget -qO- http://${await site.floatingIp()}:${hostPort}/`],
    ['OVN’s own view of it, on the controller’s host', `lab exec ${lab.name} controller ovn-nbctl --db=tcp:127.0.0.1:6641 list acl`],
    ['check everything again', `demo --openstack${option}`],
    ['remove everything', `demo --openstack --down${option}`],
  ];
  for (const [what, command] of tries) {
    screen.line(`  # ${what}`);
    screen.command(`./causeway ${command}`);
  }
}
