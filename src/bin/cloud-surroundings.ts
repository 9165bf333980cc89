// Where the login to a cloud is found, as openstacksdk looks for it.
import { join } from 'node:path';
import type { CloudSurroundings } from '#cloud/clouds.ts';

/** In openstacksdk's order: here, the user's folder, the machine's. */
export function cloudSurroundings(env: Readonly<Record<string, string | undefined>>): CloudSurroundings {
  const home = env['HOME'] === undefined ? undefined : join(env['HOME'], '.config');
  const userFolder = env['XDG_CONFIG_HOME'] ?? home;
  const folders = [process.cwd(), ...(userFolder === undefined ? [] : [join(userFolder, 'openstack')]), '/etc/openstack'];
  const files = (name: 'clouds' | 'secure', given: string | undefined): string[] => [
    ...(given === undefined ? [] : [given]),
    ...folders.flatMap((folder) => ['yaml', 'yml', 'json'].map((ending) => join(folder, `${name}.${ending}`))),
  ];
  return {
    environment: Object.fromEntries(Object.entries(env).filter(([name]) => name.startsWith('OS_'))),
    configFiles: files('clouds', env['OS_CLIENT_CONFIG_FILE']),
    secureFiles: files('secure', env['OS_CLIENT_SECURE_FILE']),
  };
}
