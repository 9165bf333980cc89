// The way from a test, which is outside the lab, to the services of its cloud: by the port of an address to the service's unix socket.
import { connect } from 'node:net';
import type { Connector } from '#cloud/http.ts';
import type { Host } from '#lab/host.ts';
import { apiPorts, apiSocket, type ServiceName } from '#lab/openstack-services.ts';

/** Nobody listens on other ports. */
export const wayInto =
  (controller: Host): Connector =>
  ({ port }, done) => {
    const service = (Object.keys(apiPorts) as ServiceName[]).find((name) => apiPorts[name] === Number(port));
    const socket = connect({ path: service === undefined ? '/nobody' : controller.file(apiSocket(service)) });
    socket.once('connect', () => done(null, socket));
    socket.once('error', (error) => done(error, null));
  };
