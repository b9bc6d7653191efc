/** Light or dark: the system's wish, unless the person has chosen on this machine. */
const KEPT = 'tandem.theme';
export type Theme = 'light' | 'dark';

export function showKeptTheme(): void {
  const kept = localStorage.getItem(KEPT);
  if (kept === 'light' || kept === 'dark') document.documentElement.dataset['theme'] = kept;
}

export function shownTheme(): Theme {
  const chosen = document.documentElement.dataset['theme'];
  if (chosen === 'light' || chosen === 'dark') return chosen;
  return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
}

/** Switches over; back to what the system wants, the choice is forgotten. */
export function switchTheme(): Theme {
  const next: Theme = shownTheme() === 'dark' ? 'light' : 'dark';
  const system: Theme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  if (next === system) {
    localStorage.removeItem(KEPT);
    delete document.documentElement.dataset['theme'];
  } else {
    localStorage.setItem(KEPT, next);
    document.documentElement.dataset['theme'] = next;
  }
  return next;
}
