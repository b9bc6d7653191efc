/**
 * The wallboard as a view of the world: the numbers of the first row, the worst queue first, the
 * operator who needs a look first, and the breaches in words. Pure.
 *
 * Invariant: nothing is coloured without a breach, and every breach has its word.
 */
import type { Operator, OperatorState, Queue, Trunk } from '../shared/shapes';
import type { World } from '../shared/world';

export type Alarm = 'none' | 'warn' | 'alarm';

/** The marks at which a number stops being calm. */
export const LIMITS = {
  waitWarn_ms: 30_000,
  waitAlarm_ms: 120_000,
  levelWarn: 0.8,
  levelAlarm: 0.6,
  wrapUpWarn_ms: 120_000,
  pausedWarn_ms: 20 * 60_000,
} as const;

export interface QueueRow {
  queue: Queue;
  longest_ms: number;
  alarm: Alarm;
}

export interface OperatorTile {
  operator: Operator;
  for_ms: number;
  number: string | null;
  alarm: Alarm;
  /** Why this tile is not calm. */
  reason: 'phone' | 'wrapUp' | 'paused' | null;
}

export interface BoardLook {
  waiting: number;
  waitingAlarm: Alarm;
  longest_ms: number;
  longestAlarm: Alarm;
  offered: number;
  answered: number;
  abandoned: number;
  /** The share answered in time over all queues, weighted by calls; null before the first call. */
  level: number | null;
  levelAlarm: Alarm;
  available: number;
  onShift: number;
  queues: QueueRow[];
  operators: OperatorTile[];
  trunks: { trunk: Trunk; alarm: Alarm }[];
  /** Somebody waits and nobody is free. */
  nobodyFree: boolean;
}

const ORDER: Record<OperatorState, number> = { ringing: 0, talking: 1, available: 2, wrap_up: 3, paused: 4, offline: 5 };
const WEIGHT: Record<Alarm, number> = { alarm: 0, warn: 1, none: 2 };

/** `now` is our clock; `heardAt` says when each queue's numbers came, so that the longest wait counts on. */
export function boardLook(world: World, now: number, heardAt: Readonly<Record<string, number>>): BoardLook {
  const skew = world.skew_ms ?? 0;
  const queues = Object.values(world.queues)
    .map((queue) => queueRow(queue, now, skew, heardAt[queue.name] ?? now))
    .sort((a, b) => WEIGHT[a.alarm] - WEIGHT[b.alarm] || b.longest_ms - a.longest_ms || b.queue.waiting - a.queue.waiting || a.queue.name.localeCompare(b.queue.name));
  const operators = Object.values(world.operators)
    .map((operator) => tile(operator, world, now, skew))
    .sort((a, b) => WEIGHT[a.alarm] - WEIGHT[b.alarm] || ORDER[a.operator.state] - ORDER[b.operator.state] || a.operator.name.localeCompare(b.operator.name));
  const waiting = sum(queues, (row) => row.queue.waiting);
  const longest_ms = Math.max(0, ...queues.map((row) => row.longest_ms));
  const available = operators.filter((one) => one.operator.state === 'available' && one.operator.phone !== 'lost').length;
  const level = serviceLevel(queues.map((row) => row.queue));
  const nobodyFree = waiting > 0 && available === 0;
  return {
    waiting,
    waitingAlarm: nobodyFree ? 'alarm' : waiting > Math.max(3, available) ? 'warn' : 'none',
    longest_ms,
    longestAlarm: waitAlarm(longest_ms),
    offered: sum(queues, (row) => row.queue.today?.offered ?? 0),
    answered: sum(queues, (row) => row.queue.today?.answered ?? 0),
    abandoned: sum(queues, (row) => row.queue.today?.abandoned ?? 0),
    level,
    levelAlarm: level === null ? 'none' : level < LIMITS.levelAlarm ? 'alarm' : level < LIMITS.levelWarn ? 'warn' : 'none',
    available,
    onShift: operators.filter((one) => one.operator.state !== 'offline').length,
    queues,
    operators,
    trunks: Object.values(world.trunks)
      .map((trunk) => ({ trunk, alarm: trunkAlarm(trunk) }))
      .sort((a, b) => WEIGHT[a.alarm] - WEIGHT[b.alarm] || a.trunk.name.localeCompare(b.trunk.name)),
    nobodyFree,
  };
}

function queueRow(queue: Queue, now: number, skew: number, heard: number): QueueRow {
  const longest_ms = longestWait(queue, now, skew, heard);
  return { queue, longest_ms, alarm: waitAlarm(longest_ms) };
}

/** From the caller's own time where it is told, else the last number counted on. */
export function longestWait(queue: Queue, now: number, skew: number, heard: number): number {
  if (queue.waiting === 0) return 0;
  const first = queue.callers?.map((caller) => Date.parse(caller.since) - skew).filter((time) => !Number.isNaN(time));
  if (first?.length) return Math.max(0, now - Math.min(...first));
  return queue.longest_wait_ms + Math.max(0, now - heard);
}

function tile(operator: Operator, world: World, now: number, skew: number): OperatorTile {
  const for_ms = Math.max(0, now - (Date.parse(operator.since) - skew)) || 0;
  const call = operator.call ? world.calls[operator.call] : undefined;
  const number = call ? (call.direction === 'out' ? call.called : call.caller) : null;
  const calm = { operator, for_ms, number, alarm: 'none', reason: null } as const;
  if (operator.state !== 'offline' && operator.phone === 'lost') return { ...calm, alarm: 'alarm', reason: 'phone' };
  if (operator.state === 'wrap_up' && for_ms > LIMITS.wrapUpWarn_ms) return { ...calm, alarm: 'warn', reason: 'wrapUp' };
  if (operator.state === 'paused' && for_ms > LIMITS.pausedWarn_ms) return { ...calm, alarm: 'warn', reason: 'paused' };
  return calm;
}

/** Each queue's share counts as much as the calls it was offered. */
function serviceLevel(queues: readonly Queue[]): number | null {
  const told = queues.filter((queue) => typeof queue.today?.service_level === 'number' && queue.today.offered > 0);
  const calls = sum(told, (queue) => queue.today?.offered ?? 0);
  return calls === 0 ? null : sum(told, (queue) => (queue.today?.service_level ?? 0) * (queue.today?.offered ?? 0)) / calls;
}

const waitAlarm = (ms: number): Alarm => (ms >= LIMITS.waitAlarm_ms ? 'alarm' : ms >= LIMITS.waitWarn_ms ? 'warn' : 'none');
const trunkAlarm = (trunk: Trunk): Alarm => (trunk.state === 'down' ? 'alarm' : trunk.state === 'full' ? 'warn' : 'none');

function sum<T>(list: readonly T[], of: (item: T) => number): number {
  return list.reduce((total, item) => total + of(item), 0);
}
