/** Small makers of the shapes for the tests. */
import type { Call, Card, Message, Operator, Queue, Snapshot } from '../src/shared/shapes';
import { apply, nothing, type World } from '../src/shared/world';
import type { Line } from '../src/desk/desk';

export const T0 = Date.parse('2026-11-21T10:00:00.000Z');
export const at = (ms: number): string => new Date(T0 + ms).toISOString();

export const call = (more: Partial<Call> = {}): Call => ({
  id: 'c1', direction: 'in', state: 'ringing', caller: '+380671234567', called: '+380441234567', queue: 'orders', operator: 'olena', arrived_at: at(-20_000), ...more,
});
export const card = (more: Partial<Card> = {}): Card => ({
  id: 'k1', call: 'c1', caller: '+380671234567', operator: 'olena', state: 'draft', fields: {}, created_at: at(0), ...more,
});
export const operator = (more: Partial<Operator> = {}): Operator => ({ name: 'olena', state: 'available', since: at(-5_000), call: null, phone: 'registered', ...more });
export const queue = (more: Partial<Queue> = {}): Queue => ({ name: 'orders', waiting: 0, longest_wait_ms: 0, ...more });
export const line = (more: Partial<Line> = {}): Line => ({ call: 'c1', named: true, from: '+380671234567', queue: 'orders', autoAnswer: false, state: 'ringing', since: T0, ...more });

export const reset = (snapshot: Snapshot = {}): Message => ({ type: 'reset', seq: 1, at: at(0), snapshot: { me: operator(), ...snapshot } });

/** The world after these messages, heard at the moment they were sent. */
export function after(...messages: Message[]): World {
  return messages.reduce((world, message) => apply(world, message, T0), nothing);
}
