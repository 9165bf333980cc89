import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLdd } from './images.ts';

test('libraries and the loader are read from ldd, the kernel’s own page is not', () => {
  const output = [
    '\tlinux-vdso.so.1 (0x00007ffd)',
    '\tlibssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x00007f01)',
    '\t/lib64/ld-linux-x86-64.so.2 (0x00007f02)',
    '',
  ].join('\n');
  assert.deepEqual(parseLdd(output), ['/lib/x86_64-linux-gnu/libssl.so.3', '/lib64/ld-linux-x86-64.so.2']);
});
