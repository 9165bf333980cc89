// undici's connection pool alone. The package's door also loads its fetch, WebSocket, caches and mocks: 15 MB that stay
// resident in an agent on every host, for nothing. What is put together here is what undici's own index.js does.
import { createRequire } from 'node:module';
import type * as undici from 'undici';

const load = createRequire(import.meta.url);

export type { Dispatcher } from 'undici';
export type Agent = undici.Agent;
export const Agent: typeof undici.Agent = load('undici/lib/dispatcher/agent.js');

const dispatcher: typeof undici.Dispatcher = load('undici/lib/dispatcher/dispatcher.js');
const methods: Pick<undici.Dispatcher, 'request' | 'stream' | 'pipeline' | 'connect' | 'upgrade'> = load('undici/lib/api/index.js');
Object.assign(dispatcher.prototype, methods);
