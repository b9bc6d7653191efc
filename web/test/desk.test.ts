import { describe, expect, it } from 'vitest';
import { AFTER_END_MS, BEFORE_FEED_MS, cardsOf, chooseCard, ghosts, look, type Mode } from '../src/desk/desk';
import type { Call, Message, Operator, ToneKind } from '../src/shared/shapes';
import { nothing } from '../src/shared/world';
import { after, at, call, card, line, operator, reset, T0 } from './make';

const see = (me: Partial<Operator>, calls: Call[], ...more: Message[]) => look(after(reset({ me: operator(me), calls }), ...more), 'olena', [], 'live', null);

describe('the state strip', () => {
  const out = (more: Partial<Call>): Call => call({ direction: 'out', called: '+380677654321', ...more });
  const table: [string, Partial<Operator>, Call[], Mode][] = [
    ['free', { state: 'available' }, [], 'available'],
    ['paused', { state: 'paused' }, [], 'paused'],
    ['finishing the card', { state: 'wrap_up' }, [], 'wrap_up'],
    ['not on shift', { state: 'offline' }, [], 'offline'],
    ['a call for me rings', { state: 'ringing' }, [call()], 'ringing'],
    ['I talk', { state: 'talking' }, [call({ state: 'talking', answered_at: at(0) })], 'talking'],
    ['the caller is on hold', { state: 'talking' }, [call({ state: 'held', answered_at: at(0) })], 'held'],
    ['I dial', { state: 'ringing' }, [out({ state: 'ringing' })], 'dialling'],
    ['I dial and my own leg is up', { state: 'talking' }, [out({ state: 'talking', answered_at: null })], 'dialling'],
    ['the far end has answered', { state: 'talking' }, [out({ state: 'talking', answered_at: at(0) })], 'talking'],
    ["another operator's call", { state: 'available' }, [call({ operator: 'ivan' })], 'available'],
  ];
  it.each(table)('%s', (_, me, calls, mode) => expect(see(me, calls).mode).toBe(mode));

  it.each<[ToneKind, Mode]>([['ringback', 'dialling'], ['announcement', 'dialling'], ['busy', 'carrier'], ['congestion', 'carrier'], ['unavailable', 'carrier']])(
    'while dialling the tone %s is %s',
    (tone, mode) => {
      const seen = see({ state: 'ringing' }, [out({ state: 'ringing', tone })]);
      expect([seen.mode, seen.tone]).toEqual([mode, tone]);
    },
  );

  it('shows the other party, whichever way the call goes', () => {
    expect(see({}, [call()]).number).toBe('+380671234567');
    expect(see({}, [out({})]).number).toBe('+380677654321');
  });

  it('counts the talk from the answer, in our clock', () => {
    const world = { ...after(reset({ calls: [call({ state: 'talking', answered_at: at(-7_000) })] })), skew_ms: 2_000 };
    expect(look(world, 'olena', [], 'live', null).since).toBe(T0 - 9_000);
  });

  it('keeps the number of the last call in the wrap-up', () => {
    const seen = see({ state: 'wrap_up' }, [call()], { type: 'call.ended', seq: 2, call: 'c1', object: call({ state: 'ended' }) });
    expect([seen.mode, seen.number]).toEqual(['wrap_up', '+380671234567']);
  });

  it('between the end of a call and the new state of the operator there is no talking', () => {
    const seen = see({ state: 'talking', call: 'c1' }, [call({ state: 'talking' })], { type: 'call.ended', seq: 2, call: 'c1', object: call({ state: 'ended' }) });
    expect(seen.mode).toBe('wrap_up');
    expect(seen.call).toBeNull();
  });

  it('shows a dialled number before the server speaks of it', () => {
    const seen = look(after(reset()), 'olena', [], 'live', '+380501112233');
    expect([seen.mode, seen.number, seen.canDial]).toEqual(['dialling', '+380501112233', false]);
  });
});

