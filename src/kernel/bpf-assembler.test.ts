// Expected bytes are what `llvm-mc -triple=bpfel` makes of the same instructions.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  assemble,
  call,
  compute,
  compute32,
  exit,
  go,
  type Instruction,
  jump,
  jump32,
  label,
  load,
  store,
  swap16,
} from './bpf-assembler.ts';

const text = (...program: readonly Instruction[]): string[] => Buffer.from(assemble(program)).toString('hex').match(/.{16}/g) ?? [];

test('instructions are encoded as the kernel reads them', () => {
  assert.deepEqual(
    text(
      load(4, 'r7', 'r6', 76),
      load(2, 'r1', 'r7', 12),
      load(1, 'r1', 'r7', 22),
      store(8, 'r10', -64, 0),
      store(4, 'r10', -56, 'r1'),
      compute('mov', 'r6', 'r1'),
      compute('add', 'r2', -64),
      compute32('and', 'r1', 0xffff_ff0f),
      swap16('r9'),
      call(69),
      exit,
    ),
    [
      '61674c0000000000',
      '69710c0000000000',
      '7171160000000000',
      '7a0ac0ff00000000',
      '631ac8ff00000000',
      'bf16000000000000',
      '07020000c0ffffff',
      '540100000fffffff',
      'dc09000010000000',
      '8500000045000000',
      '9500000000000000',
    ],
  );
});

test('jumps count instructions, forwards and backwards, and labels take no room', () => {
  assert.deepEqual(text(label('top'), jump('lt', 'r1', 2, 'end'), jump32('ne', 'r1', 'r2', 'top'), go('end'), label('end'), exit), [
    'a501020002000000',
    '5e21feff00000000',
    '0500000000000000',
    '9500000000000000',
  ]);
});

test('a jump to nowhere is a mistake in the program', () => {
  assert.throws(() => assemble([go('nowhere')]), RangeError);
});
