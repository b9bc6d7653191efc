/** Times and telephone numbers as people read them. */

/** `0:07`, `12:03`, `1:02:03`. */
export function clock(ms: number): string {
  const whole = Math.max(0, Math.floor(ms / 1000));
  const seconds = String(whole % 60).padStart(2, '0');
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, '0')}:${seconds}` : `${minutes}:${seconds}`;
}

/** Country codes whose numbers we know how to group; everything else goes in threes from the end. */
const SHAPES: readonly [RegExp, number[]][] = [
  [/^\+380\d{9}$/, [4, 2, 3, 2, 2]],
  [/^\+7\d{10}$/, [2, 3, 3, 2, 2]],
  [/^\+375\d{9}$/, [4, 2, 3, 2, 2]],
  [/^\+1\d{10}$/, [2, 3, 3, 4]],
  [/^0\d{9}$/, [3, 3, 2, 2]],
];

/** The groups of a number. They are set apart by space on the screen only: its text stays E.164. */
export function groups(number: string): string[] {
  const shape = SHAPES.find(([like]) => like.test(number))?.[1];
  if (shape) return cut(number, shape);
  if (!/^\+?\d{7,}$/.test(number)) return [number];
  const head = number.length % 3 || 3;
  return cut(number, [head, ...Array<number>(Math.ceil((number.length - head) / 3)).fill(3)]);
}

function cut(text: string, lengths: readonly number[]): string[] {
  let from = 0;
  return lengths.map((length) => text.slice(from, (from += length))).filter((part) => part !== '');
}
