// Two ways to read a watch. `client` is the real one, as an agent reads. `bytes` has the same connection, certificate and
// request, but only looks for what it times: reading a line properly takes a client some 15 microseconds, which a thousand
// machines have and one machine that plays them all has not.
import { Agent, request } from 'undici';
import { apiVersion, versionHeader } from '#api/protocol.ts';
import type { FakeHost } from './fake-host.ts';

export const label = 'sent';

/** An endpoint has come: its number, and when it was sent (milliseconds since 1970). */
export interface Arrival {
  readonly number: number;
  readonly sent: number;
}

export type Reader = 'client' | 'bytes';
/** Runs until the watch ends. */
type Read = (host: FakeHost, url: string, synced: () => void, arrived: (arrival: Arrival) => void) => Promise<void>;

const readClient: Read = async ({ name, client }, _url, synced, arrived) => {
  for await (const line of client.watch({ host: name })) {
    if (line.type === 'synced') synced();
    if (line.type !== 'put' || line.kind !== 'endpoints') continue;
    const sent = line.item.labels[label];
    if (sent !== undefined) arrived({ number: Number(line.item.id.slice(1)), sent: Number(sent) });
  }
};

const pattern = /"id":"e(\d{11})"[^\n]*"sent":"([\d.]+)"/g;

const readBytes: Read = async ({ name, credentials: { ca, certificate, key } }, url, synced, arrived) => {
  const dispatcher = new Agent({ connect: { ca, cert: certificate, key } });
  const headers = { [versionHeader]: apiVersion };
  const { body, statusCode } = await request(`${url}/v1/watch?host=${name}`, { dispatcher, headers, bodyTimeout: 0 });
  if (statusCode !== 200) throw new Error(`The watch of ${name} was answered ${statusCode}`);
  let rest = '';
  for await (const chunk of body as AsyncIterable<Buffer>) {
    const text = rest + chunk.toString('latin1');
    const end = text.lastIndexOf('\n') + 1;
    const whole = text.slice(0, end);
    rest = text.slice(end);
    if (whole.includes('"type":"synced"')) synced();
    for (const [, number, sent] of whole.matchAll(pattern)) arrived({ number: Number(number), sent: Number(sent) });
  }
};

export const readers: Readonly<Record<Reader, Read>> = { client: readClient, bytes: readBytes };
