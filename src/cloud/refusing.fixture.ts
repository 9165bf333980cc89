// A Neutron for tests that refuses what a test says, in Neutron's words, and otherwise answers with what it is given.
import { Neutron } from './neutron.ts';
import { cloudOf, json, keystone, serving } from './server.fixture.ts';
import { CloudSession } from './session.ts';

export interface Refusal {
  readonly status: number;
  readonly body: object;
}
export const refusalOf = (status: number, type: string, message: string): Refusal => ({
  status,
  body: { NeutronError: { type, message, detail: '' } },
});

/** `refusals`: by method and path, as `PUT routers/router`. `found`: what is answered by path; otherwise there are no security groups. */
export async function withRefusals<T>(
  refusals: Readonly<Record<string, Refusal>>,
  found: Readonly<Record<string, object>>,
  work: (neutron: Neutron, asked: readonly string[]) => Promise<T>,
): Promise<T> {
  let url = '';
  const asked: string[] = [];
  const identity = keystone(() => url);
  await using server = await serving((request, response, body) => {
    if (request.url === '/v3/auth/tokens') return identity.answer(request, response, body);
    const path = new URL(request.url ?? '', url).pathname.replace('/network/v2.0/', '');
    const what = `${request.method} ${path}`;
    asked.push(what);
    const refusal = refusals[what];
    if (refusal !== undefined) return json(response, refusal.status, refusal.body);
    return json(response, 200, found[path] ?? { security_groups: [] });
  });
  ({ url } = server);
  await using session = new CloudSession(cloudOf(url));
  return await work(new Neutron(session), asked);
}
