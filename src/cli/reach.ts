// `causeway exposure ls --cloud`: what of a project can be reached from where, by the cloud's own state; the login to it is the user's
// own, as with `causeway cloud`.
import { readReach } from '#cloud/reading.ts';
import { findCloud } from '#cloud/clouds.ts';
import { Neutron } from '#cloud/neutron.ts';
import { openingsTo } from '#cloud/reach.ts';
import { CloudSession } from '#cloud/session.ts';
import { degradedExit } from './faults.ts';
import type { Answer, Session } from './session.ts';
import { facts, plain, table } from './table.ts';

/** `name`: of clouds.yaml; undefined: what OS_* variables say. Faults as findCloud and Neutron's. */
export async function reachable(session: Session, name: string | undefined): Promise<Answer> {
  const cloud = await findCloud(session.surroundings.cloud, name);
  session.waitingFor = `the cloud at ${cloud.authUrl}`;
  await using login = new CloudSession(cloud);
  const { project } = await login.token();
  const reach = await readReach(new Neutron(login));
  const openings = openingsTo(reach);
  const { unread } = reach;
  if (unread !== undefined) session.surroundings.stderr.write(`Not seen: load balancers, as ${plain(unread.message)}\n`);
  return {
    data: openings,
    status: unread === undefined ? 0 : degradedExit,
    names: openings.map(({ addresses }) => addresses.join(',')),
    text: (look) =>
      facts(look, [['Project', project.name]]) +
      table(
        look,
        openings,
        [
          { title: 'FROM', value: ({ scope, from }) => `${scope}: ${from}` },
          { title: 'TO', value: ({ ports }) => shortened(ports) },
          { title: 'AT', value: ({ addresses }) => shortened(addresses) },
          { title: 'PROTOCOL', value: ({ protocol }) => protocol },
          { title: 'PORT', value: ({ portRange }) => portRange },
          {
            title: 'BY',
            value: ({ because, isOurs }) => (isOurs ? `causeway, ${because}` : because),
            style: ({ isOurs }) => (isOurs ? 'green' : 'yellow'),
          },
        ],
        'Nothing can be reached.',
      ),
  };
}

const mostNames = 3;
const shortened = (names: readonly string[]): string =>
  names.length <= mostNames ? names.join(', ') : `${names.slice(0, mostNames - 1).join(', ')} and ${names.length - mostNames + 1} others`;
