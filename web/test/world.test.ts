import { describe, expect, it } from 'vitest';
import { apply, callOf, closeCard, nothing } from '../src/shared/world';
import { after, at, call, card, operator, queue, reset, T0 } from './make';

describe('the world', () => {
  it('is not ready before the first snapshot', () => {
    expect(nothing.ready).toBe(false);
    expect(after(reset()).ready).toBe(true);
  });

  it('holds what the snapshot holds, but nothing that has ended', () => {
    const world = after(reset({ calls: [call(), call({ id: 'c2', state: 'ended' })], cards: [card(), card({ id: 'k2', state: 'accepted' })], queues: [queue()] }));
    expect(Object.keys(world.calls)).toEqual(['c1']);
    expect(Object.keys(world.cards)).toEqual(['k1']);
    expect(world.queues['orders']?.waiting).toBe(0);
  });

  it('replaces an object by the whole new one of an event', () => {
    const world = after(reset({ calls: [call()] }), { type: 'call.answered', seq: 2, call: 'c1', object: call({ state: 'talking', answered_at: at(0) }) });
    expect(world.calls['c1']?.state).toBe('talking');
  });

  it('drops an ended call and keeps its last words', () => {
    const world = after(reset({ calls: [call()] }), { type: 'call.ended', seq: 2, call: 'c1', object: call({ state: 'ended', result: 'abandoned' }) });
    expect(world.calls).toEqual({});
    expect(world.ended?.result).toBe('abandoned');
  });

  it('drops an ended call even when the event brings no object', () => {
    expect(after(reset({ calls: [call()] }), { type: 'call.ended', seq: 2, call: 'c1' }).calls).toEqual({});
  });

  it('lays a tone on its call, and takes it away at the answer', () => {
    const rung = after(reset({ calls: [call({ direction: 'out' })] }), { type: 'tone', seq: 2, call: 'c1', kind: 'busy' });
    expect(rung.calls['c1']?.tone).toBe('busy');
    const answered = apply(rung, { type: 'call.answered', seq: 3, call: 'c1', object: call({ direction: 'out', state: 'talking', answered_at: at(0) }) }, T0);
    expect(answered.calls['c1']?.tone).toBeNull();
  });

  it('changes both the operator in the list and me', () => {
    const world = after(reset({ operators: [operator()] }), { type: 'operator.state', seq: 2, operator: operator({ state: 'paused' }) });
    expect(world.me?.state).toBe('paused');
    expect(world.operators['olena']?.state).toBe('paused');
  });

  it("does not take another operator's state for mine", () => {
    const world = after(reset(), { type: 'operator.state', seq: 2, operator: operator({ name: 'ivan', state: 'talking' }) });
    expect(world.me?.state).toBe('available');
  });

  it('takes the customer with the card, or later', () => {
    const orders = [{ id: 'o1', at: at(0), pickup: 'A', destination: 'B', state: 'done' }];
    const opened = after(reset(), { type: 'card.opened', seq: 2, card: card() });
    expect(opened.customers['k1']).toBeUndefined();
    const known = apply(opened, { type: 'card.updated', seq: 3, card: card(), customer: { name: 'Iryna', orders } }, T0);
    expect(known.customers['k1']?.name).toBe('Iryna');
  });

  it('removes a card on its acknowledgement, and a late event does not bring it back', () => {
    const closed = after(reset({ cards: [card()] }), { type: 'card.accepted', seq: 2, card: card({ state: 'accepted' }) });
    expect(closed.cards).toEqual({});
    expect(apply(closed, { type: 'card.updated', seq: 3, card: card() }, T0).cards).toEqual({});
    expect(apply(closed, { type: 'card.accepted', seq: 4, card: card({ state: 'accepted' }) }, T0).cards).toEqual({});
    expect(apply(closed, reset({ cards: [card()] }), T0).cards).toEqual({});
  });

  it('removes a card acknowledged by the answer to the request', () => {
    expect(closeCard(after(reset({ cards: [card()] })), 'k1').cards).toEqual({});
  });

  it('passes over what it does not know', () => {
    const world = after(reset());
    expect(apply(world, { type: 'weather.changed', seq: 2 }, T0)).toBe(world);
    expect(apply(world, { type: 'queue.stats', seq: 2, queue: 'orders' }, T0)).toBe(world);
  });

  it("guesses the server's clock from the quickest message, never from a replayed one", () => {
    const world = apply(nothing, { ...reset(), at: at(5_000) }, T0);
    expect(world.skew_ms).toBe(5_000);
    expect(apply(world, { type: 'ping', at: at(-60_000) }, T0).skew_ms).toBe(5_000);
    expect(apply(world, { type: 'ping', at: at(5_040) }, T0).skew_ms).toBe(5_040);
  });

  it('finds the call of an operator by his own record or by the call', () => {
    expect(callOf(after(reset({ me: operator({ call: 'c1' }), calls: [call({ operator: null })] })), 'olena')?.id).toBe('c1');
    expect(callOf(after(reset({ calls: [call()] })), 'olena')?.id).toBe('c1');
    expect(callOf(after(reset({ calls: [call({ operator: 'ivan' })] })), 'olena')).toBeNull();
  });

  it('remembers a silent side until it recovers', () => {
    const silent = after(reset({ calls: [call()] }), { type: 'media.silent', seq: 2, call: 'c1', cause: 'no packets from the trunk' });
    expect(silent.silent['c1']).toBe('no packets from the trunk');
    expect(apply(silent, { type: 'media.recovered', seq: 3, call: 'c1' }, T0).silent).toEqual({});
  });
});
