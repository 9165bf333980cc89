// A client of UDP that asks once, and a server.
import type { Host } from '#lab/host.ts';

/** What a datagram is answered with; empty: nothing within a second. `source`: port to send it from. */
export async function askUdp(from: Host, address: string, port: number, source = 0): Promise<string> {
  const script = [
    'socket(S, 2, 2, 17); bind(S, pack("S n N x8", 2, $ARGV[2], 0)) or die $!;',
    'connect(S, pack("S n C4 x8", 2, $ARGV[1], split(/[.]/, $ARGV[0]))) or die $!;',
    'send(S, "hello\\n", 0); alarm 1; recv(S, my $text, 2000, 0); print $text;',
  ].join(' ');
  const { stdout } = await from.exec(['perl', '-e', script, address, String(port), String(source)], { anyStatus: true });
  return stdout.trim();
}

/**
 * The line of shell, without a single quote, that answers each datagram with a word until it is ended. One process does it: socat, which
 * makes one for each, loses those that come meanwhile.
 */
export function answerUdp(port: number, word: string): string {
  const bound = `socket(S, 2, 2, 17); bind(S, pack(q(S n N x8), 2, ${port}, 0)) or die`;
  return `exec perl -e "${bound}; while (1) { my \\$from = recv(S, my \\$text, 2000, 0); send(S, q(${word}), 0, \\$from) if defined \\$from }"`;
}
