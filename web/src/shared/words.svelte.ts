/** The words on the screens: one dictionary at a time, each fetched when it is first wanted. */
import type en from './words/en';

/** A plural by the rules of its language; `other` is always there. */
export type Plural = { other: string } & Partial<Record<Intl.LDMLPluralRule, string>>;
export type Words = { [K in keyof typeof en]: (typeof en)[K] extends string ? string : Plural };
export type Phrase = { [K in keyof Words]: Words[K] extends string ? K : never }[keyof Words];
export type Counted = Exclude<keyof Words, Phrase>;
export type Language = 'en' | 'ru' | 'uk';

export const LANGUAGES: readonly Language[] = ['en', 'ru', 'uk'];
const NAMES: Record<Language, string> = { en: 'English', ru: 'Русский', uk: 'Українська' };
const KEPT = 'tandem.language';

const load: Record<Language, () => Promise<{ default: Words }>> = {
  en: () => import('./words/en'),
  ru: () => import('./words/ru'),
  uk: () => import('./words/uk'),
};

let words = $state.raw<Words | null>(null);
let language = $state<Language>('en');
let rules = new Intl.PluralRules('en');

export function choose(kept: string | null, wanted: readonly string[]): Language {
  const all = kept ? [kept, ...wanted] : wanted;
  for (const tag of all) {
    const found = LANGUAGES.find((one) => tag.toLowerCase().split('-')[0] === one);
    if (found) return found;
  }
  return 'en';
}

export async function speak(next: Language): Promise<void> {
  const { default: dictionary } = await load[next]();
  rules = new Intl.PluralRules(next);
  language = next;
  words = dictionary;
  document.documentElement.lang = next;
}

export async function speakTheUsersLanguage(): Promise<void> {
  await speak(choose(localStorage.getItem(KEPT), navigator.languages));
}

export async function switchTo(next: Language): Promise<void> {
  localStorage.setItem(KEPT, next);
  await speak(next);
}

export const current = (): Language => language;
export const nameOf = (one: Language): string => NAMES[one];

export function fill(text: string, places: Readonly<Record<string, string | number>>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(places[name] ?? whole));
}

export function plural(forms: Plural, rule: Intl.LDMLPluralRule, n: number): string {
  return fill(forms[rule] ?? forms.other, { n });
}

/** A phrase. */
export function t(phrase: Phrase, places: Readonly<Record<string, string | number>> = {}): string {
  return words ? fill(words[phrase], places).trim() : '';
}

/** A phrase that counts. */
export function tn(phrase: Counted, n: number): string {
  return words ? plural(words[phrase], rules.select(n), n) : '';
}

/** A phrase that the server names: `tone.busy`; what is not in the dictionary is shown as it came. */
export function told(family: string, name: string | null | undefined): string {
  if (!name) return '';
  const text = words?.[`${family}.${name}` as Phrase];
  return typeof text === 'string' ? text : name;
}

export function percent(share: number): string {
  return new Intl.NumberFormat(language, { style: 'percent', maximumFractionDigits: 0 }).format(share);
}

/** A past day in few words: `12 Nov, 14:05`. */
export function when(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return '';
  return new Intl.DateTimeFormat(language, { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' }).format(date);
}
