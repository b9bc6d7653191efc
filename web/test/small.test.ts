import { describe, expect, it } from 'vitest';
import { forgetLocally, kept, keepLocally } from '../src/desk/kept';
import { empty } from '../src/desk/draft';
import { constraints, troubleOf } from '../src/desk/sound';
import { holdDesk } from '../src/desk/tab';
import { clock, groups } from '../src/shared/format';

describe('times and numbers', () => {
  it.each([[0, '0:00'], [7_400, '0:07'], [723_000, '12:03'], [3_723_000, '1:02:03'], [-5, '0:00']] as const)('%i ms is %s', (ms, text) => expect(clock(ms)).toBe(text));

  it.each([['+380671234567', '+380 67 123 45 67'], ['+79161234567', '+7 916 123 45 67'], ['0671234567', '067 123 45 67'], ['+4915112345678', '+49 151 123 456 78'], ['112', '112'], ['anonymous', 'anonymous']] as const)(
    '%s is grouped and still itself',
    (number, shown) => {
      expect(groups(number).join('')).toBe(number);
      if (number.startsWith('+380') || number.startsWith('+7') || number.startsWith('0')) expect(groups(number).join(' ')).toBe(shown);
    },
  );
});

describe('sound', () => {
  it('lets the browser clean the voice unless raw sound is asked for', () => {
    expect(constraints('', null)).toEqual({ echoCancellation: true, noiseSuppression: true, autoGainControl: true });
    expect(constraints('?audio=raw', null)).toEqual({ echoCancellation: false, noiseSuppression: false, autoGainControl: false });
    expect(constraints('', 'raw').echoCancellation).toBe(false);
    expect(constraints('?audio=clean', 'raw').echoCancellation).toBe(true);
  });

  it('tells why there is no microphone', () => {
    const named = (name: string): Error => Object.assign(new Error(), { name });
    expect(troubleOf(named('NotAllowedError'), true)).toBe('denied');
    expect(troubleOf(named('NotFoundError'), true)).toBe('missing');
    expect(troubleOf(named('NotReadableError'), true)).toBe('busy');
    expect(troubleOf(named('NotAllowedError'), false)).toBe('insecure');
  });
});

/** A Storage in memory. */
function store(): Storage {
  const map = new Map<string, string>();
  return {
    get length() { return map.size; },
    clear: () => map.clear(),
    getItem: (key) => map.get(key) ?? null,
    key: (n) => [...map.keys()][n] ?? null,
    removeItem: (key) => void map.delete(key),
    setItem: (key, value) => void map.set(key, value),
  };
}

describe('copies of cards on this machine', () => {
  it('come back by card and are forgotten with it', () => {
    const here = store();
    keepLocally('k1', { ...empty(), pickup: 'A' }, here);
    expect(kept('k1', here)?.pickup).toBe('A');
    expect(kept('k2', here)).toBeNull();
    forgetLocally('k1', here);
    expect(kept('k1', here)).toBeNull();
  });

  it('are bounded', () => {
    const here = store();
    for (let n = 0; n < 50; n += 1) keepLocally(`k${n}`, empty(), here);
    expect(here.length).toBeLessThanOrEqual(20);
  });

  it('are not believed when they are broken', () => {
    const here = store();
    here.setItem('tandem.card.k1', '{');
    expect(kept('k1', here)).toBeNull();
  });
});

describe('one tab', () => {
  /** The part of Web Locks that is used, for one name. */
  function locks() {
    let owner: { lose: () => void } | null = null;
    const request = (_name: string, options: { steal?: boolean; ifAvailable?: boolean }, work: (lock: object | null) => unknown): Promise<unknown> =>
      new Promise((_done, failed) => {
        if (owner && !options.steal) return void work(null);
        owner?.lose();
        owner = { lose: () => failed(new Error('AbortError')) };
        work({});
      });
    return { request } as unknown as LockManager;
  }

  it('has the desk; a second one does not, until it takes it', async () => {
    const shared = locks();
    let stolen = 0;
    expect(await holdDesk('olena', false, () => (stolen += 1), shared)).toBe(true);
    expect(await holdDesk('olena', false, () => undefined, shared)).toBe(false);
    expect(stolen).toBe(0);
    expect(await holdDesk('olena', true, () => undefined, shared)).toBe(true);
    expect(stolen).toBe(1);
  });
});
