// Runs in a container's network namespace. Reads addresses, one a line, and connects to port 80 of each again and again
// until it is accepted; then writes the address and the time (milliseconds since 1970). A try is given up after a tenth of
// a second and another begun, so that a lost first packet does not cost the second that TCP would wait.
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

function tryOnce(address: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host: address, port: 80, timeout: 100 });
  const end = (answered: boolean): void => {
    socket.destroy();
    resolve(answered);
  };
  socket.once('connect', () => end(true));
  socket.once('timeout', () => end(false));
  socket.once('error', () => end(false));
  return promise;
}

for await (const address of createInterface({ input: process.stdin })) {
  void (async () => {
    while (!(await tryOnce(address))) await sleep(20);
    process.stdout.write(`${address} ${performance.timeOrigin + performance.now()}\n`);
  })();
}
