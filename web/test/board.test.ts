import { describe, expect, it } from 'vitest';
import { boardLook, longestWait } from '../src/wallboard/board';
import type { Snapshot, Trunk } from '../src/shared/shapes';
import { after, at, call, operator, queue, reset, T0 } from './make';

const board = (snapshot: Snapshot) => boardLook(after(reset(snapshot)), T0, {});
const trunk = (more: Partial<Trunk>): Trunk => ({ name: 't', kind: 'gateway', state: 'up', channels: 8, busy: 0, ...more });

describe('the wallboard', () => {
  it('is calm when nothing is wrong', () => {
    const seen = board({ queues: [queue()], operators: [operator()], trunks: [trunk({})] });
    expect([seen.waitingAlarm, seen.longestAlarm, seen.levelAlarm, seen.nobodyFree]).toEqual(['none', 'none', 'none', false]);
  });

  it('adds up the waiting callers and takes the longest wait of all', () => {
    const seen = board({
      operators: [operator()],
      queues: [queue({ waiting: 2, longest_wait_ms: 9_000 }), queue({ name: 'airport', waiting: 1, longest_wait_ms: 31_000 })],
    });
    expect([seen.waiting, seen.longest_ms, seen.longestAlarm]).toEqual([3, 31_000, 'warn']);
    expect(seen.queues.map((row) => row.queue.name)).toEqual(['airport', 'orders']);
  });

  it.each([[29_999, 'none'], [30_000, 'warn'], [119_999, 'warn'], [120_000, 'alarm']] as const)('a wait of %i ms is %s', (longest_wait_ms, alarm) => {
    expect(board({ operators: [operator()], queues: [queue({ waiting: 1, longest_wait_ms })] }).longestAlarm).toBe(alarm);
  });

  it('alarms when callers wait and nobody is free; a lost phone is not free', () => {
    const queues = [queue({ waiting: 1 })];
    expect(board({ queues, operators: [operator({ state: 'talking' })] }).nobodyFree).toBe(true);
    expect(board({ queues, operators: [operator({ phone: 'lost' })] }).nobodyFree).toBe(true);
    expect(board({ queues, operators: [operator()] }).nobodyFree).toBe(false);
  });

  it('weighs the service level by the calls of each queue', () => {
    const today = { offered: 0, answered: 0, abandoned: 0 };
    const seen = board({
      queues: [queue({ today: { ...today, offered: 90, service_level: 0.5 } }), queue({ name: 'b', today: { ...today, offered: 10, service_level: 1 } }), queue({ name: 'c', today })],
    });
    expect(seen.level).toBeCloseTo(0.55);
    expect(seen.levelAlarm).toBe('alarm');
    expect(board({ queues: [queue({ today })] }).level).toBeNull();
  });

  it('shows the operator who needs a look first', () => {
    const seen = board({
      operators: [
        operator({ name: 'a-talks', state: 'talking', call: 'c1' }),
        operator({ name: 'b-rests', state: 'paused', since: at(-30 * 60_000) }),
        operator({ name: 'c-lost', state: 'available', phone: 'lost' }),
        operator({ name: 'd-rings', state: 'ringing' }),
        operator({ name: 'e-home', state: 'offline', phone: 'none' }),
      ],
      calls: [call({ operator: 'a-talks' })],
    });
    expect(seen.operators.map((one) => [one.operator.name, one.reason])).toEqual([['c-lost', 'phone'], ['b-rests', 'paused'], ['d-rings', null], ['a-talks', null], ['e-home', null]]);
    expect(seen.operators[3]?.number).toBe('+380671234567');
    expect(seen.onShift).toBe(4);
  });

  it('puts a broken trunk on top', () => {
    const seen = board({ trunks: [trunk({ name: 'a' }), trunk({ name: 'b', state: 'full' }), trunk({ name: 'c', state: 'down' })] });
    expect(seen.trunks.map((row) => [row.trunk.name, row.alarm])).toEqual([['c', 'alarm'], ['b', 'warn'], ['a', 'none']]);
  });

  it('lets the longest wait count on between two messages', () => {
    expect(longestWait(queue({ waiting: 1, longest_wait_ms: 4_000 }), T0 + 3_000, 0, T0)).toBe(7_000);
    const callers = [{ call: 'x', caller: null, place: 1, since: at(-10_000), priority: 0 }];
    expect(longestWait(queue({ waiting: 1, longest_wait_ms: 4_000, callers }), T0, 0, T0)).toBe(10_000);
    expect(longestWait(queue({ waiting: 1, callers }), T0, 2_000, T0)).toBe(12_000);
    expect(longestWait(queue({ waiting: 0, longest_wait_ms: 4_000 }), T0, 0, T0)).toBe(0);
  });
});
