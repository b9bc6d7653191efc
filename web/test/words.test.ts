import { describe, expect, it } from 'vitest';
import en from '../src/shared/words/en';
import ru from '../src/shared/words/ru';
import uk from '../src/shared/words/uk';
import { choose, fill, plural, type Plural } from '../src/shared/words.svelte';

const places = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map((found) => found[1] as string).sort();

describe.each([['ru', ru], ['uk', uk]] as const)('%s', (language, words) => {
  it('has the same phrases as English', () => {
    expect(Object.keys(words).sort()).toEqual(Object.keys(en).sort());
  });

  it('has no empty phrase and the same places to fill', () => {
    for (const [key, english] of Object.entries(en)) {
      const own = words[key as keyof typeof words];
      if (typeof english !== 'string' || typeof own !== 'string') continue;
      expect(own.trim(), key).not.toBe('');
      expect(places(own), key).toEqual(places(english));
    }
  });

  it('has one, few and many wherever English counts, and they are chosen right', () => {
    const rules = new Intl.PluralRules(language);
    for (const [key, english] of Object.entries(en)) {
      if (typeof english === 'string') continue;
      const own = words[key as keyof typeof words] as Plural;
      expect(Object.keys(own).sort(), key).toEqual(['few', 'many', 'one', 'other']);
      for (const form of Object.values(own)) expect(places(form), key).toEqual(['n']);
      for (const n of [1, 2, 5, 11, 21]) expect(plural(own, rules.select(n), n)).toContain(String(n));
    }
    const calls = words['board.calls'] as Plural;
    expect([1, 3, 5, 11, 21, 104].map((n) => rules.select(n))).toEqual(['one', 'few', 'many', 'many', 'one', 'few']);
    expect(calls.few).not.toBe(calls.many);
  });
});

describe('words', () => {
  it('keeps the accessible names that the contract promises', () => {
    const promised: [keyof typeof en, string][] = [
      ['login.user', 'User'], ['login.password', 'Password'], ['login.submit', 'Log in'], ['shift.start', 'Start shift'], ['call.available', 'Available'],
      ['call.pause', 'Pause'], ['call.answer', 'Answer'], ['call.reject', 'Reject'], ['call.hangUp', 'Hang up'], ['call.mute', 'Mute'], ['call.hold', 'Hold'],
      ['call.resume', 'Resume'], ['call.keypad', 'Keypad'], ['call.number', 'Number to call'], ['call.dial', 'Call'], ['call.region', 'Call'], ['mode.ringing', 'Ringing'],
      ['mode.talking', 'Talking'], ['mode.dialling', 'Dialling'], ['mode.wrap_up', 'Wrap-up'], ['order.region', 'Order'], ['order.pickup', 'Pickup'],
      ['order.destination', 'Destination'], ['order.when', 'When'], ['order.class', 'Class'], ['order.comment', 'Comment'], ['order.save', 'Save order'],
      ['order.discard', 'Discard'], ['light.data', 'Data'], ['light.phone', 'Phone'], ['light.sound', 'Sound'], ['light.ok', 'ok'],
    ];
    for (const [key, name] of promised) expect(en[key]).toBe(name);
    expect(fill(en['mode.carrier'], { tone: en['tone.busy'] })).toBe('Carrier: busy');
  });

  it('speaks the language that was chosen, else the first of the browser that it knows', () => {
    expect(choose('uk', ['ru'])).toBe('uk');
    expect(choose(null, ['de-DE', 'ru-RU', 'en'])).toBe('ru');
    expect(choose(null, ['de'])).toBe('en');
    expect(choose('xx', ['uk-UA'])).toBe('uk');
  });

  it('fills only the places it is given', () => {
    expect(fill('{a} and {b}', { a: 1 })).toBe('1 and {b}');
  });
});
