// The `causeway` program: reads the environment, builds the surroundings of a run and leaves the rest to cli/main.ts. The
// compile cache is switched on before anything else is loaded; it lies in the user's own cache folder, because code is run
// from it.
import { existsSync, readFileSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Credentials } from '#api/client.ts';
import type { Target } from '#cli/contexts.ts';
import type { Surroundings } from '#cli/session.ts';

const { env } = process;
const home = env['HOME'];
const cache = env['XDG_CACHE_HOME'] ?? (home === undefined ? undefined : join(home, '.cache'));
if (cache !== undefined) enableCompileCache(join(cache, 'causeway', 'node'));

const { main } = await import('#cli/main.ts');
const { Fault } = await import('#model/fault.ts');
const { say } = await import('./failed.ts');
const { cloudSurroundings } = await import('./cloud-surroundings.ts');

const userFolder = env['XDG_CONFIG_HOME'] ?? (home === undefined ? undefined : join(home, '.config'));
const contextFiles = [...(userFolder === undefined ? [] : [join(userFolder, 'causeway', 'contexts.yaml')]), '/etc/causeway/contexts.yaml'];
const agentSocket = env['CAUSEWAY_AGENT_SOCKET'] ?? '/run/causeway/agent.sock';
const identityFile = '/var/lib/causeway/identity.json';

const sayUnwritten = (cause: Error): number =>
  say(
    new Fault('unavailable', `Cannot write the answer: ${cause.message}`, {
      hint: 'Make room where it goes. What the command was to change has been changed.',
      cause,
    }),
  );

function credentialsOf(token: string | undefined, certificate: Target['certificate']): Credentials {
  if (certificate !== undefined)
    return { type: 'certificate', ...certificate, boot: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() };
  return token === undefined ? { type: 'none' } : { type: 'token', token };
}

const surroundings: Surroundings = {
  environment: {
    context: env['CAUSEWAY_CONTEXT'],
    url: env['CAUSEWAY_URL'],
    token: env['CAUSEWAY_TOKEN'],
    ca: env['CAUSEWAY_CA'],
  },
  contextFiles: env['CAUSEWAY_CONTEXTS'] === undefined ? contextFiles : [env['CAUSEWAY_CONTEXTS']],
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  plain: (env['NO_COLOR'] ?? '') !== '' || env['TERM'] === 'dumb',
  debug: (env['CAUSEWAY_DEBUG'] ?? '') !== '',
  patienceMs: 2000,
  now: () => new Date(),
  async connect({ url, others = [], token, certificate, ca }) {
    const { Client } = await import('#api/client.ts');
    return new Client({ urls: [url, ...others], ca, credentials: credentialsOf(token, certificate), retries: 2 + others.length });
  },
  // A machine that has joined has an agent, also while its socket is not there because the agent was stopped.
  agentSocket: existsSync(agentSocket) || existsSync(identityFile) ? agentSocket : undefined,
  identityFile,
  hostname: hostname(),
  cloud: cloudSurroundings(env),
  async cluster(choice) {
    const { clusterNeeds } = await import('./cluster-needs.ts');
    return await clusterNeeds(choice, env);
  },
};

/** Why what was printed could not be written. */
let unwritten: Error | undefined;
// A reader that went away (`causeway network ls | head -1`) is not an error.
process.stdout.on('error', (error) => {
  if ('code' in error && error.code === 'EPIPE') process.exit(0);
  unwritten ??= error;
});
// Nobody is left to be told; the exit status still says how it went.
process.stderr.on('error', () => undefined);

const answered = await main(process.argv.slice(2), surroundings);
// A pipe takes 64 KiB at once; the rest waits for its reader.
await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((resolve) => stream.write('', resolve))));
const status = unwritten === undefined ? answered : sayUnwritten(unwritten);
// Not process.exitCode: an idle or hanging connection to the controller would keep the process waiting.
process.exit(status);
