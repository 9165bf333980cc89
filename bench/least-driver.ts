// The least that a remote network driver can do: answer. Its links are made before anything is timed, nothing is carried, kept or
// published, and the engine's own IPAM gives the addresses. What is left is what the engine does for any remote driver, and so
// the least that one can take.
import { mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { docker } from '#lab/engine.ts';
import type { Host } from '#lab/host.ts';

const socket = '/run/docker/plugins/least.sock';

export class LeastDriver implements Disposable {
  readonly #host: Host;
  readonly #server: Server;
  #next = 0;

  private constructor(host: Host) {
    this.#host = host;
    this.#server = createServer((request, response) => {
      request.resume();
      request.once('end', () => {
        response.setHeader('Content-Type', 'application/vnd.docker.plugins.v1.2+json');
        response.end(JSON.stringify(this.#answer(request.url ?? '')));
      });
    });
    this.#server.keepAliveTimeout = 0;
  }

  /** Starts the driver on a host and makes a network of it there, called `least`. */
  static async start(host: Host): Promise<LeastDriver> {
    const driver = new LeastDriver(host);
    mkdirSync(host.file('/run/docker/plugins'), { recursive: true });
    rmSync(host.file(socket), { force: true });
    await new Promise<void>((resolve) => driver.#server.listen(host.file(socket), resolve));
    await docker(host, ['network', 'create', '--driver=least', '--subnet=10.42.0.0/16', 'least']);
    return driver;
  }

  /** Makes `count` links anew, one for each container that will start. */
  async prepare(count: number): Promise<void> {
    const numbers = Array.from({ length: count }, (_, index) => index);
    await this.#host.exec(['sh', '-c', 'for link in /sys/class/net/least*; do [ ! -e "$link" ] || ip link del "${link##*/}"; done']);
    await this.#host.exec(['ip', '-batch', '-'], {
      input: numbers.map((number) => `link add least${number} up type veth peer name ours${number}\n`).join(''),
    });
    this.#next = 0;
  }

  #answer(url: string): object {
    switch (url) {
      case '/Plugin.Activate':
        return { Implements: ['NetworkDriver'] };
      case '/NetworkDriver.GetCapabilities':
        return { Scope: 'local', ConnectivityScope: 'local' };
      case '/NetworkDriver.CreateEndpoint':
        return { Interface: {} };
      case '/NetworkDriver.EndpointOperInfo':
        return { Value: {} };
      case '/NetworkDriver.Join':
        return { InterfaceName: { SrcName: `ours${this.#next++}`, DstPrefix: 'eth' }, Gateway: '10.42.0.1' };
      default:
        return {};
    }
  }

  [Symbol.dispose](): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