describe('what can be done', () => {
  it('a ringing call is answered by hand only when the desk does not do it itself', () => {
    const world = after(reset({ me: operator({ state: 'ringing' }), calls: [call()] }));
    expect(look(world, 'olena', [line()], 'live', null).toAnswer).toBe(true);
    expect(look(world, 'olena', [line({ autoAnswer: true })], 'live', null).toAnswer).toBe(false);
    expect(look(world, 'olena', [], 'live', null).toAnswer).toBe(false);
  });

  it('hold turns into resume', () => {
    const talking = see({}, [call({ state: 'talking', answered_at: at(0) })]);
    const held = see({}, [call({ state: 'held', answered_at: at(0) })]);
    expect([talking.canHold, talking.canResume]).toEqual([true, false]);
    expect([held.canHold, held.canResume]).toEqual([false, true]);
  });

  it('nobody dials, pauses or becomes available in a call', () => {
    const seen = see({ state: 'talking' }, [call({ state: 'talking' })]);
    expect([seen.canDial, seen.canPause, seen.canBeAvailable, seen.canHangUp]).toEqual([false, false, false, true]);
  });

  it('available and pause follow the state', () => {
    const can = (state: Operator['state']) => [see({ state }, []).canBeAvailable, see({ state }, []).canPause];
    expect(can('available')).toEqual([false, true]);
    expect(can('paused')).toEqual([true, false]);
    expect(can('wrap_up')).toEqual([true, true]);
  });
});

describe('when the feed is away the phone still works', () => {
  it('rings and can be answered', () => {
    const seen = look(nothing, 'olena', [line()], 'lost', null);
    expect([seen.mode, seen.number, seen.toAnswer]).toEqual(['ringing', '+380671234567', true]);
  });

  it('talks and can be ended', () => {
    const seen = look(nothing, 'olena', [line({ state: 'up' })], 'lost', null);
    expect([seen.mode, seen.canHangUp]).toEqual(['talking', true]);
  });
});

describe('ghost sessions', () => {
  const ended = after(reset({ calls: [call()] }), { type: 'call.ended', seq: 2, call: 'c1', object: call({ state: 'ended', ended_at: at(0) }) });

  it('an ended call leaves the screen at once', () => {
    expect(look(ended, 'olena', [line({ state: 'up' })], 'live', null).mode).toBe('available');
  });

  it('its session is ended after the time of the last tone', () => {
    const lines = [line({ state: 'up', since: T0 - 60_000 })];
    expect(ghosts(ended, 'olena', lines, 'live', T0 + AFTER_END_MS)).toEqual([]);
    expect(ghosts(ended, 'olena', lines, 'live', T0 + AFTER_END_MS + 1)).toEqual(lines);
  });

  it('an INVITE that is faster than the feed is spared', () => {
    const world = after(reset());
    expect(ghosts(world, 'olena', [line()], 'live', T0 + BEFORE_FEED_MS)).toEqual([]);
    expect(ghosts(world, 'olena', [line()], 'live', T0 + BEFORE_FEED_MS + 1)).toHaveLength(1);
  });

  it('nothing is ended while the feed is away', () => {
    expect(ghosts(ended, 'olena', [line({ since: 0 })], 'lost', T0 + 60_000)).toEqual([]);
  });

  it('a session that does not name its call belongs to the running one', () => {
    const world = after(reset({ calls: [call({ state: 'talking' })] }));
    const unnamed = [line({ call: 'sip-id', named: false, state: 'up', since: 0 })];
    expect(look(world, 'olena', unnamed, 'live', null).line).toBe(unnamed[0]);
    expect(ghosts(world, 'olena', unnamed, 'live', T0)).toEqual([]);
    expect(ghosts(after(reset()), 'olena', unnamed, 'live', T0)).toEqual(unnamed);
  });

  it('a call that the server knows is no ghost', () => {
    expect(ghosts(after(reset({ calls: [call()] })), 'olena', [line({ since: 0 })], 'live', T0 + 60_000)).toEqual([]);
  });
});

describe('cards', () => {
  it("the running call's card comes first, then the newest", () => {
    const world = after(reset({ calls: [call()], cards: [card({ id: 'old', call: 'x', created_at: at(-9) }), card(), card({ id: 'new', call: 'y', created_at: at(9) })] }));
    expect(cardsOf(world, 'olena').map((one) => one.id)).toEqual(['k1', 'new', 'old']);
  });

  it("another operator's card is not on my desk", () => {
    expect(cardsOf(after(reset({ cards: [card({ operator: 'ivan' })] })), 'olena')).toEqual([]);
  });

  it('a new card does not push away the one that is being typed in or was picked', () => {
    const cards = [card({ id: 'new' }), card({ id: 'old' })];
    expect(chooseCard(cards, 'old', true, false)).toBe('old');
    expect(chooseCard(cards, 'old', false, true)).toBe('old');
    expect(chooseCard(cards, 'old', false, false)).toBe('new');
    expect(chooseCard(cards, 'gone', true, true)).toBe('new');
    expect(chooseCard([], 'gone', true, true)).toBeNull();
  });
});
