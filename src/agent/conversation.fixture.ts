// For kernel tests: questions and answers over UDP between places, each with a word of its own.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { Peer, Place } from './namespaces.fixture.ts';

let words = 0;
/** Never said before. */
export const word = (): string => `word ${(words += 1)}`;

/** A socket for as long as the test runs. `at`: its port; 0 for any. */
export async function listen(t: TestContext, place: Place, ip: string, at = 0): Promise<Peer> {
  const peer = await place.udp(ip, at);
  t.after(() => peer[Symbol.dispose]());
  return peer;
}

/** A question, its answer, which has to come from where the question went to, and the address that it was asked from. */
export async function asked(from: Peer, server: Peer, target: { readonly ip: string; readonly port: number }): Promise<string> {
  const text = word();
  await from.send(text, target);
  const heard = await server.hears(text);
  await server.send(`${text} answer`, { ip: heard.from, port: heard.port });
  assert.equal((await from.hears(`${text} answer`)).from, target.ip);
  return heard.from;
}
