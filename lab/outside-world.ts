// Runs in the outside host: HTTP on port 80 that answers with its client's address, and a name server on 192.0.2.53 that
// knows internet.example. The unix socket tells the lab that all of it listens.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { answer, parseQuestion } from './dns-answer.ts';
import { outsideResolver } from './host.ts';

const zone = {
  'internet.example': { 4: Buffer.from([198, 51, 100, 10]), 6: Buffer.from('20010db8010000000000000000000010', 'hex') },
};

const web = createServer((request, response) => {
  const client = request.socket.remoteAddress ?? '';
  response.end(`${client.replace(/^::ffff:/, '')}\n`);
});
web.listen(80, '::');
await once(web, 'listening');

const names = createSocket('udp4');
names.on('message', (message, client) => {
  const question = parseQuestion(message);
  if (question !== undefined) names.send(answer(question, zone), client.port, client.address);
});
names.bind(53, outsideResolver);
await once(names, 'listening');

const namesTcp = createTcpServer((socket) => {
  socket.on('error', () => socket.destroy());
  socket.once('data', (chunk) => {
    const question = parseQuestion(chunk.subarray(2));
    if (question === undefined) {
      socket.destroy();
      return;
    }
    const reply = answer(question, zone);
    const length = Buffer.alloc(2);
    length.writeUInt16BE(reply.length);
    socket.end(Buffer.concat([length, reply]));
  });
});
namesTcp.listen(53, outsideResolver);
await once(namesTcp, 'listening');

const ready = createTcpServer((socket) => socket.destroy());
ready.listen('/run/outside.sock');
