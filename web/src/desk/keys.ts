/**
 * The desk's keys. By `event.code`, the place of the key, so that Latin, Russian and Ukrainian layouts
 * behave the same. Pure: a stroke and where it fell give an action or nothing.
 *
 * Invariant: typing in a field never reaches the phone; Esc never ends a call.
 */
export type Action =
  | 'answer'
  | 'end'
  | 'mute'
  | 'hold'
  | 'ready'
  | 'save'
  | 'help'
  | { repeat: number };

export interface Stroke {
  code: string;
  key: string;
  ctrlKey: boolean;
  altKey: boolean;
  shiftKey: boolean;
  metaKey: boolean;
  repeat: boolean;
}

/** Where the focus is: in something one types in, on a control, or on the page itself. */
export type Place = 'field' | 'control' | 'page';

export function actionOf(stroke: Stroke, place: Place): Action | null {
  if (stroke.repeat || stroke.metaKey) return null;
  const { code, ctrlKey: ctrl, altKey: alt, shiftKey: shift } = stroke;
  if (ctrl) return !alt && !shift && (code === 'Enter' || code === 'NumpadEnter') ? 'save' : null;
  if (alt) {
    const digit = /^(?:Digit|Numpad)([1-3])$/.exec(code)?.[1];
    return digit && !shift ? { repeat: Number(digit) } : null;
  }
  switch (code) {
    case 'F2':
      return shift ? 'ready' : 'answer';
    case 'F4':
      return shift ? null : 'end';
    case 'F8':
      return shift ? null : 'mute';
    case 'F9':
      return shift ? null : 'hold';
    case 'Space':
      return place === 'page' && !shift ? 'answer' : null;
    default:
      return place !== 'field' && stroke.key === '?' ? 'help' : null;
  }
}

export const SURE_MS = 1_000;

/** Ending a conversation by key asks for the key twice within a second; ringing and dialling do not. */
export function endsNow(talking: boolean, lastPress: number | null, now: number): boolean {
  return !talking || (lastPress !== null && now - lastPress <= SURE_MS);
}
