// What to try on the running demonstration: commands to copy, each with what it shows.
import type { Screen } from './demo-screen.ts';
import { publishedPort } from './demo-shops.ts';
import type { Site } from './demo-site.ts';

const nameOption = (name: string): string => (name === 'demo' ? '' : ` --name ${name}`);

export function showNext({ lab }: Site, screen: Screen): void {
  const web = lab.host('host1').address;
  const tries: readonly (readonly [string, string])[] = [
    ['the whole installation at a glance', `lab exec ${lab.name} controller causeway status`],
    ['what the encrypted network is made of, down to the kernel objects', `lab exec ${lab.name} host1 causeway explain network green`],
    ['a container of your own; in it: wget -qO- http://web/', `lab docker ${lab.name} host2 run --rm -it --network green causeway/tools`],
    ['the exposed page, from outside', `lab exec ${lab.name} outside busybox wget -qO- http://${web}:${publishedPort}/`],
    [
      'expose the other one, then fetch it at port 8081 in the same way',
      `lab exec ${lab.name} controller causeway expose green green-web 80 --host-port 8081`,
    ],
    ['kill an agent: packets go on, only names wait until it is back', `lab exec ${lab.name} host1 pkill -KILL -f bin/agent.ts`],
    ['check everything again, and start what is down', `demo --quick${nameOption(lab.name)}`],
    ['remove everything', `demo --down${nameOption(lab.name)}`],
  ];
  for (const [what, command] of tries) {
    screen.line(`  # ${what}`);
    screen.command(`./causeway ${command}`);
  }
}
