// One question and its answer over a unix stream socket, synchronously, as kinds are: for processes of ours that are
// configured that way. At most two seconds.
import { closeSync, readSync, writeSync } from 'node:fs';
import { kernelFault, openUnixStream } from './libc.ts';

/**
 * The answer, as far as it came before the other side closed or `isWhole` said so. Fault `kernel`, with errno ECONNREFUSED
 * or ENOENT when nobody listens.
 */
export function talk(path: string, request: string, action: string, isWhole: (answer: string) => boolean): string {
  const fd = openUnixStream(path);
  try {
    const bytes = Buffer.from(request);
    for (let sent = 0; sent < bytes.length;) sent += uninterrupted(() => writeSync(fd, bytes, sent));
    const buffer = Buffer.alloc(64 * 1024);
    let answer = '';
    while (!isWhole(answer)) {
      const length = uninterrupted(() => readSync(fd, buffer));
      if (length === 0) break;
      answer += buffer.toString('latin1', 0, length);
    }
    return answer;
  } catch (error) {
    if (error instanceof Error && 'code' in error && 'syscall' in error) throw kernelFault(action, String(error.code));
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** A socket with a time limit is not taken up again by itself after a signal (signal(7)), and ours come with every kernel event. */
function uninterrupted<T>(call: () => T): T {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EINTR')) throw error;
    }
  }
}
