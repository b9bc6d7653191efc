import { describe, expect, it } from 'vitest';
import { failed, isFinal, KEEP_AFTER_MS, LATE_AFTER_MS, open, phase, submit, tick, told, typed } from '../src/desk/draft';
import { card } from './make';

const fresh = () => open(card(), null, 0);

describe('an order card in the hands of the operator', () => {
  it('is kept on the server a moment after the last key', () => {
    const one = typed(fresh(), { pickup: 'K' }, 0);
    const two = typed(one, { pickup: 'Kh' }, 300);
    expect(tick(two, 300 + KEEP_AFTER_MS - 1)[1]).toEqual([]);
    const [kept, doing] = tick(two, 300 + KEEP_AFTER_MS);
    expect(doing).toEqual([{ do: 'keep' }]);
    expect(tick(kept, 99_999)[1]).toEqual([]);
  });

  it('takes the fields of the server until something is typed, and never after', () => {
    const theirs = card({ fields: { pickup: 'theirs' } });
    expect(told(fresh(), theirs).fields.pickup).toBe('theirs');
    expect(told(typed(fresh(), { comment: 'mine' }, 0), theirs).fields.pickup).toBe('');
  });

  it('opens with the copy kept on this machine', () => {
    const kept = { pickup: 'kept', destination: '', when: '', class: '', comment: '' };
    expect(open(card({ fields: { pickup: 'older' } }), kept, 0).fields.pickup).toBe('kept');
  });

  it('is saving at once, and asked once only', () => {
    const [saving, doing] = submit(fresh(), 0);
    expect(doing).toEqual([{ do: 'submit', attempt: 1 }]);
    expect(phase(saving, 0)).toBe('saving');
    expect(submit(saving, 1)).toEqual([saving, []]);
    expect(typed(saving, { pickup: 'late key' }, 1)).toBe(saving);
  });

  it('says so when no answer came in three seconds', () => {
    const [saving] = submit(fresh(), 0);
    expect(phase(saving, LATE_AFTER_MS - 1)).toBe('saving');
    expect(phase(saving, LATE_AFTER_MS)).toBe('retrying');
  });

  it('asks again with growing pauses, never slower than ten seconds', () => {
    let [draft] = submit(fresh(), 0);
    let now = 0;
    const waits: number[] = [];
    for (let n = 0; n < 7; n += 1) {
      draft = failed(draft, null, now);
      expect(phase(draft, now)).toBe('retrying');
      const again = draft.saving?.againAt ?? 0;
      expect(tick(draft, again - 1)[1]).toEqual([]);
      waits.push(again - now);
      now = again;
      [draft] = tick(draft, now);
      expect(draft.saving?.attempt).toBe(n + 2);
    }
    expect(waits).toEqual([1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
  });

  it('stops when the order itself is refused, and can be changed and sent again', () => {
    const [saving] = submit(typed(fresh(), { pickup: 'X' }, 0), 0);
    const refused = failed(saving, 'unknown address', 5);
    expect(phase(refused, 5)).toBe('refused');
    expect(tick(refused, 99_999)[1]).toEqual([]);
    const mended = typed(refused, { pickup: 'Y' }, 6);
    expect(phase(mended, 6)).toBe('editing');
    expect(submit(mended, 7)[1]).toHaveLength(1);
  });

  it('asks again for a card that was being saved before a reload', () => {
    const draft = open(card({ state: 'saving' }), null, 0);
    expect(phase(draft, 0)).toBe('saving');
    expect(tick(draft, LATE_AFTER_MS)[1]).toEqual([{ do: 'submit', attempt: 2 }]);
  });

  it('knows which answers are final', () => {
    expect([400, 403, 404, 422].map(isFinal)).toEqual([true, true, true, true]);
    expect([0, 401, 408, 409, 429, 500, 503].map(isFinal)).toEqual(Array(7).fill(false));
  });
});
