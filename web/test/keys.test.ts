import { describe, expect, it } from 'vitest';
import { actionOf, endsNow, type Action, type Place, type Stroke } from '../src/desk/keys';

const stroke = (code: string, more: Partial<Stroke> = {}): Stroke => ({ code, key: '', ctrlKey: false, altKey: false, shiftKey: false, metaKey: false, repeat: false, ...more });

describe('keys', () => {
  const table: [string, Stroke, Place, Action | null][] = [
    ['F2 answers, even in a field', stroke('F2'), 'field', 'answer'],
    ['F4 ends', stroke('F4'), 'page', 'end'],
    ['F8 mutes', stroke('F8'), 'field', 'mute'],
    ['F9 holds', stroke('F9'), 'field', 'hold'],
    ['Shift+F2 changes the state', stroke('F2', { shiftKey: true }), 'field', 'ready'],
    ['Ctrl+Enter saves', stroke('Enter', { ctrlKey: true }), 'field', 'save'],
    ['Enter alone does nothing', stroke('Enter'), 'field', null],
    ['Alt+2 repeats the second order', stroke('Digit2', { altKey: true }), 'field', { repeat: 2 }],
    ['Alt+4 does nothing', stroke('Digit4', { altKey: true }), 'field', null],
    ['a digit alone does nothing', stroke('Digit2'), 'field', null],
    ['the space bar answers on the page', stroke('Space', { key: ' ' }), 'page', 'answer'],
    ['the space bar is a letter in a field', stroke('Space', { key: ' ' }), 'field', null],
    ['the space bar presses a focused button', stroke('Space', { key: ' ' }), 'control', null],
    ['Esc never touches a call', stroke('Escape'), 'page', null],
    ['a held key does not repeat', stroke('F4', { repeat: true }), 'page', null],
    ['Alt+F4 stays with the system', stroke('F4', { altKey: true }), 'page', null],
    ['? helps', stroke('Slash', { key: '?', shiftKey: true }), 'page', 'help'],
    ['? is a letter in a field', stroke('Slash', { key: '?', shiftKey: true }), 'field', null],
    ['a Cyrillic layout changes nothing', stroke('Digit1', { altKey: true, key: 'ё' }), 'field', { repeat: 1 }],
  ];
  it.each(table)('%s', (_, pressed, place, action) => expect(actionOf(pressed, place)).toEqual(action));

  it('ends a conversation by two presses within a second', () => {
    expect(endsNow(true, null, 1_000)).toBe(false);
    expect(endsNow(true, 100, 1_101)).toBe(false);
    expect(endsNow(true, 101, 1_101)).toBe(true);
    expect(endsNow(false, null, 1_000)).toBe(true);
  });
});
