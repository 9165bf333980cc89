// `causeway certificate`: what the controller's CA has given to hosts. Agents renew theirs by themselves.
import type { CertificateRecord } from '#api/answers.ts';
import { completes, done, examples, type Group, nothingDone } from './command.ts';
import type { Answer, Session } from './session.ts';
import { age, table } from './table.ts';

function state({ revokedAt, expiresAt }: CertificateRecord, now: Date): 'valid' | 'revoked' | 'expired' {
  if (revokedAt !== undefined) return 'revoked';
  return Date.parse(expiresAt) <= now.getTime() ? 'expired' : 'valid';
}

async function list(session: Session): Promise<Answer> {
  const certificates = await (await session.client()).certificates();
  return {
    data: certificates,
    names: certificates.map(({ serial }) => serial),
    text: (look) =>
      table(
        look,
        certificates,
        [
          { title: 'SERIAL', value: ({ serial }) => serial },
          { title: 'HOST', value: ({ host }) => host },
          { title: 'GENERATION', value: ({ generation }) => String(generation) },
          {
            title: 'STATE',
            value: (one) => state(one, look.now),
            style: (one) => (state(one, look.now) === 'valid' ? undefined : 'yellow'),
          },
          { title: 'AGE', value: ({ issuedAt }) => age(look, issuedAt) },
          { title: 'EXPIRES', value: ({ expiresAt }) => expiresAt },
        ],
        'No certificates: no host has joined.',
      ),
  };
}

async function revoke(session: Session, [serial = '']: readonly string[], options: { yes?: true }): Promise<Answer> {
  if (!(await session.confirm(`Revoke certificate ${serial}? Its host is cut off until it joins again.`, options.yes))) return nothingDone;
  await (await session.client()).revokeCertificate(serial);
  return done({ revoked: [serial] }, serial, `Revoked certificate ${serial}`);
}

export const group: Group = {
  build(certificate, act) {
    act(examples(certificate.command('ls').description('List certificates.'), 'causeway certificate ls'), list);
    const revoked = certificate
      .command('revoke')
      .argument('<serial>', 'serial number')
      .description('Revoke one certificate; connections that use it are cut.')
      .option('-y, --yes', 'do not ask');
    act<{ yes?: true }>(examples(completes(revoked, 'certificates'), 'causeway certificate revoke 0a1b2c'), revoke);
  },
};
